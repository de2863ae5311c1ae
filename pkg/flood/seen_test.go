package flood

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestSeen(t *testing.T) {
	s := NewSeen()
	for _, gate := range []uint64{0, 1, 1 << 63, ^uint64(0)} {
		if !s.Add(gate) {
			t.Errorf("%#x was there before", gate)
		}
		if s.Add(gate) {
			t.Errorf("%#x was not remembered", gate)
		}
	}
}

// TestSeenForgetsTheOldest puts a million values in. Of the last few nearly all are
// there, of the first none, and a value seen again does not stay longer for it.
func TestSeenForgetsTheOldest(t *testing.T) {
	const n = 1 << 20
	s := NewSeen()
	for gate := range uint64(n) {
		s.Add(gate)
		s.Add(0)
	}
	count := func(from, to uint64) (there int) {
		for gate := from; gate < to; gate++ {
			if s.table.find(gateID(s.seed, gate)) != nil {
				there++
			}
		}
		return there
	}
	if got := count(n-4096, n); got < 4080 {
		t.Errorf("%d of the last 4096 are there", got)
	}
	if got := count(1, 4097); got != 0 {
		t.Errorf("%d of the first 4096 are there", got)
	}
	if got := count(0, n); got > seenPlaces {
		t.Errorf("%d values in %d places", got, seenPlaces)
	}
}

func TestSeenIsAtomic(t *testing.T) {
	s := NewSeen()
	var wg sync.WaitGroup
	var first atomic.Int64
	for range 8 {
		wg.Go(func() {
			for gate := range uint64(1000) {
				if s.Add(gate) {
					first.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if first.Load() != 1000 {
		t.Errorf("%d were first with 1000 values", first.Load())
	}
}
