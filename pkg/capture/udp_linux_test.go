package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const testSize = 160

// patience is how long a test waits for what must come; nothing is measured by it.
const patience = 10 * time.Second

func listen(t testing.TB, addr string) *UDP {
	t.Helper()
	u, err := ListenUDP(addr, testSize, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

func needIPv6(t testing.TB) {
	t.Helper()
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skipf("no ipv6 here: %v", err)
	}
	c.Close()
}

// received is a datagram that outlives handle.
type received struct {
	Datagram
	payload string
}

// start runs u until the test ends and returns what it receives.
func start(t testing.TB, u *UDP) <-chan received {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan received, 64), make(chan error, 1)
	go func() {
		done <- u.Run(ctx, func(d Datagram) { got <- received{d, string(d.Payload)} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return got
}

func next(t testing.TB, got <-chan received) received {
	t.Helper()
	select {
	case r := <-got:
		return r
	case <-time.After(patience):
		t.Fatal("no packet came")
		panic("unreachable")
	}
}

func dial(t testing.TB, to string) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func send(t testing.TB, c net.Conn, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
}

func packet(fill byte) []byte { return bytes.Repeat([]byte{fill}, testSize) }

func TestReceiveAndReply(t *testing.T) {
	// A connected client takes an answer only from the address and port it sent to.
	for _, to := range []string{"127.0.0.1", "127.0.0.2", "127.77.3.1", "::1"} {
		t.Run(to, func(t *testing.T) {
			if strings.Contains(to, ":") {
				needIPv6(t)
			}
			u := listen(t, ":0")
			got := start(t, u)
			c := dial(t, net.JoinHostPort(to, fmt.Sprint(u.Port())))
			send(t, c, packet('a'))
			r := next(t, got)
			if r.payload != string(packet('a')) {
				t.Errorf("payload %q", r.payload)
			}
			if want := c.LocalAddr().(*net.UDPAddr).AddrPort(); r.From != want {
				t.Errorf("from %v, want %v", r.From, want)
			}
			if want := netip.MustParseAddr(to); r.Local != want {
				t.Errorf("local %v, want %v", r.Local, want)
			}
			if err := u.Reply(r.Datagram, []byte("answer")); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(patience))
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) != "answer" {
				t.Errorf("answer %q, %v", buf[:n], err)
			}
		})
	}
}

func TestOtherLengthsNeverArrive(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	got := start(t, u)
	c := dial(t, fmt.Sprintf("127.0.0.1:%d", u.Port()))
	lengths := []int{0, 1, 7, 96, testSize - 8, testSize - 1, testSize + 1, testSize + 8, 1232, 9000, 65507}
	for _, n := range lengths {
		send(t, c, make([]byte, n))
	}
	send(t, c, packet('z'))
	if r := next(t, got); r.payload != string(packet('z')) {
		t.Errorf("first to arrive has %d bytes", len(r.payload))
	}
	// The queue never held one: the kernel's own count has them all.
	if n := u.Dropped(); n != uint64(len(lengths)) {
		t.Errorf("dropped %d, want %d", n, len(lengths))
	}
}

func TestMany(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	got := start(t, u)
	c := dial(t, fmt.Sprintf("127.0.0.1:%d", u.Port()))
	for i := range 40 * batch { // several batches, each packet with its own content
		send(t, c, packet(byte(i)))
		if i%batch == batch-1 {
			for j := i - batch + 1; j <= i; j++ {
				if r := next(t, got); r.payload != string(packet(byte(j))) {
					t.Fatalf("packet %d has %q", j, r.payload[:1])
				}
			}
		}
	}
}

func TestListenAddress(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("0.0.0.0:7"), netip.MustParseAddrPort("[::]:7")
	for _, tt := range []struct {
		name, addr string
		want       []netip.AddrPort
	}{
		{"everywhere", ":7", []netip.AddrPort{v4, v6}},
		{"everywhere, brackets", "[]:7", []netip.AddrPort{v4, v6}},
		{"all of ipv4", "0.0.0.0:7", []netip.AddrPort{v4}},
		{"all of ipv6", "[::]:7", []netip.AddrPort{v6}},
		{"one ipv4", "192.0.2.1:7", []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7")}},
		{"mapped", "[::ffff:192.0.2.1]:7", []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7")}},
		{"zone", "[fe80::1%eth0]:7", []netip.AddrPort{netip.MustParseAddrPort("[fe80::1%eth0]:7")}},
		{"empty", "", nil},
		{"no port", "192.0.2.1", nil},
		{"name", "localhost:7", nil},
		{"port name", ":ssh", nil},
		{"port too big", ":65536", nil},
		{"port below zero", ":-1", nil},
		{"multicast", "224.0.0.1:7", nil},
		{"multicast ipv6", "[ff02::1]:7", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := addresses(tt.addr)
			if (err == nil) != (tt.want != nil) {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestListenRefused(t *testing.T) {
	u := listen(t, ":0")
	busy := fmt.Sprintf(":%d", u.Port())
	for _, tt := range []struct {
		name, addr, says string
		is               error
	}{
		{"in use", busy, fmt.Sprintf("udp port %d is taken", u.Port()), unix.EADDRINUSE},
		{"in use, one address", "127.0.0.1" + busy, "change listen in spad.toml", unix.EADDRINUSE},
		{"not ours", "192.0.2.77:0", "no interface has the listen address", unix.EADDRNOTAVAIL},
		{"garbage", "x", "ADDRESS:PORT", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := ListenUDP(tt.addr, testSize, nil)
			if err == nil {
				u.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.says) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %q", err)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	err := explain(fmt.Errorf("bind: %w", unix.EACCES), 53)
	if !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") || !errors.Is(err, unix.EACCES) {
		t.Errorf("%v", err)
	}
	if err := explain(unix.EINVAL, 53); !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v", err)
	}
}

func TestNoIPv6InTheKernel(t *testing.T) {
	for _, missing := range []error{unix.EAFNOSUPPORT, unix.EADDRNOTAVAIL} {
		t.Run(missing.Error(), func(t *testing.T) {
			open := func(at netip.AddrPort, size int) (*socket, error) {
				if at.Addr().Is6() {
					return nil, missing
				}
				return openSocket(at, size)
			}
			at, err := addresses(":0")
			if err != nil {
				t.Fatal(err)
			}
			var lines bytes.Buffer
			u, err := listenAll(at, testSize, slog.New(slog.NewTextHandler(&lines, nil)), open)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { u.Close() })
			if n := strings.Count(lines.String(), "\n"); n != 1 || !strings.Contains(lines.String(), "no ipv6") {
				t.Errorf("log %q", lines.String())
			}
			got := start(t, u)
			send(t, dial(t, fmt.Sprintf("127.0.0.1:%d", u.Port())), packet('4'))
			r := next(t, got)
			r.From = netip.MustParseAddrPort("[2001:db8::1]:5")
			if u.Reply(r.Datagram, nil) == nil {
				t.Error("reply to ipv6 without a socket for it")
			}
		})
	}
}

func TestFailedFamilyClosesTheOther(t *testing.T) {
	var first *socket
	at, _ := addresses(":0")
	_, err := listenAll(at, testSize, slog.New(slog.DiscardHandler), func(at netip.AddrPort, size int) (s *socket, err error) {
		if at.Addr().Is6() {
			return nil, unix.EPERM
		}
		first, err = openSocket(at, size)
		return first, err
	})
	if !errors.Is(err, unix.EPERM) {
		t.Fatalf("error %v", err)
	}
	if err := first.conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the ipv4 socket was left open: %v", err)
	}
}

func TestRunEndsAndStartsAgain(t *testing.T) {
	u := listen(t, ":0")
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		got, done := make(chan string, 1), make(chan error, 1)
		go func() { done <- u.Run(ctx, func(d Datagram) { got <- string(d.Payload) }) }()
		send(t, dial(t, fmt.Sprintf("127.0.0.1:%d", u.Port())), packet('r'))
		<-got
		cancel()
		if err := <-done; err != nil {
			t.Fatalf("Run: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.Run(ctx, nil); err != nil {
		t.Errorf("Run with an ended context: %v", err)
	}
}

func TestCloseEndsRun(t *testing.T) {
	u := listen(t, ":0")
	done := make(chan error, 1)
	go func() { done <- u.Run(t.Context(), func(Datagram) {}) }()
	u.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

func TestUnreachablePeerHarmsNobody(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	got := start(t, u)
	to := fmt.Sprintf("127.0.0.1:%d", u.Port())
	gone := dial(t, to)
	send(t, gone, packet('g'))
	r := next(t, got)
	gone.Close()
	for range 3 { // each comes back as an ICMP error
		if err := u.Reply(r.Datagram, []byte("x")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	send(t, dial(t, to), packet('h'))
	if r := next(t, got); r.payload != string(packet('h')) {
		t.Errorf("got %q", r.payload[:1])
	}
}

func TestPasses(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{unix.EINTR, true},
		{unix.EAGAIN, true},
		{unix.ENOBUFS, true},
		{unix.ENOMEM, true},
		{unix.ECONNREFUSED, true},
		{unix.ENETDOWN, true},
		{&net.OpError{Op: "read", Err: unix.EHOSTUNREACH}, true},
		{unix.EBADF, false},
		{unix.EINVAL, false},
		{unix.ENOTSOCK, false},
		{net.ErrClosed, false},
	} {
		if got := passes(tt.err); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}

func TestLastingErrorEndsRun(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	s := u.socks[0]
	r := newReader(s)
	r.recv = func(uintptr) bool { r.err = unix.EBADF; return true }
	if err := s.loop(t.Context(), r, nil); !errors.Is(err, unix.EBADF) {
		t.Errorf("error %v", err)
	}
}

func TestPassingErrorsDoNotEndRun(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	s := u.socks[0]
	errs := []syscall.Errno{unix.ENOBUFS, unix.EINTR, unix.ECONNREFUSED}
	r := newReader(s)
	receive := r.recv
	r.recv = func(fd uintptr) bool {
		if len(errs) > 0 {
			r.got, r.err, errs = 0, errs[0], errs[1:]
			return true
		}
		return receive(fd)
	}
	send(t, dial(t, fmt.Sprintf("127.0.0.1:%d", u.Port())), packet('p'))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	handled := 0
	if err := s.loop(ctx, r, func(Datagram) { handled++; cancel() }); err != nil || handled != 1 {
		t.Errorf("error %v, handled %d", err, handled)
	}
}

func TestReplyTo(t *testing.T) {
	u := listen(t, "127.0.0.1:0")
	for _, tt := range []struct {
		name string
		d    Datagram
		want bool
	}{
		{"nobody", Datagram{}, false},
		{"port zero", Datagram{From: netip.MustParseAddrPort("127.0.0.1:0"), Local: netip.MustParseAddr("127.0.0.1")}, false},
		{"from an address that is not ours", Datagram{From: netip.MustParseAddrPort("127.0.0.1:9"), Local: netip.MustParseAddr("192.0.2.9")}, false},
		{"source left to the kernel", Datagram{From: u.socks[0].conn.LocalAddr().(*net.UDPAddr).AddrPort()}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := u.Reply(tt.d, []byte("x")); (err == nil) != tt.want {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestNoAllocations(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			if addr[0] == '[' {
				needIPv6(t)
			}
			u := listen(t, addr)
			c := dial(t, u.socks[0].conn.LocalAddr().String())
			r, p, handled := newReader(u.socks[0]), packet('n'), 0
			handle := func(d Datagram) { handled += len(d.Payload) }
			per := testing.AllocsPerRun(100, func() {
				c.Write(p)
				if err := r.read(handle); err != nil {
					t.Fatal(err)
				}
			})
			if per != 0 || handled != 101*testSize {
				t.Errorf("%v allocations per packet, %d bytes handled", per, handled)
			}
		})
	}
}

// BenchmarkRead measures what a right-sized packet costs the reader while many wait.
func BenchmarkRead(b *testing.B) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		b.Run(addr, func(b *testing.B) {
			u := listen(b, addr)
			c := dial(b, u.socks[0].conn.LocalAddr().String())
			r, p, handled := newReader(u.socks[0]), packet('b'), 0
			b.ReportAllocs()
			for handled < b.N {
				b.StopTimer()
				for range 512 {
					send(b, c, p)
				}
				b.StartTimer()
				for due := handled + 512; handled < due; {
					if err := r.read(func(Datagram) { handled++ }); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
