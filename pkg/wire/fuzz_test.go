package wire

import (
	"bytes"
	"errors"
	"testing"

	"spad/keys"
)

// seeds gives a fuzz target the field of every golden file of a kind, and fails if there is none.
func seeds(f *testing.F, kind, field string) {
	n := 0
	for _, g := range goldenFiles(f) {
		if g["kind"] == kind {
			f.Add(g.bytes(field))
			n++
		}
	}
	if n == 0 {
		f.Fatalf("no seeds of kind %s", kind)
	}
}

// FuzzOpen seals what it is given, so that the fuzzer reaches the decoder behind the box.
func FuzzOpen(f *testing.F) {
	seeds(f, "packet", "sealed")
	o, router, eph := NewOpener(testRouter()), refPublic(testBytes(0x20)), testBytes(0x60)
	f.Fuzz(func(t *testing.T, message []byte) {
		message = append(message, make([]byte, messageSize)...)[:messageSize]
		p := refPacket(router, eph, message)
		if err := o.Gate(p); err != nil {
			t.Fatal(err)
		}
		opened, err := o.Open(p)
		if err != nil {
			if !errors.Is(err, ErrFormat) && err != ErrKey || opened != nil {
				t.Fatalf("unexpected class: %v", err)
			}
			return
		}
		body, err := opened.Message.encode(1)
		if err != nil || !bytes.Equal(body[:], message[:bodySize]) {
			t.Fatalf("opened %x, encodes to %x (%v)", message[:bodySize], body, err)
		}
		if opened.Message.Address.Is4In6() {
			t.Fatal("address not unmapped")
		}
		opened.SignedBy(testDevice().Public())
		opened.SignedWith(keys.TokenSecret{})
	})
}

// FuzzGate gives arbitrary datagrams to everything that looks at datagrams.
func FuzzGate(f *testing.F) {
	seeds(f, "packet", "packet")
	o, router := NewOpener(testRouter()), refPublic(testBytes(0x20))
	_, w, err := NewSealer(testRouter().Public()).Seal(goodMessage(), testDevice(), testRand(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		err := o.Gate(p)
		if len(p) != PacketSize {
			if err != ErrLength {
				t.Fatalf("%d bytes: %v", len(p), err)
			}
		} else {
			mended := bytes.Clone(p)
			refGate(router[:], mended)
			if good := bytes.Equal(mended, p); good != (err == nil) {
				t.Fatalf("gate is good: %t, error %v", good, err)
			}
		}
		GateValue(p)
		if opened, err := o.Open(p); (opened == nil) == (err == nil) {
			t.Fatalf("packet %v and error %v", opened, err)
		}
		if _, err := w.OpenAnswer(p); err == nil {
			t.Fatal("an answer out of nothing")
		}
	})
}

// FuzzAnswer seals what it is given as the answer to a packet that fits it.
func FuzzAnswer(f *testing.F) {
	seeds(f, "answer", "sealed")
	router, eph := refPublic(testBytes(0x20)), testBytes(0x60)
	s := NewSealer(testRouter().Public())
	f.Fuzz(func(t *testing.T, body []byte) {
		body = append(body, make([]byte, answerBody)...)[:answerBody]
		_, w, err := s.Seal(goodMessage(), testDevice(), bytes.NewReader(eph[:]))
		if err != nil {
			t.Fatal(err)
		}
		ops := []Op{OpOpen, OpClose, OpEnroll, OpHello}
		w.op, w.timeMS = ops[body[0]&3], getTime(body[12:18])
		a, err := w.OpenAnswer(refAnswer(router, eph, [24]byte{}, body))
		if err != nil {
			if !errors.Is(err, ErrFormat) || a != (Answer{}) {
				t.Fatalf("answer %v, error %v", a, err)
			}
			return
		}
		again, err := a.encode(1)
		if err != nil || !bytes.Equal(again[:], body) {
			t.Fatalf("opened %x, encodes to %x (%v)", body, again, err)
		}
		if a.Seen.Is4In6() {
			t.Fatal("address not unmapped")
		}
	})
}
