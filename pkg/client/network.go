package client

import (
	"context"
	"net"
	"net/netip"
)

// Network is what a client asks of the network.
type Network interface {
	// Lookup returns the addresses of a host name in one family.
	Lookup(ctx context.Context, f Family, host string) ([]netip.Addr, error)
	// Dial makes a UDP socket that is connected to an address. It fails if there is
	// no route there.
	Dial(ctx context.Context, to netip.AddrPort) (Conn, error)
}

// Conn is a connected UDP socket. Read may return errors that tell of ICMP messages;
// the socket goes on working after them. Close ends a Read that waits.
type Conn interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	LocalAddr() netip.Addr
	Close() error
}

// internet is the Network this machine is on.
type internet struct{}

func (internet) Lookup(ctx context.Context, f Family, host string) ([]netip.Addr, error) {
	network := "ip4"
	if f == IPv6 {
		network = "ip6"
	}
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

func (internet) Dial(ctx context.Context, to netip.AddrPort) (Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "udp", to.String())
	if err != nil {
		return nil, err
	}
	return socket{c}, nil
}

type socket struct{ net.Conn }

func (s socket) LocalAddr() netip.Addr {
	if a, ok := s.Conn.LocalAddr().(*net.UDPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
