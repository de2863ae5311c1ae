package verify

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dchest/siphash"
	"golang.org/x/sys/unix"

	"spad/keys"
	"spad/pkg/device"
	"spad/pkg/flood"
	"spad/pkg/replay"
	"spad/pkg/wire"
)

// fresh is a journal without its disk: what that costs is measured by BenchmarkSpend of package replay, and the way
// with it by BenchmarkKnock of package daemon.
type fresh struct{}

func (fresh) NowMS() int64                                           { return nowMS }
func (fresh) Spend(keys.DevicePublic, int64) (replay.Verdict, error) { return replay.Fresh, nil }

// generous limits let a benchmark send as fast as it can.
var generous = flood.Limits{Source: flood.Rate{PerSecond: 1e9, Burst: 1 << 30}, Global: flood.Rate{PerSecond: 1e9, Burst: 1 << 30}}

// crowd returns a verifier that knows so many devices, and the one in the middle.
func crowd(b *testing.B, size int) (*Verifier, *wire.Sealer, keys.DeviceSecret) {
	b.Helper()
	all, middle := make([]device.Device, size), keys.DeviceSecret{}
	for i := range all {
		var s [32]byte
		binary.BigEndian.PutUint64(s[:], uint64(i))
		secret := keys.NewDeviceSecret(s)
		all[i] = device.Device{Name: fmt.Sprintf("device-%d", i), Key: secret.Public(), Allow: []string{"nas"}}
		if i == size/2 {
			middle = secret
		}
	}
	secret := must(keys.NewRouterSecret(seed(9)))
	v := New(Options{
		Secret: secret, Budget: flood.NewBudget(generous), Journal: fresh{}, Roster: must(device.NewRoster(all, nil)),
	})
	return v, wire.NewSealer(secret.Public()), middle
}

// packets seals some of a device's, so that none is a repetition.
func packets(b *testing.B, s *wire.Sealer, by keys.DeviceSecret, n int) [][]byte {
	b.Helper()
	all := make([][]byte, n)
	for i := range all {
		p, _, err := s.Seal(message(), by, rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		all[i] = p[:]
	}
	return all
}

// pass takes one packet all the way.
func (v *Verifier) pass(b *testing.B, p []byte) {
	if reason := v.Admit(p, from, 0); reason != Accepted {
		b.Fatal(reason)
	}
	if _, err := v.Verify(p, from, 0); err != nil {
		b.Fatal(err)
	}
}

// pinThread keeps the benchmark on one thread, whose time cpuTime reads.
func pinThread(b *testing.B) {
	runtime.LockOSThread()
	b.Cleanup(runtime.UnlockOSThread)
}

// cpuTime is what this thread has used of the processor: other load on the machine does not count in it.
func cpuTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// turn is how many packets are sealed at a time, and how many of ours and of the floor alternate between two looks at
// the clock.
const turn = 16

// BenchmarkVerify reports what a good packet costs, gate, budgets and device included, the disk excluded, against what
// it must cost: one X25519 exchange and one Ed25519 verification, in turns with it.
func BenchmarkVerify(b *testing.B) {
	pinThread(b)
	v, sealer, by := crowd(b, 1)
	floor := newFloor()
	var ours, bare []time.Duration
	for b.Loop() {
		b.StopTimer()
		good := packets(b, sealer, by, turn)
		b.StartTimer()
		t0 := cpuTime(b)
		for _, p := range good {
			v.pass(b, p)
		}
		t1 := cpuTime(b)
		for range turn {
			floor.run(b)
		}
		ours, bare = append(ours, t1-t0), append(bare, cpuTime(b)-t1)
	}
	a, f := median(ours), median(bare)
	b.ReportMetric(float64(a)/turn, "cpu-ns/packet")
	b.ReportMetric(float64(f)/turn, "cpu-ns/floor")
	b.ReportMetric(float64(a)/float64(f), "ratio")
	b.ReportMetric(testing.AllocsPerRun(turn-1, next(packets(b, sealer, by, turn), func(p []byte) { v.pass(b, p) })), "allocs/packet")
}

// next returns a function that does something with each packet in turn.
func next(all [][]byte, do func([]byte)) func() {
	i := 0
	return func() { do(all[i]); i++ }
}

// curve is the public-key work that no knock comes without.
type curve struct {
	key    *ecdh.PrivateKey
	peer   *ecdh.PublicKey
	public ed25519.PublicKey
	text   []byte
	sig    []byte
}

func newFloor() curve {
	s := seed(7)
	key, other := must(ecdh.X25519().NewPrivateKey(s[:])), must(ecdh.X25519().GenerateKey(rand.Reader))
	signer, text := ed25519.NewKeyFromSeed(s[:]), make([]byte, 8+32+32+40)
	return curve{key, other.PublicKey(), signer.Public().(ed25519.PublicKey), text, ed25519.Sign(signer, text)}
}

func (c curve) run(b *testing.B) {
	if _, err := c.key.ECDH(c.peer); err != nil || !ed25519.Verify(c.public, c.text, c.sig) {
		b.Fatal("floor")
	}
}

// BenchmarkCrowd reports what a packet costs with 10,000 devices enrolled against one with one, in turns.
func BenchmarkCrowd(b *testing.B) {
	pinThread(b)
	one, sealer, single := crowd(b, 1)
	many, _, middle := crowd(b, 10_000)
	var few, all []time.Duration
	for b.Loop() {
		b.StopTimer()
		a, z := packets(b, sealer, single, turn), packets(b, sealer, middle, turn)
		b.StartTimer()
		t0 := cpuTime(b)
		for _, p := range a {
			one.pass(b, p)
		}
		t1 := cpuTime(b)
		for _, p := range z {
			many.pass(b, p)
		}
		few, all = append(few, t1-t0), append(all, cpuTime(b)-t1)
	}
	b.ReportMetric(float64(median(all))/float64(median(few)), "ratio")
}

// BenchmarkJunk reports what refusing junk of the right size costs against a bare SipHash over it, in turns.
func BenchmarkJunk(b *testing.B) {
	pinThread(b)
	const batch = 1000
	v, _, _ := crowd(b, 1)
	junk := make([]byte, wire.PacketSize)
	var ours, bare []time.Duration
	sum := uint64(0)
	for b.Loop() {
		t0 := cpuTime(b)
		for range batch {
			if v.Admit(junk, from, 0) != Gate {
				b.Fatal("junk passed")
			}
		}
		t1 := cpuTime(b)
		for range batch {
			sum += siphash.Hash(1, 2, junk[8:])
		}
		ours, bare = append(ours, t1-t0), append(bare, cpuTime(b)-t1)
	}
	if sum == 0 {
		b.Fatal("no hash was made")
	}
	b.ReportMetric(float64(median(ours))/batch, "cpu-ns/packet")
	b.ReportMetric(float64(median(ours))/float64(median(bare)), "ratio")
	b.ReportMetric(testing.AllocsPerRun(batch, func() { v.Admit(junk, from, 0) }), "allocs/packet")
}

// BenchmarkWrongLength is what refusing a packet of another length costs, where the kernel has not done it already.
func BenchmarkWrongLength(b *testing.B) {
	pinThread(b)
	const batch = 10_000
	v, _, _ := crowd(b, 1)
	junk := make([]byte, wire.PacketSize-1)
	var ours []time.Duration
	for b.Loop() {
		start := cpuTime(b)
		for range batch {
			if v.Admit(junk, from, 0) != Length {
				b.Fatal("a short packet passed")
			}
		}
		ours = append(ours, cpuTime(b)-start)
	}
	b.ReportMetric(float64(median(ours))/batch, "cpu-ns/packet")
	b.ReportMetric(testing.AllocsPerRun(batch, func() { v.Admit(junk, from, 0) }), "allocs/packet")
}
