package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// lookupPatience bounds the resolver, which by itself may take half a minute when
	// its servers are gone. It tries a second server within five seconds.
	lookupPatience = 6 * time.Second
	// perFamily is how many addresses of a name are knocked at in each family: two,
	// for a name that still has a former address, or a router with two uplinks. More
	// would take the router's budget for little.
	perFamily = 2
)

// target is an address to knock at.
type target struct {
	addr  netip.AddrPort
	named bool // it was found by name, so it may be one that a DNS64 made up
}

// places finds the addresses of one router, each family once for all packets.
type places struct {
	net  Network
	host string
	port uint16
	v4   func(context.Context) ([]target, error)
	v6   func(context.Context) ([]target, error)
}

func newPlaces(n Network, addr string) (*places, error) {
	host, port, ok := splitAddr(addr)
	if !ok {
		return nil, configErrorf("%q is not host:port", addr)
	}
	p := &places{net: n, host: host, port: port}
	p.v4, p.v6 = p.once(IPv4), p.once(IPv6)
	return p, nil
}

func (p *places) once(f Family) func(context.Context) ([]target, error) {
	var mu sync.Mutex
	var found []target
	return func(ctx context.Context) ([]target, error) {
		mu.Lock()
		defer mu.Unlock()
		if found != nil {
			return found, nil
		}
		t, err := p.find(ctx, f)
		if err == nil {
			found = t
		}
		return t, err
	}
}

// families returns those worth trying: a literal address has one.
func (p *places) families(only Family) ([]Family, error) {
	ip, err := netip.ParseAddr(p.host)
	switch {
	case err != nil && only == Both:
		return []Family{IPv4, IPv6}, nil
	case err != nil:
		return []Family{only}, nil
	}
	f := familyOf(ip)
	if only != Both && only != f {
		return nil, configErrorf("%s is an %v address: leave out -%d", p.host, f, only)
	}
	return []Family{f}, nil
}

func familyOf(ip netip.Addr) Family {
	if ip.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

func (p *places) in(ctx context.Context, f Family) ([]target, error) {
	if f == IPv4 {
		return p.v4(ctx)
	}
	return p.v6(ctx)
}

func (p *places) find(ctx context.Context, f Family) ([]target, error) {
	if ip, err := netip.ParseAddr(p.host); err == nil {
		return []target{{addr: netip.AddrPortFrom(ip.Unmap(), p.port)}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	ips, err := p.net.Lookup(ctx, f, p.host)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound, err == nil && len(ips) == 0:
		return nil, fmt.Errorf("%s has no %v address", p.host, f)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("looking up %s: no answer from the name server", p.host)
	case errors.As(err, &dns):
		return nil, fmt.Errorf("looking up %s: %s", p.host, dns.Err)
	case err != nil:
		return nil, fmt.Errorf("looking up %s: %w", p.host, err)
	}
	var t []target
	for _, ip := range ips[:min(len(ips), perFamily)] {
		t = append(t, target{netip.AddrPortFrom(ip.Unmap(), p.port), true})
	}
	return t, nil
}
