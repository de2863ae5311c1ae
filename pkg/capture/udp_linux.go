package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// UDP receives on one port, for IPv4 and IPv6, each by a socket of its own. It is safe for concurrent use.
type UDP struct {
	socks []*socket
	port  uint16
}

var _ Source = (*UDP)(nil)

// portTries is how often another port is picked if the one the kernel chose for IPv4 is taken for IPv6.
const portTries = 16

// opener makes one socket; tests have others.
type opener func(at netip.AddrPort, size int) (*socket, error)

// ListenUDP opens addr, as in ":41372" (both families), "192.0.2.1:41372" or "[2001:db8::1]:41372" (that one address),
// for datagrams of exactly size bytes. Port 0 picks one that is free for every family. If this kernel has no IPv6, ":PORT" is IPv4 alone
// and log (slog.Default() if nil) has a line about it.
func ListenUDP(addr string, size int, log *slog.Logger) (*UDP, error) {
	if log == nil {
		log = slog.Default()
	}
	at, err := addresses(addr)
	if err != nil {
		return nil, err
	}
	for range portTries {
		var u *UDP
		if u, err = listenAll(at, size, log, openSocket); err == nil {
			return u, nil
		}
		if at[0].Port() != 0 || !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return nil, explain(err, at[0].Port())
}

// addresses returns what to bind for addr: one address, or the unspecified ones of both families.
func addresses(addr string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: want \":PORT\" or \"ADDRESS:PORT\"", addr)
	}
	everywhere := host == ""
	if everywhere {
		host = "0.0.0.0"
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("listen address %q: want \":PORT\" or \"ADDRESS:PORT\", with numbers only", addr)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if at.Addr().IsMulticast() {
		return nil, fmt.Errorf("listen address %q: a multicast address is nobody's own", addr)
	}
	if everywhere {
		return []netip.AddrPort{at, netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())}, nil
	}
	return []netip.AddrPort{at}, nil
}

// listenAll opens one socket per address, all on the first one's port.
func listenAll(at []netip.AddrPort, size int, log *slog.Logger, open opener) (*UDP, error) {
	u := &UDP{port: at[0].Port()}
	for i, a := range at {
		s, err := open(netip.AddrPortFrom(a.Addr(), u.port), size)
		if i > 0 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			log.Warn("no ipv6 in this kernel, listening on ipv4 alone", "port", u.port)
			continue
		}
		if err != nil {
			u.Close()
			return nil, err
		}
		u.socks = append(u.socks, s)
		u.port = s.port()
	}
	return u, nil
}

// explain adds what to do about it.
func explain(err error, port uint16) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("udp port %d is taken, perhaps by another spad: find it with: ss -ulpn sport = %d; or change listen in spad.toml: %w", port, port, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("udp port %d needs the capability CAP_NET_BIND_SERVICE, ports from 1024 do not: %w", port, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("no interface has the listen address (yet): %w", err)
	}
	return fmt.Errorf("opening the udp socket: %w", err)
}

// Port returns the port it receives on.
func (u *UDP) Port() uint16 { return u.port }

// Run reads until ctx ends, one goroutine per family, and then returns nil; the sockets stay open for replies until
// Close. An error of one socket that does not pass by itself ends both. Only one Run at a time.
func (u *UDP) Run(ctx context.Context, handle func(Datagram)) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range u.socks {
		g.Go(func() error { return s.run(ctx, handle) })
	}
	return g.Wait()
}

// Reply sends p from the address and port that d was sent to. Which interface it leaves by is for the machine's routes
// to say, link-local addresses excepted. A full send queue is an error, not a wait.
func (u *UDP) Reply(d Datagram, p []byte) error {
	for _, s := range u.socks {
		if s.v4 == d.From.Addr().Is4() {
			return s.reply(d, p)
		}
	}
	return fmt.Errorf("no socket for the family of %s", d.From.Addr())
}

// Dropped returns how many datagrams the kernel threw away since ListenUDP: those of a wrong length or checksum, and
// those that found the queue full. Each socket's count starts again after 2^32.
func (u *UDP) Dropped() uint64 {
	var n uint64
	for _, s := range u.socks {
		n += uint64(s.dropped())
	}
	return n
}

// Ignored returns how many packets of the right length were not handed on because they were sent to a broadcast or
// multicast address, or came from a mapped one.
func (u *UDP) Ignored() uint64 {
	var n uint64
	for _, s := range u.socks {
		n += s.ignored.Load()
	}
	return n
}

// Close closes the sockets; a Run under way ends with net.ErrClosed.
func (u *UDP) Close() error {
	var errs []error
	for _, s := range u.socks {
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(errs...)
}
