package client

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// noGlobal lists the addresses that a packet does not keep on its way, by their kind
// (RFC 6890 and what it refers to): such a device does not know its own address.
var noGlobal = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", // DS-Lite and 464XLAT, RFC 7335
	"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
)

// global is what IPv6 has of global unicast addresses; ULA and link-local are outside.
var global = netip.MustParsePrefix("2000::/3")

// wellKnown64 are the prefixes of RFC 6052 and RFC 8215 behind which an IPv4 host is.
var wellKnown64 = prefixes("64:ff9b::/96", "64:ff9b:1::/48")

func prefixes(texts ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, t := range texts {
		p = append(p, netip.MustParsePrefix(t))
	}
	return p
}

// keepsAddress reports whether an address is of a kind that reaches the router unchanged.
func keepsAddress(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		return !within(noGlobal, a)
	}
	return global.Contains(a)
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// translators finds the NAT64 prefixes of the network this device is on.
type translators struct {
	net   Network
	turn  chan struct{} // holds the one token; who has it may ask
	asked bool
	list  []netip.Prefix
}

func newTranslators(n Network) *translators {
	t := &translators{net: n, turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

// declared returns the address that a packet from local to a target may declare: the
// zero Addr if the router will see another, or may.
func (t *translators) declared(ctx context.Context, local netip.Addr, to target) netip.Addr {
	ip := to.addr.Addr()
	switch {
	case !keepsAddress(local) || within(wellKnown64, ip):
		return netip.Addr{}
	case ip.Is6() && to.named && within(t.prefixes(ctx), ip):
		return netip.Addr{}
	}
	return local.Unmap().WithZone("")
}

// nat64Patience bounds the look-up of RFC 7050. It asks the resolver that has just
// found the router, so it is answered at once or not at all.
const nat64Patience = 500 * time.Millisecond

// prefixes asks, as RFC 7050 says, for the IPv6 addresses of a name that has none: an
// answer was made up from its two IPv4 addresses and tells the prefix. No answer is
// no prefix: the address is then declared, as it would be if nobody had been asked.
func (t *translators) prefixes(ctx context.Context) []netip.Prefix {
	select {
	case <-ctx.Done():
		return nil
	case <-t.turn:
	}
	defer func() { t.turn <- struct{}{} }()
	if t.asked {
		return t.list
	}
	bounded, cancel := context.WithTimeout(ctx, nat64Patience)
	defer cancel()
	ips, _ := t.net.Lookup(bounded, IPv6, "ipv4only.arpa.")
	for _, ip := range ips {
		t.list = append(t.list, embeddings(ip)...)
	}
	t.asked = ctx.Err() == nil // else the other family was faster, and nobody waited for the answer
	return t.list
}

// embeddings returns the prefixes under which an address holds 192.0.0.170 or .171 in
// one of the six layouts of RFC 6052, section 2.2: the IPv4 address follows the prefix
// and leaves out bits 64 to 71.
func embeddings(ip netip.Addr) []netip.Prefix {
	var list []netip.Prefix
	if !ip.Is6() || ip.Is4In6() {
		return nil
	}
	b := ip.As16()
	short := slices.Delete(slices.Clone(b[:]), 8, 9)
	for _, bits := range []int{32, 40, 48, 56, 64, 96} {
		from, at := short, bits/8
		if bits == 96 {
			from = b[:]
		}
		if v4 := [4]byte(from[at : at+4]); v4 == [4]byte{192, 0, 0, 170} || v4 == [4]byte{192, 0, 0, 171} {
			list = append(list, netip.PrefixFrom(ip.WithZone(""), bits).Masked())
		}
	}
	return list
}
