package flood

import (
	"encoding/binary"
	"math"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	laptop   = netip.MustParseAddr("203.0.113.7")
	phone    = netip.MustParseAddr("2001:db8::7")
	stranger = netip.MustParseAddr("198.51.100.9")
)

// spoofed returns the n-th of four billion addresses.
func spoofed(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// takes counts how many of n packets from src are let through now.
func takes(b *Budget, now time.Duration, src netip.Addr, n int) (got int) {
	for range n {
		if b.Take(now, src) {
			got++
		}
	}
	return got
}

func TestSourceBudget(t *testing.T) {
	b := NewBudget(DefaultLimits())
	for _, c := range []struct {
		name string
		now  time.Duration
		src  string
		want int
	}{
		{"a burst", 0, "192.0.2.1", 32},
		{"nothing left", 0, "192.0.2.1", 0},
		{"the same, mapped", 0, "::ffff:192.0.2.1", 0},
		{"its neighbour", 0, "192.0.2.2", 32},
		{"not yet", 99 * time.Millisecond, "192.0.2.1", 0},
		{"one back", 100 * time.Millisecond, "192.0.2.1", 1},
		{"ten a second", 1100 * time.Millisecond, "192.0.2.1", 10},
		{"never more than the burst", time.Hour, "192.0.2.1", 32},
		{"a /64", time.Hour, "2001:db8:0:1::1", 32},
		{"another address of the /64", time.Hour, "2001:db8:0:1:ffff::2", 0},
		{"with a zone", time.Hour, "2001:db8:0:1::3%eth0", 0},
		{"the next /64", time.Hour, "2001:db8:0:2::1", 32},
		{"the /64 spelt like an IPv4 address", time.Hour, "c000:201::1", 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := takes(b, c.now, netip.MustParseAddr(c.src), 100); got != c.want {
				t.Errorf("%d of 100 let through, want %d", got, c.want)
			}
		})
	}
}

// flood takes all that ever new sources can get from one time to another, and counts.
func flood(b *Budget, from, to time.Duration, next *uint32) (got int) {
	for now := from; now <= to; now += 50 * time.Microsecond {
		*next++
		if b.Take(now, spoofed(*next)) {
			got++
		}
	}
	return got
}

func TestGlobalBudget(t *testing.T) {
	b, next := NewBudget(DefaultLimits()), uint32(0)
	flood(b, 0, time.Second, &next)
	got := flood(b, time.Second, 11*time.Second, &next)
	if want := 18750; math.Abs(float64(got-want)) > 2 {
		t.Errorf("strangers got %d packets in 10 s, want %d: what is not reserved of 2500 a second", got, want)
	}
}

// TestGoodSourceGetsThrough is why there is a reserve.
func TestGoodSourceGetsThrough(t *testing.T) {
	b, next := NewBudget(DefaultLimits()), uint32(0)
	b.Good(0, laptop)
	b.Good(0, phone)
	flood(b, 0, time.Second, &next)
	if got := takes(b, time.Second, stranger, 10); got > 1 {
		t.Errorf("a stranger got %d packets through a flood", got)
	}
	for _, src := range []netip.Addr{laptop, phone} {
		if got := takes(b, time.Second, src, 100); got != 32 {
			t.Errorf("%v got %d of 100 packets through a flood, want 32", src, got)
		}
	}
	flood(b, time.Second, 3*time.Second, &next)
	if got := takes(b, goodFor-1, laptop, 1); got != 1 {
		t.Error("a good source is shut out within its day")
	}
	flood(b, goodFor, goodFor+time.Second, &next)
	if got := takes(b, goodFor+time.Second, laptop, 10); got > 1 {
		t.Errorf("a source that knocked well long ago got %d packets through a flood", got)
	}
}

// TestReserveIsNotDrained sends recordings of a good source's packets: each is taken and returned.
func TestReserveIsNotDrained(t *testing.T) {
	b, next := NewBudget(DefaultLimits()), uint32(0)
	b.Good(0, laptop)
	flood(b, 0, time.Second, &next)
	for range 10_000 {
		if b.Take(time.Second, laptop) {
			b.Return(time.Second, laptop)
		}
		next++
		b.Take(time.Second, spoofed(next)) // takes what was put back in the wrong place
	}
	if got := takes(b, time.Second, laptop, 100); got != 32 {
		t.Errorf("after recordings sent in its name a good source got %d of 32", got)
	}
}

func TestReturn(t *testing.T) {
	b := NewBudget(Limits{Source: Rate{10, 5}, Global: Rate{10, 5}})
	for range 100 {
		if !b.Take(0, laptop) {
			t.Fatal("refused though all was returned")
		}
		b.Return(0, laptop)
	}
	if got := takes(b, 0, laptop, 100); got != 5 {
		t.Errorf("%d after returns, want 5", got)
	}
	b.Return(0, stranger) // took nothing of its own: the global budget has one more
	if got := takes(b, 0, stranger, 100); got != 1 {
		t.Errorf("%d after a return, want 1", got)
	}
	for range 100 {
		b.Return(time.Hour, laptop)
	}
	if got := takes(b, time.Hour, laptop, 100); got != 5 {
		t.Errorf("%d after too many returns, want 5", got)
	}
}

func TestRefusalCostsNothing(t *testing.T) {
	b := NewBudget(Limits{Source: Rate{1, 4}, Global: Rate{1, 2}})
	if got := takes(b, 0, laptop, 100); got != 2 {
		t.Errorf("%d, want the global 2", got)
	}
	b.SetLimits(Limits{Source: Rate{1, 4}, Global: Rate{1, 100}})
	if got := takes(b, 0, laptop, 100); got != 2 {
		t.Errorf("%d, want the 2 that the source has left", got)
	}
}

func TestSetLimits(t *testing.T) {
	slow := Limits{Source: Rate{1. / 3600, 100}, Global: Rate{1000, 1000}}
	b := NewBudget(slow)
	if got := takes(b, 0, laptop, 1000); got != 100 {
		t.Errorf("%d, want 100", got)
	}
	b.SetLimits(Limits{Source: Rate{10, 10}, Global: Rate{1000, 1000}})
	if got := takes(b, time.Second, laptop, 1000); got != 0 {
		t.Errorf("an empty bucket had %d", got)
	}
	if got := takes(b, 2*time.Second, laptop, 1000); got != 10 {
		t.Errorf("%d a second after the rate was raised, want 10", got)
	}
}

func TestOddLimits(t *testing.T) {
	full := Rate{1000, 1000}
	for _, c := range []struct {
		name         string
		l            Limits
		good, others int // of 10 packets each, at once
	}{
		{"no limits", Limits{}, 0, 0},
		{"no burst", Limits{Source: Rate{10, 0}, Global: full}, 0, 0},
		{"no rate", Limits{Source: Rate{0, 10}, Global: full}, 0, 0},
		{"rate is no number", Limits{Source: Rate{math.NaN(), 10}, Global: full}, 0, 0},
		{"no global rate", Limits{Source: full}, 0, 0},
		{"as slow as can be", Limits{Source: Rate{math.SmallestNonzeroFloat64, 5}, Global: full}, 1, 1},
		{"infinitely fast", Limits{Source: Rate{math.Inf(1), 5}, Global: full}, 5, 5},
		{"huge burst", Limits{Source: Rate{1, math.MaxInt}, Global: Rate{1, math.MaxInt}}, 10, 10},
		{"all reserved", Limits{Source: full, Global: full, ReservedShare: 1}, 10, 0},
		{"more than all reserved", Limits{Source: full, Global: full, ReservedShare: 7}, 10, 0},
		{"less than nothing reserved", Limits{Source: full, Global: Rate{1, 5}, ReservedShare: -1}, 5, 0},
		{"share is no number", Limits{Source: full, Global: Rate{1, 5}, ReservedShare: math.NaN()}, 5, 0},
		{"a token each", Limits{Source: full, Global: Rate{1, 2}, ReservedShare: 0.01}, 2, 0},
		{"a token each, the other way", Limits{Source: full, Global: Rate{1, 2}, ReservedShare: 0.99}, 2, 0},
		{"one token is everybody's", Limits{Source: full, Global: Rate{1, 1}, ReservedShare: 0.9}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := NewBudget(c.l)
			b.Good(0, laptop)
			if got := takes(b, 0, laptop, 10); got != c.good {
				t.Errorf("the good source got %d, want %d", got, c.good)
			}
			if got := takes(b, 0, stranger, 10); got != c.others {
				t.Errorf("the other got %d, want %d", got, c.others)
			}
		})
	}
}

func TestStrangersShareOfTwo(t *testing.T) {
	for _, share := range []float64{0.01, 0.5, 0.99} {
		b := NewBudget(Limits{Source: Rate{1000, 1000}, Global: Rate{1, 2}, ReservedShare: share})
		if got := takes(b, 0, stranger, 10); got != 1 {
			t.Errorf("share %v: a stranger got %d of 2 tokens, want 1", share, got)
		}
	}
}

// TestMillionSources checks that memory is bounded, and that spending sources are
// remembered rather than idle ones.
func TestMillionSources(t *testing.T) {
	b := NewBudget(Limits{Source: Rate{10, 32}, Global: Rate{1e9, 1 << 30}, ReservedShare: 0.1})
	if got := takes(b, 0, stranger, 100); got != 32 {
		t.Fatalf("%d, want 32", got)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for n := range uint32(1_000_000) {
		b.Take(0, spoofed(n))
	}
	for n := range uint32(1_000_000) {
		b.Good(0, spoofed(n))
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc) - int64(before.TotalAlloc); grown > 64<<10 {
		t.Errorf("a million sources took %d bytes", grown)
	}
	if got := takes(b, 0, stranger, 100); got != 0 {
		t.Errorf("the one source that spent all was forgotten: it got %d more", got)
	}
}

// TestFloodEvictsNobody sends spoofed packets when nothing is left to be had.
func TestFloodEvictsNobody(t *testing.T) {
	b := NewBudget(Limits{Source: Rate{10, 32}, Global: Rate{1, 32}})
	takes(b, 0, stranger, 32)
	for n := range uint32(200_000) {
		b.Take(0, spoofed(n))
	}
	if b.sources.find(sourceID(b.seed, stranger)) == nil {
		t.Error("packets over budget took a source's place")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b, s, n := NewBudget(DefaultLimits()), NewSeen(), uint32(0)
	if allocs := testing.AllocsPerRun(1000, func() {
		n++
		src := spoofed(n)
		b.Good(time.Duration(n), src)
		b.Take(time.Duration(n), src)
		b.Return(time.Duration(n), src)
		s.Add(uint64(n))
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestTakeAtOnce has many take from one source, and many sources from the global budget.
func TestTakeAtOnce(t *testing.T) {
	b := NewBudget(Limits{Source: Rate{1, 50}, Global: Rate{1, 120}})
	var wg sync.WaitGroup
	var one, all atomic.Int64
	for w := range uint32(8) {
		wg.Go(func() {
			one.Add(int64(takes(b, 0, laptop, 40)))
			b.Good(0, phone)
			all.Add(int64(takes(b, 0, spoofed(w), 40)))
			b.SetLimits(Limits{Source: Rate{1, 50}, Global: Rate{1, 120}})
		})
	}
	wg.Wait()
	if one.Load() > 50 || one.Load()+all.Load() != 120 {
		t.Errorf("one source got %d, the others %d; want at most 50 and 120 together", one.Load(), all.Load())
	}
}

func TestInvalidAddressIsASource(t *testing.T) {
	b := NewBudget(DefaultLimits())
	if got := takes(b, 0, netip.Addr{}, 100); got != 32 {
		t.Errorf("%d, want 32", got)
	}
}
