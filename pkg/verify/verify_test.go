package verify

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/device"
	"spad/pkg/flood"
	"spad/pkg/replay"
	"spad/pkg/wire"
)

const nowMS = 1_700_000_000_000

// router is a Verifier over a real journal and a real store, with the clock at nowMS.
type router struct {
	*Verifier
	secret  keys.RouterSecret
	sealer  *wire.Sealer
	store   *device.Store
	journal *breakable
}

// breakable is a journal whose disk can fail.
type breakable struct {
	*replay.Journal
	err error
}

func (b *breakable) Spend(k keys.DevicePublic, ms int64) (replay.Verdict, error) {
	if b.err != nil {
		return replay.Refused, b.err
	}
	return b.Journal.Spend(k, ms)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func seed(n byte) [32]byte { return [32]byte(bytes.Repeat([]byte{n}, 32)) }

var (
	laptop   = keys.NewDeviceSecret(seed(1))
	backend  = keys.NewDeviceSecret(seed(2))
	off      = keys.NewDeviceSecret(seed(3))
	old      = keys.NewDeviceSecret(seed(4))
	stranger = keys.NewDeviceSecret(seed(5))

	from  = netip.MustParseAddr("192.0.2.1")
	from6 = netip.MustParseAddr("2001:db8::1")
	own   = netip.MustParseAddr("192.0.2.254")
	other = netip.MustParseAddr("198.51.100.7")
)

func newRouter(t *testing.T, limits flood.Limits) *router {
	t.Helper()
	r := &router{secret: must(keys.NewRouterSecret(seed(9)))}
	r.sealer = wire.NewSealer(r.secret.Public())
	r.store = must(device.Open(t.TempDir(), func() int64 { return nowMS }))
	t.Cleanup(func() { r.store.Close() })
	r.journal = &breakable{Journal: must(replay.Open(replay.Options{
		Path: filepath.Join(t.TempDir(), "journal"), Window: time.Minute,
		System: func() time.Time { return time.UnixMilli(nowMS) }, Mono: func() time.Duration { return 0 },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}))}
	t.Cleanup(func() { r.journal.Close() })
	roster := must(device.NewRoster([]device.Device{
		{Name: "laptop", Key: laptop.Public()},
		{Name: "backend", Key: backend.Public(), Delegate: true},
		{Name: "off", Key: off.Public(), Disabled: true},
		{Name: "old", Key: old.Public(), Expires: time.UnixMilli(nowMS - 1)},
	}, nil))
	r.Verifier = New(Options{Secret: r.secret, Budget: flood.NewBudget(limits), Journal: r.journal, Tokens: r.store, Roster: roster})
	r.SetOwn([]netip.Addr{own})
	return r
}

// message is a knock of the laptop that passes, for the tests to spoil.
func message() wire.Message {
	return wire.Message{Op: wire.OpOpen, WantAnswer: true, Service: wire.ServiceIDOf("nas"), TimeMS: nowMS}
}

func (r *router) seal(m wire.Message, by keys.DeviceSecret) []byte {
	p, _, err := r.sealer.Seal(m, by, rand.Reader)
	if err != nil {
		panic(err)
	}
	return p[:]
}

func (r *router) check(p []byte, src netip.Addr) (Knock, *Rejection) {
	if reason := r.Admit(p, src, 0); reason != Accepted {
		return Knock{}, &Rejection{Reason: reason}
	}
	k, err := r.Verify(p, src, 0)
	var rejected *Rejection
	if errors.As(err, &rejected) {
		return Knock{}, rejected
	}
	return k, nil
}

func TestAccepted(t *testing.T) {
	for _, test := range []struct {
		name      string
		by        keys.DeviceSecret
		src       netip.Addr
		address   netip.Addr
		source    netip.Addr
		delegated bool
	}{
		{"IPv4", laptop, from, netip.Addr{}, from, false},
		{"IPv6", laptop, from6, netip.Addr{}, from6, false},
		{"its own address declared", laptop, from, from, from, false},
		{"another named by a delegate", backend, from, other, other, true},
		{"of another family", backend, from, from6, from6, true},
		{"its own named by a delegate", backend, from, from, from, false},
		{"a delegate without", backend, from, netip.Addr{}, from, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRouter(t, flood.DefaultLimits())
			m := message()
			m.Address = test.address
			k, rejected := r.check(r.seal(m, test.by), test.src)
			if rejected != nil {
				t.Fatal(rejected)
			}
			if k.Source != test.source || k.Delegated != test.delegated || k.Device.Key != test.by.Public() {
				t.Errorf("got %v, delegated %v, by %q", k.Source, k.Delegated, k.Device.Name)
			}
		})
	}
}

func TestRejected(t *testing.T) {
	spoil := func(i int) func([]byte) []byte {
		return func(p []byte) []byte { p[i] ^= 1; return p }
	}
	for _, test := range []struct {
		name   string
		change func(*wire.Message)
		by     keys.DeviceSecret
		spoil  func([]byte) []byte
		src    netip.Addr
		want   Reason
		status wire.Status // 0: silence
	}{
		{name: "short", spoil: func(p []byte) []byte { return p[:159] }, want: Length},
		{name: "gate", spoil: spoil(0), want: Gate},
		{name: "body", spoil: spoil(159), want: Gate},
		{name: "stranger's key", by: stranger, want: Device},
		{name: "disabled", by: off, want: Inactive},
		{name: "expired", by: old, want: Inactive},
		{name: "too early", change: func(m *wire.Message) { m.TimeMS += 60_001 }, want: ClockOff, status: wire.ClockOff},
		{name: "too late", change: func(m *wire.Message) { m.TimeMS -= 60_001 }, want: ClockOff, status: wire.ClockOff},
		{name: "another address", change: func(m *wire.Message) { m.Address = other }, want: Mismatch, status: wire.Mismatch},
		{name: "another family", change: func(m *wire.Message) { m.Address = from6 }, want: Mismatch, status: wire.Mismatch},
		{name: "delegate names multicast", by: backend, change: func(m *wire.Message) { m.Address = netip.MustParseAddr("224.0.0.1") }, want: BadAddress, status: wire.Mismatch},
		{name: "delegate names loopback", by: backend, change: func(m *wire.Message) { m.Address = netip.MustParseAddr("::1") }, want: BadAddress, status: wire.Mismatch},
		{name: "delegate names unspecified", by: backend, change: func(m *wire.Message) { m.Address = netip.IPv4Unspecified() }, want: BadAddress, status: wire.Mismatch},
		{name: "delegate names broadcast", by: backend, change: func(m *wire.Message) { m.Address = broadcast }, want: BadAddress, status: wire.Mismatch},
		{name: "delegate names the router", by: backend, change: func(m *wire.Message) { m.Address = own }, want: BadAddress, status: wire.Mismatch},
		{name: "from loopback", src: netip.MustParseAddr("127.0.0.1"), want: BadAddress, status: wire.Denied},
		{name: "from a link-local address", src: netip.MustParseAddr("fe80::1"), want: BadAddress, status: wire.Denied},
		{name: "from the router itself", src: own, want: BadAddress, status: wire.Denied},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRouter(t, flood.DefaultLimits())
			m := message()
			if test.change != nil {
				test.change(&m)
			}
			if test.by.IsZero() {
				test.by = laptop
			}
			if !test.src.IsValid() {
				test.src = from
			}
			p := r.seal(m, test.by)
			if test.spoil != nil {
				p = test.spoil(p)
			}
			_, got := r.check(p, test.src)
			if got == nil || got.Reason != test.want {
				t.Fatalf("got %v, want %q", got, test.want)
			}
			if got.Answer != (test.status != 0) || got.Status != test.status || got.Answer != (got.Packet != nil) {
				t.Errorf("answer %v, status %v, want %v", got.Answer, got.Status, test.status)
			}
		})
	}
}

// forge makes a packet with a gate of this router around whatever the box holds.
func (r *router) forge(t *testing.T, spoil func(*wire.Message)) []byte {
	t.Helper()
	elsewhere := must(keys.NewRouterSecret(seed(8)))
	sealer := wire.NewSealer(elsewhere.Public())
	m := message()
	spoil(&m)
	p, _, err := sealer.Seal(m, laptop, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return p[:]
}

func TestPacketForAnotherRouter(t *testing.T) {
	r := newRouter(t, flood.DefaultLimits())
	p := r.forge(t, func(*wire.Message) {})
	if _, got := r.check(p, from); got == nil || got.Reason != Gate {
		t.Errorf("at the gate: %v", got)
	}
	// Behind the gate, as if its key had leaked.
	_, err := r.Verify(p, from, 0)
	var got *Rejection
	if !errors.As(err, &got) || got.Reason != Box || got.Answer {
		t.Errorf("behind the gate: %v", err)
	}
	if got.Error() == "" || got.Unwrap() != nil {
		t.Errorf("error %q", got)
	}
}

// A time is spent whatever the later checks say, and a packet opens once.
func TestReplayed(t *testing.T) {
	r := newRouter(t, flood.DefaultLimits())
	m := message()
	m.Address = other
	p := r.seal(m, laptop)
	if _, got := r.check(p, from); got == nil || got.Reason != Mismatch {
		t.Fatalf("first: %v", got)
	}
	if _, got := r.check(p, other); got == nil || got.Reason != Repeated {
		t.Errorf("the same packet, sent on by the address it names: %v", got)
	}
	if _, err := r.Verify(p, other, 0); err.(*Rejection).Reason != Replayed || err.(*Rejection).Answer {
		t.Errorf("behind the table of gates: %v", err)
	}
	if _, got := r.check(r.seal(m, laptop), other); got == nil || got.Reason != Replayed {
		t.Errorf("a new packet of the same time: %v", got)
	}
}

func TestJournalFails(t *testing.T) {
	r := newRouter(t, flood.DefaultLimits())
	r.journal.err = errors.New("no space left on device")
	_, got := r.check(r.seal(message(), laptop), from)
	if got == nil || got.Reason != JournalFailed || got.Status != wire.Failed || !got.Answer || !errors.Is(got, r.journal.err) {
		t.Fatalf("got %+v", got)
	}
	if text := got.Error(); !strings.Contains(text, r.journal.err.Error()) {
		t.Errorf("the error keeps the cause to itself: %q", text)
	}
}

// Someone else's signature over the same message: the device id alone is worth nothing.
func TestSignature(t *testing.T) {
	r := newRouter(t, flood.DefaultLimits())
	p := r.seal(message(), laptop)
	roster := must(device.NewRoster([]device.Device{{Name: "other", Key: stranger.Public()}}, nil))
	r.SetRoster(roster)
	if _, got := r.check(p, from); got == nil || got.Reason != Device {
		t.Errorf("a removed device: %v", got)
	}
	token := must(r.store.Invite("tablet", []string{"nas"}, nowMS+1000))
	wrong := token
	wrong.Secret[0] ^= 1
	for _, test := range []struct {
		name  string
		token keys.Token
		want  Reason
	}{
		{"wrong secret", wrong, Signature},
		{"unknown token", keys.Token{ID: keys.TokenID{1}}, Token},
		{"good", token, Accepted},
	} {
		sealed, _, err := r.sealer.SealEnroll(stranger, test.token, true, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k, got := r.check(sealed[:], from)
		if test.want == Accepted {
			if got != nil || k.Device.Key != stranger.Public() {
				t.Errorf("%s: %v", test.name, got)
			}
		} else if got == nil || got.Reason != test.want || got.Answer {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// Packets seen lately cost no budget; those over it are dropped.
func TestBudget(t *testing.T) {
	limits := flood.DefaultLimits()
	limits.Source = flood.Rate{PerSecond: 1, Burst: 2}
	r := newRouter(t, limits)
	first := r.seal(message(), laptop)
	for i, want := range []Reason{Accepted, Repeated, Repeated} {
		if got := r.Admit(first, from, 0); got != want {
			t.Errorf("packet %d: %q, want %q", i, got, want)
		}
	}
	for i, want := range []Reason{Accepted, Budget} {
		if got := r.Admit(r.seal(message(), laptop), from, 0); got != want {
			t.Errorf("new packet %d: %q, want %q", i, got, want)
		}
	}
}

func TestUsableLoopbackInTests(t *testing.T) {
	r := newRouter(t, flood.DefaultLimits())
	r.loopback.Store(true)
	if !r.Usable(netip.MustParseAddr("127.0.0.1")) || r.Usable(netip.Addr{}) {
		t.Error("test_loopback")
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	r := newRouter(t, flood.DefaultLimits())
	junk := make([]byte, wire.PacketSize)
	if n := testing.AllocsPerRun(100, func() { r.Admit(junk, from, 0) }); n != 0 {
		t.Errorf("%v allocations for junk", n)
	}
}
