package wire

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spad/keys"
)

// testRand is a stream of random bytes that is the same in every run.
func testRand(seed byte) *rand.ChaCha8 { return rand.NewChaCha8(testBytes(seed)) }

func goodMessage() Message {
	return Message{
		Op: OpOpen, WantAnswer: true, TTL: 900, Service: ServiceIDOf("nas"), TimeMS: 1700000000123, Address: netip.MustParseAddr("203.0.113.7"),
	}
}

// goodPacket is the same packet every time.
func goodPacket(tb testing.TB) []byte {
	tb.Helper()
	p, _, err := NewSealer(testRouter().Public()).Seal(goodMessage(), testDevice(), testRand(1))
	if err != nil {
		tb.Fatal(err)
	}
	return p[:]
}

// verified opens a packet and checks its signature, as a router does.
func verified(o *Opener, p []byte, k keys.DevicePublic) error {
	if err := o.Gate(p); err != nil {
		return err
	}
	opened, err := o.Open(p)
	if err != nil {
		return err
	}
	if !opened.SignedBy(k) {
		return errSignature
	}
	return nil
}

var errSignature = errors.New("signature")

func TestAllocations(t *testing.T) {
	o, p, k := NewOpener(testRouter()), goodPacket(t), testDevice().Public()
	junk := append([]byte(nil), p...)
	junk[100] ^= 1
	for name, c := range map[string]struct {
		max float64
		f   func() error
	}{
		"gate, good": {0, func() error { return o.Gate(p) }},
		"gate, junk": {0, func() error {
			if o.Gate(junk) != ErrGate || o.Gate(junk[1:]) != ErrLength {
				return errors.New("junk passed")
			}
			return nil
		}},
		"good packet": {6, func() error { return verified(o, p, k) }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.f(); err != nil {
				t.Fatal(err)
			}
			if got := testing.AllocsPerRun(100, func() { c.f() }); got > c.max {
				t.Errorf("%g allocations, want at most %g", got, c.max)
			}
		})
	}
}

func TestEveryBit(t *testing.T) {
	o, good, k := NewOpener(testRouter()), goodPacket(t), testDevice().Public()
	if err := verified(o, good, k); err != nil {
		t.Fatal(err)
	}
	router := testRouter().Public().Bytes()
	for bit := range PacketSize * 8 {
		p := append([]byte(nil), good...)
		p[bit/8] ^= 1 << (bit % 8)
		if err := verified(o, p, k); err != ErrGate {
			t.Fatalf("bit %d flipped: %v, want %v", bit, err, ErrGate)
		}
		if bit < 64 {
			continue // mending the gate would mend the packet
		}
		refGate(router[:], p) // what a holder of the router's key can do
		if err := verified(o, p, k); err != ErrBox && err != ErrKey {
			t.Fatalf("bit %d flipped and the gate mended: %v", bit, err)
		}
	}
}

func TestEveryBitOfTheMessage(t *testing.T) {
	o, k := NewOpener(testRouter()), testDevice().Public()
	router, eph := testRouter().Public().Bytes(), testBytes(0x60)
	body, err := goodMessage().encode(1)
	if err != nil {
		t.Fatal(err)
	}
	sig := testDevice().Sign(refSigned([]byte("knock v1"), router, eph, body[:]))
	message := append(body[:], sig[:]...)
	if err := verified(o, refPacket(router, eph, message), k); err != nil {
		t.Fatal(err)
	}
	for bit := range len(message) * 8 {
		message[bit/8] ^= 1 << (bit % 8)
		if err := verified(o, refPacket(router, eph, message), k); !errors.Is(err, ErrFormat) && err != errSignature {
			t.Errorf("bit %d of the message flipped: %v", bit, err)
		}
		message[bit/8] ^= 1 << (bit % 8)
	}
}

func TestEveryLength(t *testing.T) {
	o := NewOpener(testRouter())
	p := append(goodPacket(t), make([]byte, 65507-PacketSize)...)
	for n := range len(p) + 1 {
		if n == PacketSize {
			continue
		}
		if err := o.Gate(p[:n]); err != ErrLength {
			t.Fatalf("gate of %d bytes: %v", n, err)
		}
		if _, err := o.Open(p[:n]); err != ErrLength {
			t.Fatalf("open of %d bytes: %v", n, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	device := testDevice()
	id := DeviceIDOf(device.Public())
	nas := ServiceIDOf("nas")
	for name, m := range map[string]Message{
		"open, nothing else":  {Op: OpOpen, Device: id, Service: nas},
		"open, all of it":     {Op: OpOpen, WantAnswer: true, TTL: 65535, Device: id, Service: nas, TimeMS: maxTime, Address: netip.MustParseAddr("2001:db8::7")},
		"open, IPv4":          {Op: OpOpen, Device: id, Service: nas, TimeMS: 1, Address: netip.MustParseAddr("192.0.2.1")},
		"open, unspecified":   {Op: OpOpen, Device: id, Service: nas, Address: netip.IPv6Unspecified()}, // the router refuses it, not the format
		"open, 0.0.0.0":       {Op: OpOpen, Device: id, Service: nas, Address: netip.IPv4Unspecified()},
		"close":               {Op: OpClose, WantAnswer: true, Device: id, Service: nas, TimeMS: 2},
		"close, with address": {Op: OpClose, Device: id, Service: nas, TimeMS: 3, Address: netip.MustParseAddr("2001:db8::8")},
		"hello":               {Op: OpHello, WantAnswer: true, Device: id, TimeMS: 4},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, err := NewSealer(testRouter().Public()).Seal(m, device, testRand(2))
			if err != nil {
				t.Fatal(err)
			}
			o := NewOpener(testRouter())
			if err := verified(o, p[:], device.Public()); err != nil {
				t.Fatal(err)
			}
			opened := must(o.Open(p[:]))
			if diff := cmp.Diff(m, opened.Message, equalAddr); diff != "" {
				t.Errorf("message (-sealed +opened):\n%s", diff)
			}
			if opened.SignedWith(keys.TokenSecret{}) {
				t.Error("passes for an enrolment")
			}
			if opened.SignedBy(keys.NewDeviceSecret(testBytes(9)).Public()) || opened.SignedBy(keys.DevicePublic{}) {
				t.Error("passes for another device's")
			}
		})
	}
}

func TestMappedAddressIsUnmapped(t *testing.T) {
	m := goodMessage()
	m.Address = netip.MustParseAddr("::ffff:203.0.113.7")
	p, _, err := NewSealer(testRouter().Public()).Seal(m, testDevice(), testRand(1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goodPacket(t), p[:]); diff != "" {
		t.Errorf("packet differs from that of the IPv4 address (-want +got):\n%s", diff)
	}
}

func TestEnroll(t *testing.T) {
	device := testDevice()
	token := keys.Token{ID: keys.TokenID{1, 2, 3, 4, 5, 6}, Secret: keys.TokenSecret{0xc0, 0xc1}}
	for _, want := range []bool{true, false} {
		p, w, err := NewSealer(testRouter().Public()).SealEnroll(device, token, want, testRand(3))
		if err != nil {
			t.Fatal(err)
		}
		o := NewOpener(testRouter())
		if err := o.Gate(p[:]); err != nil {
			t.Fatal(err)
		}
		opened, err := o.Open(p[:])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Message{Op: OpEnroll, WantAnswer: want, Token: token.ID, Key: device.Public()}, opened.Message, equalAddr); diff != "" {
			t.Errorf("message (-want +got):\n%s", diff)
		}
		if !opened.SignedWith(token.Secret) {
			t.Error("signature refused")
		}
		if opened.SignedWith(keys.TokenSecret{1}) {
			t.Error("good with another token secret")
		}
		if opened.SignedBy(device.Public()) {
			t.Error("passes for a knock")
		}
		a, err := opened.Answer(Answer{Status: Enrolled, RouterMS: 5, PacketMS: 77, Seen: netip.MustParseAddr("192.0.2.1")}, testRand(4))
		if err != nil {
			t.Fatal(err)
		}
		if got := must(w.OpenAnswer(a[:])); got.PacketMS != 0 {
			t.Errorf("packet time %d, want 0", got.PacketMS)
		}
	}
}

// TestEnrollIsNoKnock: an enrolment passes for a knock not even if it is signed as one.
func TestEnrollIsNoKnock(t *testing.T) {
	router, eph, device := testRouter().Public().Bytes(), testBytes(0x60), testDevice()
	body := must(Message{Op: OpEnroll, Key: device.Public()}.encode(1))
	sig := device.Sign(refSigned([]byte("knock v1"), router, eph, body[:]))
	opened, err := NewOpener(testRouter()).Open(refPacket(router, eph, append(body[:], sig[:]...)))
	if err != nil {
		t.Fatal(err)
	}
	if opened.SignedBy(device.Public()) || opened.SignedWith(keys.TokenSecret{}) {
		t.Error("signature accepted")
	}
}

func TestSealRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Message)
		want   error
	}{
		"enroll by Seal":       {func(m *Message) { m.Op = OpEnroll }, ErrFormat},
		"op 4":                 {func(m *Message) { m.Op = 4 }, ErrFormat},
		"op 16":                {func(m *Message) { m.Op = 16 }, ErrFormat},
		"time below 1970":      {func(m *Message) { m.TimeMS = -1 }, ErrFormat},
		"time above 48 bits":   {func(m *Message) { m.TimeMS = maxTime + 1 }, ErrFormat},
		"address with a zone":  {func(m *Message) { m.Address = netip.MustParseAddr("fe80::1%eth0") }, ErrFormat},
		"ttl in close":         {func(m *Message) { m.Op = OpClose }, ErrFormat},
		"ttl in hello":         {func(m *Message) { m.Op, m.Service = OpHello, ServiceID{} }, ErrFormat},
		"service in hello":     {func(m *Message) { m.Op, m.TTL = OpHello, 0 }, ErrFormat},
		"token outside enroll": {func(m *Message) { m.Token[0] = 1 }, ErrFormat},
		"key outside enroll":   {func(m *Message) { m.Key = testDevice().Public() }, ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			m := goodMessage()
			c.change(&m)
			p, _, err := NewSealer(testRouter().Public()).Seal(m, testDevice(), testRand(1))
			if !errors.Is(err, c.want) || p != [PacketSize]byte{} {
				t.Errorf("error %v, want %v and no packet", err, c.want)
			}
		})
	}
}

func TestSealWithoutKeys(t *testing.T) {
	s := NewSealer(testRouter().Public())
	if _, _, err := s.Seal(goodMessage(), keys.DeviceSecret{}, testRand(1)); !errors.Is(err, ErrKey) {
		t.Errorf("no device key: %v", err)
	}
	if _, _, err := s.SealEnroll(keys.DeviceSecret{}, keys.Token{}, true, testRand(1)); !errors.Is(err, ErrKey) {
		t.Errorf("no device key to enrol: %v", err)
	}
	if _, _, err := NewSealer(keys.RouterPublic{}).Seal(goodMessage(), testDevice(), testRand(1)); !errors.Is(err, ErrKey) {
		t.Errorf("no router key: %v", err)
	}
	if _, err := NewOpener(keys.RouterSecret{}).Open(make([]byte, PacketSize)); !errors.Is(err, ErrKey) {
		t.Errorf("opener without a key: %v", err)
	}
	if _, _, err := s.Seal(goodMessage(), testDevice(), noRand{}); !errors.Is(err, errNoRand) {
		t.Errorf("no randomness: %v", err)
	}
}

type noRand struct{}

var errNoRand = errors.New("no randomness")

func (noRand) Read([]byte) (int, error) { return 0, errNoRand }

func TestSealerIsFresh(t *testing.T) {
	s, r := NewSealer(testRouter().Public()), testRand(5)
	a, _, _ := s.Seal(goodMessage(), testDevice(), r)
	b, _, _ := s.Seal(goodMessage(), testDevice(), r)
	same := 0
	for i := range a {
		if a[i] == b[i] {
			same++
		}
	}
	if same > 10 { // 160/256 on average
		t.Errorf("two packets of one message agree in %d of %d bytes", same, len(a))
	}
}

func TestGateValue(t *testing.T) {
	p := goodPacket(t)
	if got := GateValue([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}); got != 0x0807060504030201 {
		t.Errorf("gate value %#x", got)
	}
	if got := GateValue(p[:7]); got != 0 {
		t.Errorf("gate value of 7 bytes is %#x", got)
	}
}
