package control

import (
	"net"
	"net/netip"
	"sync"
)

// maxPerSource is how many connections one address may have at a time: a stranger, whom a handshake's timeout gets rid of,
// must not take every place meanwhile.
const maxPerSource = maxConns / 4

// fair is a listener that closes a connection at once if its source has enough. Its table has no more entries than there
// are connections.
type fair struct {
	net.Listener
	mu   sync.Mutex
	open map[netip.Addr]int
}

func newFair(l net.Listener) *fair { return &fair{Listener: l, open: map[netip.Addr]int{}} }

// Accept implements net.Listener.
func (f *fair) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		at, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok {
			return c, nil
		}
		from := source(at.AddrPort().Addr())
		if f.take(from) {
			return &fairConn{Conn: c, done: sync.OnceFunc(func() { f.give(from) })}, nil
		}
		c.Close()
	}
}

// source is what one stranger has without effort: an IPv4 address, or a /64.
func source(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // fails for a wrong length only
		return p.Addr()
	}
	return a
}

func (f *fair) take(from netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[from] >= maxPerSource {
		return false
	}
	f.open[from]++
	return true
}

func (f *fair) give(from netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[from]--; f.open[from] == 0 {
		delete(f.open, from)
	}
}

type fairConn struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *fairConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
