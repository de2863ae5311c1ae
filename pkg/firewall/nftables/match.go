package nftables

import (
	"math/bits"
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// Each function returns the parts of a rule that nft writes as in its comment. They pass values in register 1 (and 2).

var native = binaryutil.NativeEndian

func rule(parts ...[]part) []part { return slices.Concat(parts...) }

func compare(op expr.CmpOp, value []byte) part {
	return express(&expr.Cmp{Op: op, Register: 1, Data: value})
}

func load(key expr.MetaKey) part { return express(&expr.Meta{Key: key, Register: 1}) }

// iif lo; the loopback link is number 1 in every network namespace.
func fromLoopback() []part {
	return []part{load(expr.MetaKeyIIF), compare(expr.CmpOpEq, native.PutUint32(1))}
}

// oif lo
func toLoopback() []part {
	return []part{load(expr.MetaKeyOIF), compare(expr.CmpOpEq, native.PutUint32(1))}
}

// ct direction original, or reply
func direction(reply byte) []part {
	return []part{express(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}), compare(expr.CmpOpEq, []byte{reply})}
}

const (
	original = 0
	reply    = 1
)

// ct state established
func established() []part {
	return []part{
		express(&expr.Ct{Key: expr.CtKeySTATE, Register: 1}), mask(native.PutUint32(expr.CtStateBitESTABLISHED)),
		compare(expr.CmpOpNeq, native.PutUint32(0)),
	}
}

// ct status dnat
func translated() []part {
	const dnat = 1 << 5 // IPS_DST_NAT
	return []part{
		express(&expr.Ct{Key: expr.CtKeySTATUS, Register: 1}), mask(native.PutUint32(dnat)), compare(expr.CmpOpNeq, native.PutUint32(0)),
	}
}

// fib daddr type unicast: the packet is for another host, and only passes.
func passing() []part {
	return []part{
		express(&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}),
		compare(expr.CmpOpEq, native.PutUint32(unix.RTN_UNICAST)),
	}
}

// fib daddr type != local
func notOurs() []part {
	return []part{
		express(&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}),
		compare(expr.CmpOpNeq, native.PutUint32(unix.RTN_LOCAL)),
	}
}

// fib saddr type local
func fromOurs() []part { return source(expr.CmpOpEq) }

// fib saddr type != local
func fromOthers() []part { return source(expr.CmpOpNeq) }

func source(op expr.CmpOp) []part {
	return []part{
		express(&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}), compare(op, native.PutUint32(unix.RTN_LOCAL)),
	}
}

// meta l4proto tcp
func proto(p firewall.Proto) []part {
	return []part{load(expr.MetaKeyL4PROTO), compare(expr.CmpOpEq, []byte{byte(p)})}
}

// tcp dport vmap @name
func byPort(p firewall.Proto, name string) []part {
	return append(proto(p), transport(2), dispatch(name))
}

// tcp flags rst
func resetting() []part {
	const offset, rst = 13, 1 << 2
	return append(proto(firewall.TCP),
		express(&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 1, DestRegister: 1}),
		mask([]byte{rst}), compare(expr.CmpOpNeq, []byte{0}))
}

// tcp sport N, tcp sport N-M
func fromPorts(p firewall.Ports) []part { return append(proto(p.Proto), ports(p, 0)...) }

// tcp dport N, tcp dport N-M
func toPorts(p firewall.Ports) []part { return append(proto(p.Proto), ports(p, 2)...) }

func ports(p firewall.Ports, offset uint32) []part {
	first, last := binaryutil.BigEndian.PutUint16(p.First), binaryutil.BigEndian.PutUint16(p.Last)
	if p.First == p.Last {
		return []part{transport(offset), compare(expr.CmpOpEq, first)}
	}
	return []part{transport(offset), compare(expr.CmpOpGte, first), compare(expr.CmpOpLte, last)}
}

// ip6 saddr A, ip6 saddr & ::ffff:… == A; and not from us, whose address may end alike
func fromHole(h firewall.Hole) []part { return append(hole(h, 8), fromOthers()...) }

// ip6 daddr A, ip6 daddr & ::ffff:… == A; and not to us
func toHole(h firewall.Hole) []part { return append(hole(h, 24), passing()...) }

func hole(h firewall.Hole, offset uint32) []part {
	parts := append(ipFamily(true), network(offset, 16))
	if h.Bits < 128 {
		parts = append(parts, mask(h.Mask().AsSlice()))
	}
	return append(parts, compare(expr.CmpOpEq, h.Addr.AsSlice()))
}

// meta l4proto tcp ct original proto-dst vmap @name
func byOriginalPort(p firewall.Proto, name string) []part {
	return append(proto(p), ctOriginal(unix.NFT_CT_PROTO_DST), dispatch(name))
}

func transport(offset uint32) part {
	return express(&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2, DestRegister: 1})
}

// dispatch gives the verdict of a map.
func dispatch(name string) part {
	return express(&expr.Lookup{SourceRegister: 1, SetName: name, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})
}

// ip saddr @name, ip6 saddr & ffff:… == @name. bits is the length of the set's IPv6 prefixes, ignored for IPv4 and 128.
func fromSet(v6 bool, name string, bits int) []part {
	parts := ipFamily(v6)
	if v6 {
		parts = append(parts, network(8, 16))
	} else {
		parts = append(parts, network(12, 4))
	}
	return append(append(parts, prefix(v6, bits)...), member(name))
}

// ct original ip saddr @name, ct original ip6 saddr & ffff:… == @name
func originallyFromSet(v6 bool, name string, bits int) []part {
	key := uint32(unix.NFT_CT_SRC_IP)
	if v6 {
		key = unix.NFT_CT_SRC_IP6
	}
	return append(append(append(ipFamily(v6), ctOriginal(key)), prefix(v6, bits)...), member(name))
}

// ctOriginal loads a key of the original direction. It is not expr.Ct, which leaves the direction out for newer keys, and
// writes four bytes where the kernel wants one (and says so in its log).
func ctOriginal(key uint32) part {
	return func() ([]byte, error) {
		data, err := netlink.MarshalAttributes([]netlink.Attribute{
			number(unix.NFTA_CT_KEY, key), number(unix.NFTA_CT_DREG, 1), {Type: unix.NFTA_CT_DIRECTION, Data: []byte{original}},
		})
		if err != nil {
			return nil, err
		}
		return netlink.MarshalAttributes([]netlink.Attribute{
			text(unix.NFTA_EXPR_NAME, "ct"), {Type: unix.NFTA_EXPR_DATA | unix.NLA_F_NESTED, Data: data},
		})
	}
}

// ip daddr A, ip6 daddr A
func toAddr(a netip.Addr) []part {
	parts := ipFamily(a.Is6())
	if a.Is6() {
		parts = append(parts, network(24, 16))
	} else {
		parts = append(parts, network(16, 4))
	}
	return append(parts, compare(expr.CmpOpEq, a.AsSlice()))
}

func ipFamily(v6 bool) []part {
	n := byte(unix.NFPROTO_IPV4)
	if v6 {
		n = unix.NFPROTO_IPV6
	}
	return []part{load(expr.MetaKeyNFPROTO), compare(expr.CmpOpEq, []byte{n})}
}

func network(offset, length uint32) part {
	return express(&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length, DestRegister: 1})
}

func member(name string) part { return express(&expr.Lookup{SourceRegister: 1, SetName: name}) }

func prefix(v6 bool, bits int) []part {
	if !v6 || bits == 128 {
		return nil
	}
	ones := make([]byte, 16)
	for i := range bits {
		ones[i/8] |= 0x80 >> (i % 8)
	}
	return []part{mask(ones)}
}

func mask(m []byte) part {
	return express(&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(m)), Mask: m, Xor: make([]byte, len(m))})
}

// meta mark set meta mark | BIT
func addMark(bit uint32) []part {
	return []part{
		load(expr.MetaKeyMARK),
		express(&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native.PutUint32(^bit), Xor: native.PutUint32(bit),
		}),
		express(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}),
	}
}

// ct label set BIT
func addLabel() []part {
	return []part{
		express(&expr.Immediate{Register: 1, Data: label()}),
		express(&expr.Ct{Key: expr.CtKeyLABELS, Register: 1, SourceRegister: true}),
	}
}

// ct label BIT
func labelled() []part {
	return []part{
		express(&expr.Ct{Key: expr.CtKeyLABELS, Register: 1}), mask(label()), compare(expr.CmpOpNeq, make([]byte, 16)),
	}
}

// label is the connection label with the highest number, 127: the highest bit of the last of the kernel's unsigned longs,
// which are as long as ours.
func label() []byte {
	b := make([]byte, 16)
	if bits.UintSize == 32 {
		copy(b[12:], native.PutUint32(1<<31))
	} else {
		copy(b[8:], native.PutUint64(1<<63))
	}
	return b
}

func verdict(kind expr.VerdictKind) []part { return []part{express(&expr.Verdict{Kind: kind})} }

// goto chain
func moveOn(chain string) []part {
	return []part{express(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})}
}

var (
	accept = verdict(expr.VerdictAccept)
	drop   = verdict(expr.VerdictDrop)
)

// reject with tcp reset
func reset() []part { return []part{express(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})} }

// reject with icmpx port-unreachable
func unreachable() []part {
	return []part{express(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH})}
}

// dnat ip to A:P
func dnat(to netip.AddrPort) []part {
	return []part{
		express(&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()}),
		express(&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to.Port())}),
		express(&expr.NAT{Type: expr.NATTypeDestNAT, Family: protocolOf(to.Addr()), RegAddrMin: 1, RegProtoMin: 2}),
	}
}

// dnat ip to A, the port stays
func dnatKeeping(to netip.Addr) []part {
	return []part{
		express(&expr.Immediate{Register: 1, Data: to.AsSlice()}),
		express(&expr.NAT{Type: expr.NATTypeDestNAT, Family: protocolOf(to), RegAddrMin: 1}),
	}
}

// dnat ip to A:tcp dport map @name
func dnatByMap(to netip.Addr, name string) []part {
	return []part{
		transport(2),
		express(&expr.Lookup{SourceRegister: 1, SetName: name, IsDestRegSet: true, DestRegister: 2}),
		express(&expr.Immediate{Register: 1, Data: to.AsSlice()}),
		express(&expr.NAT{Type: expr.NATTypeDestNAT, Family: protocolOf(to), RegAddrMin: 1, RegProtoMin: 2}),
	}
}

// masquerade
func masquerade() []part { return []part{express(&expr.Masq{})} }

func protocolOf(a netip.Addr) uint32 {
	if a.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
