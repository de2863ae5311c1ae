package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// fakeSystem is a machine whose clock is off by skew.
type fakeSystem struct {
	mu     sync.Mutex
	skew   time.Duration
	unsync bool
	boot   string
}

func (s *fakeSystem) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.skew)
}
func (s *fakeSystem) Synchronised() bool { return !s.unsync }
func (s *fakeSystem) BootID() string     { return s.boot }

// fakeRouter understands packets as a router does, with the replay window of
// PROTOCOL.md, and answers what decide says. It is reached in both families.
type fakeRouter struct {
	t      *testing.T
	secret keys.RouterSecret
	opener *wire.Opener
	device keys.DevicePublic
	token  keys.Token
	now    func() int64

	mu      sync.Mutex
	log     []arrival
	spent   map[int64]bool
	decide  func(n int, m wire.Message) wire.Answer // n counts packets from 1
	refused int                                     // bad or spent packets, answered with silence
}

type arrival struct {
	wire.Message
	to netip.AddrPort
	at time.Time
}

const window = 60_000

func newFakeRouter(t *testing.T) *fakeRouter {
	secret, err := keys.GenerateRouter(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeRouter{
		t: t, secret: secret, opener: wire.NewOpener(secret), spent: make(map[int64]bool),
		now:    func() int64 { return time.Now().UnixMilli() },
		decide: func(_ int, m wire.Message) wire.Answer { return grant(m) },
	}
}

// grant is the answer that a friendly router gives.
func grant(m wire.Message) wire.Answer {
	switch m.Op {
	case wire.OpOpen:
		ttl := m.TTL
		if ttl == 0 {
			ttl = 900
		}
		return wire.Answer{Status: wire.Opened, TTL: ttl, Port: 7890}
	case wire.OpClose:
		return wire.Answer{Status: wire.Closed}
	case wire.OpEnroll:
		return wire.Answer{Status: wire.Enrolled}
	}
	return wire.Answer{Status: wire.Hello}
}

// noReply is a status that stands for silence.
const noReply wire.Status = 255

func (r *fakeRouter) handle(p []byte, from netip.Addr, to netip.AddrPort) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.opener.Gate(p); err != nil {
		r.refused++
		return nil
	}
	o, err := r.opener.Open(p)
	if err != nil {
		r.refused++
		return nil
	}
	m := o.Message
	if m.Op == wire.OpEnroll && (m.Token != r.token.ID || !o.SignedWith(r.token.Secret)) || m.Op != wire.OpEnroll && !o.SignedBy(r.device) {
		r.refused++
		return nil
	}
	r.log = append(r.log, arrival{m, to, time.Now()})
	a, ok := r.judge(m)
	if !ok || !m.WantAnswer {
		return nil
	}
	a.RouterMS, a.Seen = r.now(), from
	out, err := o.Answer(a, rand.Reader)
	if err != nil {
		r.t.Errorf("answering: %v", err)
	}
	return out[:]
}

func (r *fakeRouter) judge(m wire.Message) (wire.Answer, bool) {
	if m.Op != wire.OpEnroll {
		if r.spent[m.TimeMS] {
			r.refused++
			return wire.Answer{}, false
		}
		r.spent[m.TimeMS] = true
		if d := m.TimeMS - r.now(); d > window || d < -window {
			return wire.Answer{Status: wire.ClockOff}, true
		}
	}
	a := r.decide(len(r.log), m)
	return a, a.Status != noReply
}

func (r *fakeRouter) arrivals() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

func (r *fakeRouter) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

func (r *fakeRouter) ops() (ops []wire.Op) {
	for _, a := range r.arrivals() {
		ops = append(ops, a.Op)
	}
	return ops
}

// fakeNetwork connects addresses to what is there, in memory.
type fakeNetwork struct {
	mu      sync.Mutex
	names   map[string][]netip.Addr
	lookups []string
	// slow delays look-ups of the router in a family; hung ones end with their context.
	slow  map[Family]time.Duration
	late  map[string]time.Duration // likewise for a name
	local map[Family]netip.Addr
	// paths says what is at an address; nothing there is a black hole.
	paths map[netip.Addr]*path
}

// path leads to a router.
type path struct {
	router *fakeRouter
	rtt    time.Duration
	noDial error
	// write and read may put errors in the way: write's is returned instead of sending.
	write func(n int) error
	// spoil returns what else arrives with an answer, before it.
	spoil func(answer []byte) []event
	n     int
	mu    sync.Mutex
}

type event struct {
	data []byte
	err  error
}

var (
	home4 = netip.MustParseAddr("198.51.100.1")
	home6 = netip.MustParseAddr("2001:db8::1")
	here4 = netip.MustParseAddr("203.0.113.7")
	here6 = netip.MustParseAddr("2001:db8:7::7")
)

const rtt = 20 * time.Millisecond

// newWorld returns a network with home.example.net in both families.
func newWorld(r *fakeRouter) *fakeNetwork {
	return &fakeNetwork{
		names: map[string][]netip.Addr{"home.example.net": {home4, home6}},
		slow:  map[Family]time.Duration{},
		local: map[Family]netip.Addr{IPv4: here4, IPv6: here6},
		paths: map[netip.Addr]*path{home4: {router: r, rtt: rtt}, home6: {router: r, rtt: rtt}},
	}
}

func (n *fakeNetwork) Lookup(ctx context.Context, f Family, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	n.lookups = append(n.lookups, f.String()+" "+host)
	ips, slow := n.names[host], n.late[host]
	if host != "ipv4only.arpa." {
		slow += n.slow[f]
	}
	n.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(slow):
	}
	ips = slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool { return familyOf(ip) != f })
	if len(ips) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return ips, nil
}

func (n *fakeNetwork) Dial(_ context.Context, to netip.AddrPort) (Conn, error) {
	p := n.paths[to.Addr()]
	if p == nil {
		p = &path{}
	}
	if p.noDial != nil {
		return nil, p.noDial
	}
	return &fakeConn{path: p, to: to, local: n.local[familyOf(to.Addr())], in: make(chan event, 64), done: make(chan struct{})}, nil
}

type fakeConn struct {
	*path
	to    netip.AddrPort
	local netip.Addr
	in    chan event
	done  chan struct{}
}

func (c *fakeConn) LocalAddr() netip.Addr { return c.local }
func (c *fakeConn) Close() error          { close(c.done); return nil }

func (c *fakeConn) Read(p []byte) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	case e := <-c.in:
		return copy(p, e.data), e.err
	}
}

func (c *fakeConn) Write(p []byte) (int, error) {
	c.path.mu.Lock()
	c.n++
	n := c.n
	c.path.mu.Unlock()
	if c.write != nil {
		if err := c.write(n); err != nil {
			return 0, err
		}
	}
	if c.router == nil {
		return len(p), nil
	}
	p = bytes.Clone(p)
	time.AfterFunc(c.rtt/2, func() {
		answer := c.router.handle(p, c.local, c.to)
		time.AfterFunc(c.rtt/2, func() { c.deliver(answer) })
	})
	return len(p), nil
}

func (c *fakeConn) deliver(answer []byte) {
	if c.spoil != nil {
		for _, e := range c.spoil(answer) {
			c.in <- e
		}
	}
	if answer != nil {
		c.in <- event{data: answer}
	}
}

var errRefused = errors.New("connection refused")

// scene is a client and the router it is enrolled at.
type scene struct {
	*Client
	router *fakeRouter
	system *fakeSystem
	world  *fakeNetwork
}

func newScene(t *testing.T) *scene {
	r := newFakeRouter(t)
	s := &scene{router: r, system: &fakeSystem{boot: "first"}, world: newWorld(r)}
	c, err := New(Options{Dir: t.TempDir() + "/knock", System: s.system, Network: s.world})
	if err != nil {
		t.Fatal(err)
	}
	s.Client = c
	k, _, err := c.Device()
	if err != nil {
		t.Fatal(err)
	}
	r.device = k.Public()
	return s
}

// home is the router as the configuration has it.
func (s *scene) home() Router {
	return Router{Name: "home", Addr: "home.example.net:41372", Key: s.router.secret.Public(), Services: []string{"nas"}}
}

// open knocks for services and returns the outcomes and how long it took.
func (s *scene) open(t *testing.T, edit func(*Request), services ...string) ([]Outcome, time.Duration) {
	t.Helper()
	r := Request{Router: s.home(), Services: services}
	if edit != nil {
		edit(&r)
	}
	start := time.Now()
	out, err := s.Knock(context.Background(), r)
	if err != nil {
		t.Fatalf("Knock: %v", err)
	}
	return out, time.Since(start)
}

// silent takes the routers off the given addresses.
func (s *scene) silent(addrs ...netip.Addr) {
	for _, a := range addrs {
		s.world.paths[a] = &path{}
	}
}
