package foreign

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// matches is a match of iptables-nft that has no equal in nf_tables.
func (p *Packet) matches(m *expr.Match) tri {
	switch info := m.Info.(type) {
	case *xt.Comment:
		return yes
	case *xt.Tcp:
		t := is(p.Proto == tcp).and(p.ports(info.SrcPorts, info.DstPorts, byte(info.InvFlags)))
		if info.FlagsMask != 0 && t != no {
			t = t.and(is(info.FlagsMask&2 == info.FlagsCmp).not(info.InvFlags&xt.TcpInvFlags != 0)) // SYN alone
		}
		return t
	case *xt.Udp:
		return is(p.Proto == udp).and(p.ports(info.SrcPorts, info.DstPorts, byte(info.InvFlags)))
	case *xt.ConntrackMtinfo1:
		return p.conntrack(info.MatchFlags, info.InvertFlags, uint16(info.StateMask))
	case *xt.ConntrackMtinfo2:
		return p.conntrack(info.MatchFlags, info.InvertFlags, info.StateMask)
	case *xt.ConntrackMtinfo3:
		return p.conntrack(info.MatchFlags, info.InvertFlags, info.StateMask)
	case *xt.AddrTypeV1:
		return p.addressType(info.Source, info.Dest, info.Flags&2 != 0)
	case *xt.AddrType:
		return p.addressType(info.Source, info.Dest, info.InvertDest)
	case *xt.Unknown:
		return p.raw(m.Name, m.Rev, *info)
	}
	return unknown
}

// ports compares with ranges; inverted has a bit for each.
func (p *Packet) ports(from, to [2]uint16, inverted byte) tri {
	t := is(to[0] <= p.To.Port() && p.To.Port() <= to[1]).not(inverted&2 != 0)
	if from == [2]uint16{0, 0xffff} {
		return t
	}
	known := p.From.Port() != 0
	return t.and(is(known && from[0] <= p.From.Port() && p.From.Port() <= from[1]).not(inverted&1 != 0))
}

// conntrack knows states alone (linux/netfilter/xt_conntrack.h).
func (p *Packet) conntrack(flags, inverted, states uint16) tri {
	const byState, dnat = 1, 1 << 7
	t := yes
	if flags&byState != 0 {
		met := uint32(states)&p.state() != 0 || p.Translated && states&dnat != 0
		t = is(met).not(inverted&byState != 0)
	}
	if flags&^byState != 0 {
		return t.and(unknown)
	}
	return t
}

// addressType takes sources as anybody's: unicast, and not of this machine.
func (p *Packet) addressType(from, to uint16, invert bool) tri {
	const unicast, local = 1 << 1, 1 << 2
	t := yes
	if to != 0 {
		is2 := to&unicast != 0
		if p.Local {
			is2 = to&local != 0
		}
		t = is(is2).not(invert)
	}
	if from != 0 {
		return t.and(unknown)
	}
	return t
}

// raw knows the matches whose data the library leaves as bytes, in the machine's order.
func (p *Packet) raw(name string, revision uint32, b []byte) tri {
	number := binary.NativeEndian
	switch {
	case name == "limit":
		return yes // there is room as a rule
	case name == "mark" && revision == 1 && len(b) >= 9:
		return is(p.Mark&number.Uint32(b[4:]) == number.Uint32(b)).not(b[8] != 0)
	case name == "state" && len(b) >= 4:
		return is(number.Uint32(b)&p.state() != 0)
	case name == "multiport" && revision == 1 && len(b) >= 48:
		return p.multiport(b)
	}
	return unknown
}

// multiport reads struct xt_multiport_v1: flags, count, ports[15], pflags[15], invert.
func (p *Packet) multiport(b []byte) tri {
	const bySource, byDestination = 0, 1
	if b[0] != byDestination && b[0] != bySource {
		return unknown
	}
	port, met := p.To.Port(), false
	if b[0] == bySource {
		port = p.From.Port()
	}
	for i := 0; i < int(b[1]) && i < 15; i++ {
		first := binary.NativeEndian.Uint16(b[2+2*i:])
		last := first
		if b[32+i] != 0 && i+1 < 15 { // a range takes two
			i++
			last = binary.NativeEndian.Uint16(b[2+2*i:])
		}
		met = met || first <= port && port <= last
	}
	return is(met).not(b[47] != 0)
}

// targetOf is a target of iptables-nft that is no verdict.
func targetOf(e *expr.Target) deed {
	switch e.Name {
	case "REJECT":
		return deed{effect: rejects}
	case "DNAT":
		switch info := e.Info.(type) {
		case *xt.NatRange2:
			return destination(info.NatRange)
		case *xt.NatRange:
			return destination(*info)
		case *xt.NatIPv4MultiRangeCompat:
			if len(*info) > 0 {
				first := (*info)[0]
				a, _ := netip.AddrFromSlice(first.MinIP.To4())
				return deed{effect: translates, to: netip.AddrPortFrom(a, first.MinPort)}
			}
		}
		return deed{effect: translates}
	case "REDIRECT", "TPROXY":
		return deed{effect: translates}
	case "MASQUERADE", "SNAT":
		return deed{effect: accepts}
	}
	return deed{}
}

func destination(r xt.NatRange) deed {
	a, _ := netip.AddrFromSlice(r.MinIP)
	return deed{effect: translates, to: netip.AddrPortFrom(a.Unmap(), r.MinPort)}
}
