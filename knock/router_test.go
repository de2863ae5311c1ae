package main

import (
	"crypto/rand"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// testRouter answers packets on loopback, in both families if there is IPv6.
type testRouter struct {
	secret keys.RouterSecret
	opener *wire.Opener
	port   uint16
	conns  []net.PacketConn
	door   net.Listener // the TCP port that it says is open

	mu      sync.Mutex
	tokens  map[keys.TokenID]keys.TokenSecret
	devices map[wire.DeviceID]keys.DevicePublic
	status  wire.Status // to knocks; noReply is silence
	answer  wire.Answer // what goes with opened
	seen    []wire.Message
	changed chan struct{} // closed and made anew with each packet
}

const noReply wire.Status = 255

func newTestRouter() (*testRouter, error) {
	secret, err := keys.GenerateRouter(rand.Reader)
	if err != nil {
		return nil, err
	}
	r := &testRouter{
		secret: secret, opener: wire.NewOpener(secret), changed: make(chan struct{}),
		tokens: make(map[keys.TokenID]keys.TokenSecret), devices: make(map[wire.DeviceID]keys.DevicePublic),
	}
	if r.door, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	r.answer = wire.Answer{TTL: 900, Port: r.door.Addr().(*net.TCPAddr).AddrPort().Port()}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.port = c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	r.conns = append(r.conns, c)
	if c, err := net.ListenPacket("udp", net.JoinHostPort("::1", strconv.Itoa(int(r.port)))); err == nil {
		r.conns = append(r.conns, c)
	}
	for _, c := range r.conns {
		go r.serve(c)
	}
	return r, nil
}

func (r *testRouter) close() {
	for _, c := range r.conns {
		_ = c.Close()
	}
	_ = r.door.Close()
}

func (r *testRouter) serve(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := r.handle(buf[:n], from.(*net.UDPAddr).AddrPort().Addr().Unmap()); answer != nil {
			_, _ = c.WriteTo(answer, from)
		}
	}
}

func (r *testRouter) handle(p []byte, from netip.Addr) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opener.Gate(p) != nil {
		return nil
	}
	o, err := r.opener.Open(p)
	if err != nil || !r.signed(o) {
		return nil
	}
	r.seen = append(r.seen, o.Message)
	close(r.changed)
	r.changed = make(chan struct{})
	a := r.judge(o.Message)
	if a.Status == noReply || !o.Message.WantAnswer {
		return nil
	}
	a.RouterMS, a.Seen = time.Now().UnixMilli(), from
	out, err := o.Answer(a, rand.Reader)
	if err != nil {
		return nil
	}
	return out[:]
}

func (r *testRouter) signed(o *wire.Packet) bool {
	m := o.Message
	if m.Op != wire.OpEnroll {
		return o.SignedBy(r.devices[m.Device])
	}
	secret, ok := r.tokens[m.Token]
	if !ok || !o.SignedWith(secret) {
		return false
	}
	r.devices[wire.DeviceIDOf(m.Key)] = m.Key
	return true
}

func (r *testRouter) judge(m wire.Message) wire.Answer {
	status := r.status
	switch {
	case m.Op == wire.OpHello && status != noReply:
		return wire.Answer{Status: wire.Hello}
	case status != wire.Opened:
		return wire.Answer{Status: status}
	case m.Op == wire.OpClose:
		return wire.Answer{Status: wire.Closed}
	case m.Op == wire.OpEnroll:
		return wire.Answer{Status: wire.Enrolled}
	}
	a := r.answer
	if m.TTL != 0 {
		a.TTL = m.TTL
	}
	return a
}

// invite makes an invite for a device, naming the host.
func (r *testRouter) invite(host string, expires time.Time, services []string) (string, error) {
	token, err := keys.NewToken(rand.Reader)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens[token.ID] = token.Secret
	return keys.Invite{
		Router: r.secret.Public(), Token: token, ExpiresMS: expires.UnixMilli(), Device: "laptop", Services: services,
		Addr: net.JoinHostPort(host, strconv.Itoa(int(r.port))),
	}.Text()
}

// knocks counts the packets of an op.
func (r *testRouter) knocks(op wire.Op) (n int, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.seen {
		if m.Op == op {
			n++
		}
	}
	return n, r.changed
}

func TestTestRouterIsSilentToStrangers(t *testing.T) {
	r, err := newTestRouter()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	stranger, err := keys.GenerateDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := wire.NewSealer(r.secret.Public()).Seal(wire.Message{TimeMS: 1, WantAnswer: true}, stranger, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if r.handle(p[:], netip.MustParseAddr("127.0.0.1")) != nil || r.handle(p[1:], netip.Addr{}) != nil {
		t.Error("the scripts would prove nothing: any packet is answered")
	}
}
