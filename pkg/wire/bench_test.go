package wire

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"github.com/dchest/siphash"
)

// BenchmarkVerify reports what a good packet costs against what it must cost: one
// X25519 exchange and one Ed25519 verification, measured in turns with it.
func BenchmarkVerify(b *testing.B) {
	o, p, device := NewOpener(testRouter()), goodPacket(b), testDevice().Public()
	secret, eph := testBytes(0x20), refPublic(testBytes(0x60))
	key := must(ecdh.X25519().NewPrivateKey(secret[:]))
	peer := must(ecdh.X25519().NewPublicKey(eph[:]))
	signer := ed25519.NewKeyFromSeed(secret[:])
	public, text := signer.Public().(ed25519.PublicKey), make([]byte, 8+32+32+bodySize)
	sig := ed25519.Sign(signer, text)

	verify := func() {
		if o.Gate(p) != nil {
			b.Fatal("gate")
		}
		if opened, err := o.Open(p); err != nil || !opened.SignedBy(device) {
			b.Fatal("open")
		}
	}
	var ours, floor []time.Duration
	for b.Loop() {
		start := time.Now()
		verify()
		middle := time.Now()
		if _, err := key.ECDH(peer); err != nil || !ed25519.Verify(public, text, sig) {
			b.Fatal("floor")
		}
		ours, floor = append(ours, middle.Sub(start)), append(floor, time.Since(middle))
	}
	b.ReportMetric(float64(median(ours)), "ns/verify")
	b.ReportMetric(float64(median(floor)), "ns/floor")
	b.ReportMetric(float64(median(ours))/float64(median(floor)), "ratio")
	b.ReportMetric(testing.AllocsPerRun(10, verify), "allocs/packet")
}

// median is not moved by the rounds in which something else had the core.
func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkGate reports what junk costs against a bare SipHash over it.
func BenchmarkGate(b *testing.B) {
	const batch = 1000 // one gate is too short for the clock
	o, p := NewOpener(testRouter()), goodPacket(b)
	p[0] ^= 1
	var ours, floor []time.Duration
	sum := uint64(0)
	for b.Loop() {
		start := time.Now()
		for range batch {
			if o.Gate(p) != ErrGate {
				b.Fatal("junk passed")
			}
		}
		middle := time.Now()
		for range batch {
			sum += siphash.Hash(1, 2, p[8:])
		}
		ours, floor = append(ours, middle.Sub(start)), append(floor, time.Since(middle))
	}
	if sum == 0 {
		b.Fatal("no hash was made")
	}
	b.ReportMetric(float64(median(ours))/batch, "ns/gate")
	b.ReportMetric(float64(median(floor))/batch, "ns/siphash")
	b.ReportMetric(float64(median(ours))/float64(median(floor)), "ratio")
	b.ReportMetric(testing.AllocsPerRun(batch, func() { _ = o.Gate(p) }), "allocs/packet")
}

// BenchmarkOpen is Open alone, and BenchmarkSeal what a client pays.
func BenchmarkOpen(b *testing.B) {
	o, p := NewOpener(testRouter()), goodPacket(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Open(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	s, device, m := NewSealer(testRouter().Public()), testDevice(), goodMessage()
	rand := testRand(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Seal(m, device, rand); err != nil {
			b.Fatal(err)
		}
	}
}
