package firewalltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// Patience: what must work may take long on a busy machine, what must not is not waited for as long. A server also
// remembers whom it saw, so a packet that comes too late for the client to notice is noticed all the same.
const (
	longEnough  = 5 * time.Second
	shortEnough = 250 * time.Millisecond
)

// A ping is a number of eight bytes; the answer is the number and the server's tag. A ping with the highest bit set asks
// for a stream of answers without end.
const (
	pingSize   = 8
	pongSize   = pingSize + 1
	streamBit  = 1 << 63
	streamStep = 5 * time.Millisecond
)

var pings atomic.Uint64 // the last number used

// Server answers pings over TCP and UDP, and remembers from where they came.
type Server struct {
	tag  byte
	done chan struct{}
	mu   sync.Mutex
	seen map[netip.Addr]int // pings, and TCP connections
}

// Serve starts a server on both families; its answers carry the tag, so that a client knows who it reached.
func (h *Host) Serve(tb testing.TB, proto firewall.Proto, port uint16, tag byte) *Server {
	tb.Helper()
	return h.serve(tb, proto.String(), port, tag)
}

// serve is Serve for a network of package net: tcp, udp, udp4, udp6.
func (h *Host) serve(tb testing.TB, network string, port uint16, tag byte) *Server {
	tb.Helper()
	s := &Server{tag: tag, done: make(chan struct{}), seen: map[netip.Addr]int{}}
	tb.Cleanup(func() { close(s.done) })
	at := ":" + strconv.Itoa(int(port))
	if network == "tcp" {
		l, err := h.Listen(network, at)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = l.Close() })
		go s.accept(l)
		return s
	}
	c, err := h.ListenPacket(network, at)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	go s.receive(c)
	return s
}

// Seen returns how many connections and pings came from the address.
func (s *Server) Seen(from netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[from]
}

func (s *Server) note(from net.Addr) {
	at, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[at.Addr().Unmap().WithZone("")]++
}

func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.note(c.RemoteAddr())
		go s.talk(c)
	}
}

func (s *Server) talk(c net.Conn) {
	go func() { <-s.done; _ = c.Close() }()
	defer c.Close()
	b := make([]byte, pingSize)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		s.note(c.RemoteAddr())
		if binary.BigEndian.Uint64(b)&streamBit != 0 {
			s.stream(func(pong []byte) error { _, err := c.Write(pong); return err })
			return
		}
		if _, err := c.Write(s.pong(b)); err != nil {
			return
		}
	}
}

func (s *Server) receive(c net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < pingSize {
			continue
		}
		s.note(from)
		if binary.BigEndian.Uint64(b)&streamBit != 0 {
			go s.stream(func(pong []byte) error { _, _ = c.WriteTo(pong, from); return nil })
			continue
		}
		_, _ = c.WriteTo(s.pong(b[:pingSize]), from)
	}
}

func (s *Server) stream(send func([]byte) error) {
	for {
		select {
		case <-s.done:
			return
		case <-time.After(streamStep):
			if send(s.pong(make([]byte, pingSize))) != nil {
				return
			}
		}
	}
}

func (s *Server) pong(ping []byte) []byte { return append(append([]byte(nil), ping...), s.tag) }

// Call is a TCP connection to a Server, or a flow of UDP packets.
type Call struct {
	net.Conn
	udp bool
}

// errWho says that a ping was answered by somebody else than expected.
var errWho = errors.New("answered by the wrong host")

// Call connects to a server. From port 0 is any; a zero from is the host's choice.
func (h *Host) Call(from netip.AddrPort, proto firewall.Proto, to string, timeout time.Duration) (*Call, error) {
	c, err := h.DialFrom(from, proto.String(), to, timeout)
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // closing leaves nothing behind that would answer later
	}
	return &Call{Conn: c, udp: proto == firewall.UDP}, nil
}

// Ping waits for an answer from a server with the tag. UDP pings are repeated.
func (c *Call) Ping(tag byte, timeout time.Duration) error { return c.ping(tag, timeout, pingSize) }

func (c *Call) ping(tag byte, timeout time.Duration, size int) error {
	want := pings.Add(1)
	b := binary.BigEndian.AppendUint64(nil, want)
	b = append(b, make([]byte, size-pingSize)...)
	deadline := time.Now().Add(timeout)
	wait := timeout
	if c.udp {
		wait = 100 * time.Millisecond
	}
	for {
		if _, err := c.Write(b); err != nil {
			return err
		}
		got, err := c.await(want, earlier(deadline, time.Now().Add(wait)))
		if err == nil && got != tag {
			return fmt.Errorf("%w: %q instead of %q", errWho, got, tag)
		}
		var net net.Error
		if err == nil || !errors.As(err, &net) || !net.Timeout() || !time.Now().Before(deadline) {
			return err
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// await reads answers until the one to that number, and returns its tag.
func (c *Call) await(number uint64, deadline time.Time) (byte, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	b := make([]byte, pongSize)
	for {
		if _, err := io.ReadFull(c.Conn, b); err != nil {
			return 0, err
		}
		if binary.BigEndian.Uint64(b) == number {
			return b[pingSize], nil
		}
	}
}

// Stream asks the server to send answers without end, and waits for the first.
func (c *Call) Stream() error {
	if _, err := c.Write(binary.BigEndian.AppendUint64(nil, streamBit)); err != nil {
		return err
	}
	_, err := c.await(0, time.Now().Add(longEnough))
	return err
}

// Silent reports whether nothing comes for the time d, after what has come already was thrown away.
func (c *Call) Silent(d time.Duration) bool {
	b := make([]byte, 1<<16)
	for until := time.Now().Add(20 * time.Millisecond); time.Now().Before(until); {
		_ = c.SetReadDeadline(until)
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(d))
	n, _ := c.Read(b)
	return n == 0
}
