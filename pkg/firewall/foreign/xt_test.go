package foreign

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// Older versions of iptables-nft leave to these matches what newer ones say in nf_tables' own words, so that what they load
// here does not try them.
func TestMatches(t *testing.T) {
	native := binary.NativeEndian
	mark := func(value, mask uint32, invert byte) *xt.Unknown {
		b := xt.Unknown(append(native.AppendUint32(native.AppendUint32(nil, value), mask), invert, 0, 0, 0))
		return &b
	}
	multiport := func(invert byte, ranges ...[2]uint16) *xt.Unknown {
		b := make([]byte, 48)
		b[0], b[47] = 1, invert
		for _, r := range ranges {
			for i, port := range r {
				if port != 0 {
					native.PutUint16(b[2+2*int(b[1]):], port)
					if i == 0 && r[1] != 0 {
						b[32+int(b[1])] = 1
					}
					b[1]++
				}
			}
		}
		u := xt.Unknown(b)
		return &u
	}
	states := func(mask, invert uint16) *xt.ConntrackMtinfo3 {
		return &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
			ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: 1, InvertFlags: invert}, StateMask: mask,
		}}
	}
	comment := xt.Comment("spad")
	packet := Packet{Proto: tcp, To: netip.MustParseAddrPort("203.0.113.1:22"), Mark: 0x10, Local: true}
	reply := Packet{Proto: tcp, From: netip.MustParseAddrPort("203.0.113.1:22"), Reply: true}
	translated := Packet{Proto: tcp, Translated: true}
	for _, tt := range []struct {
		name   string
		packet Packet
		match  expr.Match
		want   tri
	}{
		{"comment", packet, expr.Match{Name: "comment", Info: &comment}, yes},
		{"mark", packet, expr.Match{Name: "mark", Rev: 1, Info: mark(0x10, 0x10, 0)}, yes},
		{"another mark", packet, expr.Match{Name: "mark", Rev: 1, Info: mark(0x20, 0x20, 0)}, no},
		{"not the mark", packet, expr.Match{Name: "mark", Rev: 1, Info: mark(0x10, 0x10, 1)}, no},
		{"mark of a later revision", packet, expr.Match{Name: "mark", Rev: 9, Info: mark(0x10, 0x10, 0)}, unknown},
		{"port of a list", packet, expr.Match{Name: "multiport", Rev: 1, Info: multiport(0, [2]uint16{80}, [2]uint16{20, 25})}, yes},
		{"port beside a range", packet, expr.Match{Name: "multiport", Rev: 1, Info: multiport(0, [2]uint16{23, 25}, [2]uint16{21})}, no},
		{"port not of a list", packet, expr.Match{Name: "multiport", Rev: 1, Info: multiport(1, [2]uint16{22})}, no},
		{"new", packet, expr.Match{Info: states(stateNew, 0)}, yes},
		{"not new", packet, expr.Match{Info: states(stateNew, 1)}, no},
		{"established", packet, expr.Match{Info: states(stateEstablished, 0)}, no},
		{"established answer", reply, expr.Match{Info: states(stateEstablished, 0)}, yes},
		{"translated", translated, expr.Match{Info: states(1<<7, 0)}, yes},
		{"state, old style", packet, expr.Match{Name: "state", Info: mark(stateNew, 0, 0)}, yes},
		{"to this machine", packet, expr.Match{Info: &xt.AddrTypeV1{Dest: 1 << 2}}, yes},
		{"not to this machine", packet, expr.Match{Info: &xt.AddrTypeV1{Dest: 1 << 2, Flags: 2}}, no},
		{"port", packet, expr.Match{Info: &xt.Tcp{SrcPorts: [2]uint16{0, 0xffff}, DstPorts: [2]uint16{22, 22}}}, yes},
		{"not that port", packet, expr.Match{Info: &xt.Tcp{SrcPorts: [2]uint16{0, 0xffff}, DstPorts: [2]uint16{22, 22}, InvFlags: 2}}, no},
		{"from a port", packet, expr.Match{Info: &xt.Tcp{SrcPorts: [2]uint16{53, 53}, DstPorts: [2]uint16{0, 0xffff}}}, no},
		{"SYN", packet, expr.Match{Info: &xt.Tcp{SrcPorts: [2]uint16{0, 0xffff}, DstPorts: [2]uint16{0, 0xffff}, FlagsMask: 0x17, FlagsCmp: 2}}, yes},
		{"of udp", packet, expr.Match{Info: &xt.Udp{SrcPorts: [2]uint16{0, 0xffff}, DstPorts: [2]uint16{0, 0xffff}}}, no},
		{"anything else", packet, expr.Match{Name: "recent", Info: &xt.Unknown{1}}, unknown},
	} {
		if got := tt.packet.matches(&tt.match); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
