package foreign

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nftRule is a rule of nf_tables: the expressions in their order. opaque is one that is not understood.
type nftRule struct {
	parts []expr.Any
	sets  *sets
}

// opaque is an expression that is not understood. It may be a question.
type opaque struct{ expr.Any }

func (r *nftRule) meet(p *Packet) (tri, deed) {
	regs, sure := newRegisters(), yes
	for _, part := range r.parts {
		var t tri
		var d deed
		t, d = r.step(p, regs, part)
		if sure = sure.and(t); sure == no {
			return no, deed{}
		}
		if d.effect != nothing {
			return sure, d
		}
	}
	return sure, deed{}
}

// step is one expression: whether the rule goes on, and what it does.
func (r *nftRule) step(p *Packet, regs registers, part expr.Any) (tri, deed) {
	switch e := part.(type) {
	case *expr.Meta:
		if !e.SourceRegister {
			regs.set(e.Register, p.meta(e.Key))
		}
	case *expr.Ct:
		if !e.SourceRegister {
			regs.set(e.Register, p.tracked(e.Key))
		}
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			regs.set(e.DestRegister, p.payload(e.Base, int(e.Offset), int(e.Len)))
		}
	case *expr.Fib:
		regs.set(e.Register, p.fib(e))
	case *expr.Bitwise:
		v := blank(int(e.Len))
		if len(e.Mask) > 0 && len(e.Mask) == len(e.Xor) {
			v = regs.get(e.SourceRegister, int(e.Len)).masked(e.Mask, e.Xor)
		}
		regs.set(e.DestRegister, v)
	case *expr.Byteorder:
		regs.set(e.DestRegister, blank(int(e.Len)))
	case *expr.Immediate:
		regs.set(e.Register, exactly(e.Data...))
	case *expr.Cmp:
		return regs.get(e.Register, len(e.Data)).compare(e.Op, e.Data), deed{}
	case *expr.Range:
		return regs.get(e.Register, len(e.FromData)).within(e.FromData, e.ToData).not(e.Op == expr.CmpOpNeq), deed{}
	case *expr.Lookup:
		return r.lookup(regs, e)
	case *expr.Match:
		return p.matches(e), deed{}
	case opaque:
		return unknown, deed{}
	default:
		return yes, r.act(regs, part)
	}
	return yes, deed{}
}

func (r *nftRule) lookup(regs registers, e *expr.Lookup) (tri, deed) {
	t, verdict := r.sets.has(e.SetName, regs.cut(offset(e.SourceRegister), 64-max(offset(e.SourceRegister), 0)))
	if !e.IsDestRegSet {
		return t.not(e.Invert), deed{}
	}
	switch {
	case t == no:
		return no, deed{}
	case e.DestRegister != unix.NFT_REG_VERDICT:
		regs.set(e.DestRegister, blank(16))
		return t, deed{}
	case t == unknown:
		return unknown, deed{effect: looksUp}
	}
	return yes, verdictOf(verdict)
}

func verdictOf(v *expr.Verdict) deed {
	if v == nil {
		return deed{}
	}
	switch v.Kind {
	case expr.VerdictAccept:
		return deed{effect: accepts}
	case expr.VerdictDrop:
		return deed{effect: drops}
	case expr.VerdictJump:
		return deed{effect: jumps, chain: v.Chain}
	case expr.VerdictGoto:
		return deed{effect: goes, chain: v.Chain}
	case expr.VerdictReturn:
		return deed{effect: returns}
	}
	return deed{}
}

// act is what a rule does: counting, logging and the like are nothing here.
func (r *nftRule) act(regs registers, part expr.Any) deed {
	switch e := part.(type) {
	case *expr.Verdict:
		return verdictOf(e)
	case *expr.Reject:
		return deed{effect: rejects}
	case *expr.NAT:
		if e.Type == expr.NATTypeDestNAT {
			return deed{effect: translates, to: netip.AddrPortFrom(regs.address(e), regs.port(e.RegProtoMin))}
		}
		return deed{effect: accepts}
	case *expr.Redir:
		return deed{effect: translates, to: netip.AddrPortFrom(netip.Addr{}, regs.port(e.RegisterProtoMin))}
	case *expr.TProxy:
		return deed{effect: translates, to: netip.AddrPortFrom(netip.Addr{}, regs.port(e.RegPort))}
	case *expr.Masq:
		return deed{effect: accepts}
	case *expr.Target:
		return targetOf(e)
	}
	return deed{}
}

func (r registers) address(e *expr.NAT) netip.Addr {
	n := 4
	if e.Family == unix.NFPROTO_IPV6 {
		n = 16
	}
	v := r.get(e.RegAddrMin, n)
	if e.RegAddrMin == 0 || !v.certain() {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(v.data)
	return a
}

func native32(n uint32) value { return exactly(binary.NativeEndian.AppendUint32(nil, n)...) }

// meta is what nft calls meta KEY.
func (p *Packet) meta(key expr.MetaKey) value {
	name := func(link string) value {
		v := blank(unix.IFNAMSIZ)
		if link != "" {
			copy(v.data, link)
			v.put(0, v.data, known)
		}
		return v
	}
	index := func(n int) value {
		if n == 0 {
			return blank(4)
		}
		return native32(uint32(n))
	}
	switch key {
	case expr.MetaKeyMARK:
		return native32(p.Mark)
	case expr.MetaKeyNFPROTO:
		if p.V6 {
			return exactly(unix.NFPROTO_IPV6)
		}
		return exactly(unix.NFPROTO_IPV4)
	case expr.MetaKeyPROTOCOL:
		if p.V6 {
			return exactly(0x86, 0xdd)
		}
		return exactly(0x08, 0x00)
	case expr.MetaKeyL4PROTO:
		return exactly(p.Proto)
	case expr.MetaKeyIIFNAME:
		return name(p.In)
	case expr.MetaKeyOIFNAME:
		return name(p.Out)
	case expr.MetaKeyIIF:
		return index(p.InIndex)
	case expr.MetaKeyOIF:
		return index(p.OutIndex)
	case expr.MetaKeyPKTTYPE:
		return exactly(unix.PACKET_HOST)
	}
	return blank(16)
}

// States of a connection, as bits of ct state and of the match conntrack (linux/netfilter/nf_conntrack_common.h).
const (
	stateEstablished = 1 << 1
	stateNew         = 1 << 3
	statusDNAT       = 1 << 5 // IPS_DST_NAT
)

func (p *Packet) state() uint32 {
	if p.Reply {
		return stateEstablished
	}
	return stateNew
}

// tracked is what nft calls ct KEY.
func (p *Packet) tracked(key expr.CtKey) value {
	switch key {
	case expr.CtKeySTATE:
		return native32(p.state())
	case expr.CtKeyDIRECTION:
		if p.Reply {
			return exactly(1)
		}
		return exactly(0)
	case expr.CtKeySTATUS:
		if p.Translated {
			return native32(statusDNAT)
		}
		return native32(0)
	}
	return blank(16)
}

// fib is what the routes say.
func (p *Packet) fib(e *expr.Fib) value {
	if e.ResultADDRTYPE && e.FlagDADDR && !e.FlagSADDR {
		if p.Local {
			return native32(unix.RTN_LOCAL)
		}
		return native32(unix.RTN_UNICAST)
	}
	return blank(16)
}

// payload is bytes of the packet's headers.
func (p *Packet) payload(base expr.PayloadBase, at, n int) value {
	switch base {
	case expr.PayloadBaseNetworkHeader:
		return p.network().cut(at, n)
	case expr.PayloadBaseTransportHeader:
		return p.transport().cut(at, n)
	}
	return blank(n)
}

func (p *Packet) network() value {
	from, to, length, proto, size := 12, 16, 4, 9, 20
	if p.V6 {
		from, to, length, proto, size = 8, 24, 16, 6, 40
	}
	h := blank(size)
	h.put(proto, []byte{p.Proto}, known)
	h.address(from, length, p.From.Addr(), stranger)
	h.address(to, length, p.To.Addr(), obscure)
	return h
}

// address puts an address in, or what is known of one that is not.
func (v value) address(at, length int, a netip.Addr, otherwise certainty) {
	if b := a.AsSlice(); len(b) == length {
		v.put(at, b, known)
		return
	}
	v.put(at, make([]byte, length), otherwise)
}

func (p *Packet) transport() value {
	h := blank(20)
	from, to := []byte{0, 0}, []byte{0, 0}
	binary.BigEndian.PutUint16(from, p.From.Port())
	binary.BigEndian.PutUint16(to, p.To.Port())
	h.put(0, from, stranger)
	if p.From.Port() != 0 {
		h.put(0, from, known)
	}
	h.put(2, to, stranger)
	if p.To.Port() != 0 {
		h.put(2, to, known)
	}
	if p.Proto == tcp && !p.Reply {
		h.put(13, []byte{2}, known) // SYN
	}
	return h
}

// link reports whether a name as iptables has it, perhaps with a + at its end, is that of a link.
func link(want, have string) tri {
	if have == "" {
		return unknown
	}
	if prefix, ok := strings.CutSuffix(want, "+"); ok {
		return is(strings.HasPrefix(have, prefix))
	}
	return is(want == have)
}
