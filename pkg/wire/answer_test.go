package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exchanged seals a good packet and opens it at the other end.
func exchanged(t *testing.T, m Message) (*Packet, Waiter) {
	t.Helper()
	p, w, err := NewSealer(testRouter().Public()).Seal(m, testDevice(), testRand(6))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := NewOpener(testRouter()).Open(p[:])
	if err != nil {
		t.Fatal(err)
	}
	return opened, w
}

func goodAnswer() Answer {
	return Answer{
		Status: Opened, TTL: 900, Port: 7890, RouterMS: 1700000000456, PacketMS: goodMessage().TimeMS, Seen: netip.MustParseAddr("203.0.113.7"),
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*Answer){
		"opened":           func(*Answer) {},
		"no port":          func(a *Answer) { a.Port = 0 },
		"IPv6":             func(a *Answer) { a.Seen = netip.MustParseAddr("2001:db8::7") },
		"the latest time":  func(a *Answer) { a.RouterMS = maxTime },
		"the largest ttl":  func(a *Answer) { a.TTL = 65535 },
		"denied":           func(a *Answer) { a.Status, a.TTL, a.Port = Denied, 0, 0 },
		"clock off":        func(a *Answer) { a.Status, a.TTL, a.Port = ClockOff, 0, 0 },
		"address mismatch": func(a *Answer) { a.Status, a.TTL, a.Port = Mismatch, 0, 0 },
		"busy":             func(a *Answer) { a.Status, a.TTL, a.Port = Busy, 0, 0 },
		"failed":           func(a *Answer) { a.Status, a.TTL, a.Port = Failed, 0, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			p, w := exchanged(t, goodMessage())
			want := goodAnswer()
			change(&want)
			sealed, err := p.Answer(want, testRand(7))
			if err != nil {
				t.Fatal(err)
			}
			got, err := w.OpenAnswer(sealed[:])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, equalAddr); diff != "" {
				t.Errorf("answer (-sealed +opened):\n%s", diff)
			}
		})
	}
}

func TestAnswerFillsIn(t *testing.T) {
	p, w := exchanged(t, goodMessage())
	a := goodAnswer()
	a.PacketMS, a.Seen = 5, netip.MustParseAddr("fe80::1%eth0")
	sealed, err := p.Answer(a, testRand(7))
	if err != nil {
		t.Fatal(err)
	}
	got := must(w.OpenAnswer(sealed[:]))
	if got.PacketMS != goodMessage().TimeMS || got.Seen != netip.MustParseAddr("fe80::1") {
		t.Errorf("packet time %d, seen %s", got.PacketMS, got.Seen)
	}
}

func TestAnswerRefuses(t *testing.T) {
	for name, change := range map[string]func(*Answer){
		"status 5":            func(a *Answer) { a.Status, a.TTL, a.Port = 5, 0, 0 },
		"status 10":           func(a *Answer) { a.Status, a.TTL, a.Port = 10, 0, 0 },
		"status 16":           func(a *Answer) { a.Status, a.TTL, a.Port = 16, 0, 0 },
		"ttl without opening": func(a *Answer) { a.Status, a.Port = Denied, 0 },
		"port without":        func(a *Answer) { a.Status, a.TTL = Closed, 0 },
		"time below 1970":     func(a *Answer) { a.RouterMS = -1 },
		"time above 48 bits":  func(a *Answer) { a.RouterMS = maxTime + 1 },
		"no seen address":     func(a *Answer) { a.Seen = netip.Addr{} },
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := exchanged(t, goodMessage())
			a := goodAnswer()
			change(&a)
			if out, err := p.Answer(a, testRand(7)); !errors.Is(err, ErrFormat) || out != [AnswerSize]byte{} {
				t.Errorf("error %v, want %v and no answer", err, ErrFormat)
			}
		})
	}
	p, _ := exchanged(t, goodMessage())
	if _, err := p.Answer(goodAnswer(), noRand{}); !errors.Is(err, errNoRand) {
		t.Errorf("no randomness: %v", err)
	}
}

func TestAnswerEveryBit(t *testing.T) {
	p, w := exchanged(t, goodMessage())
	good := must(p.Answer(goodAnswer(), testRand(7)))
	router := testRouter().Public().Bytes()
	for bit := range AnswerSize * 8 {
		a := good
		a[bit/8] ^= 1 << (bit % 8)
		if _, err := w.OpenAnswer(a[:]); err != ErrGate {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
		if bit < 64 {
			continue
		}
		refGate(router[:], a[:])
		if _, err := w.OpenAnswer(a[:]); err != ErrBox {
			t.Fatalf("bit %d flipped and the gate mended: %v", bit, err)
		}
	}
}

func TestAnswerEveryLength(t *testing.T) {
	p, w := exchanged(t, goodMessage())
	good := must(p.Answer(goodAnswer(), testRand(7)))
	long := append(good[:], make([]byte, 2000)...)
	for n := range len(long) {
		if _, err := w.OpenAnswer(long[:n]); n != AnswerSize && err != ErrLength {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestAnswerToAnother(t *testing.T) {
	p, _ := exchanged(t, goodMessage())
	a := must(p.Answer(goodAnswer(), testRand(7)))
	_, other, err := NewSealer(testRouter().Public()).Seal(goodMessage(), testDevice(), testRand(8))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.OpenAnswer(a[:]); err != ErrBox {
		t.Errorf("the same message in another packet: %v", err)
	}
	if _, err := (Waiter{}).OpenAnswer(a[:]); err != ErrBox {
		t.Errorf("the zero waiter: %v", err)
	}
}

// TestAnswerFitsItsPacket: success is believed only where it was asked for.
func TestAnswerFitsItsPacket(t *testing.T) {
	success := map[Op]Status{OpOpen: Opened, OpClose: Closed, OpEnroll: Enrolled, OpHello: Hello}
	for op, fits := range success {
		for s := range Status(10) {
			if !s.known() {
				continue
			}
			if got, want := s.answers(op), s == fits || s > Hello; got != want {
				t.Errorf("%s may answer %s: %t, want %t", s, op, got, want)
			}
		}
	}
	hello := Message{Op: OpHello, TimeMS: 3}
	p, w := exchanged(t, hello)
	a := must(p.Answer(Answer{Status: Closed, Seen: netip.MustParseAddr("192.0.2.1")}, testRand(7)))
	if _, err := w.OpenAnswer(a[:]); !errors.Is(err, ErrFormat) {
		t.Errorf("closed, to hello: %v", err)
	}
	w.timeMS++
	a = must(p.Answer(Answer{Status: Hello, Seen: netip.MustParseAddr("192.0.2.1")}, testRand(7)))
	if _, err := w.OpenAnswer(a[:]); !errors.Is(err, ErrFormat) {
		t.Errorf("another time: %v", err)
	}
}

// TestNothingSecretIsPrinted: what holds a key prints a placeholder.
func TestNothingSecretIsPrinted(t *testing.T) {
	p, w := exchanged(t, goodMessage())
	var none *Packet
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for want, v := range map[string]any{"[open packet]": p, "[waiter]": w, "[opener]": NewOpener(testRouter()), "[no packet]": none} {
			if got := fmt.Sprintf(verb, v); got != want {
				t.Errorf("%s of %s prints %q", verb, want, got)
			}
		}
	}
}
