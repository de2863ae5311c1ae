package flood

import (
	"hash/maphash"
	"sync"
)

// Seen remembers the gate values of the packets of late, so that the same packet is
// worked on once. It is safe for concurrent use and allocates nothing after NewSeen.
//
// It holds 65,536 values, 26 seconds' worth of the default global budget. When four
// fall into one place, the one put in first is lost; its packet, sent again, costs
// public-key work again, within the budget, and is refused for its spent time.
type Seen struct {
	seed maphash.Seed

	mu    sync.Mutex
	turn  int64
	table table[int64]
}

const seenPlaces = 1 << 16 // 1 MiB

// NewSeen returns an empty table.
func NewSeen() *Seen {
	return &Seen{seed: maphash.MakeSeed(), table: newTable[int64](seenPlaces)}
}

// Add puts a gate value in. It reports false if it was there: of several callers with
// the same value one gets true.
func (s *Seen) Add(gate uint64) bool {
	id := gateID(s.seed, gate)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.find(id) != nil {
		return false
	}
	s.turn++
	s.table.place(id).value = s.turn
	return true
}
