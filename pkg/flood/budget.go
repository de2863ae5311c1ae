package flood

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	sourcePlaces = 1 << 15 // 512 KiB
	goodPlaces   = 1 << 12 // 64 KiB
	// goodFor is how long a source counts as one that knocked well lately.
	goodFor = 24 * time.Hour
)

// Budget decides for which packets public-key work is done. It is safe for concurrent
// use and allocates nothing after NewBudget.
//
// It remembers 32,768 sources. When four fall into one place, the one whose bucket is
// nearest to full is lost, and has a full bucket when it comes back; who sends from
// ever new (spoofed) addresses thus escapes the limit per source, but not the global one.
// It remembers 4,096 sources that knocked well, each for a day; when there are more,
// the one that knocked longest ago is lost, and shares the common part.
type Budget struct {
	seed maphash.Seed

	mu                         sync.Mutex // one is enough: see BenchmarkTake
	perSource, common, reserve meter
	commonLeft, reserveLeft    bucket
	sources                    table[bucket]
	good                       table[time.Duration] // until when
}

// NewBudget returns a budget with all buckets full.
func NewBudget(l Limits) *Budget {
	b := &Budget{
		seed:    maphash.MakeSeed(),
		sources: newTable[bucket](sourcePlaces),
		good:    newTable[time.Duration](goodPlaces),
	}
	b.SetLimits(l)
	return b
}

// SetLimits changes the limits. What was taken stays taken.
func (b *Budget) SetLimits(l Limits) {
	common, reserve := l.split()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.perSource, b.common, b.reserve = newMeter(l.Source), newMeter(common), newMeter(reserve)
}

// Take reports whether public-key work may be done now for a packet from src, and if
// so takes it off the budgets. A refusal costs the source nothing.
func (b *Budget) Take(now time.Duration, src netip.Addr) bool {
	id := sourceID(b.seed, src)
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.sources.find(id); e != nil {
		return e.value.ready(b.perSource, now) && b.takeGlobal(now, id) && e.value.take(b.perSource, now)
	}
	if b.perSource.depth == 0 || !b.takeGlobal(now, id) {
		return false // and no place is taken: a flood over budget evicts nobody
	}
	return b.sources.place(id).value.take(b.perSource, now)
}

// takeGlobal takes a token for id. Good sources use the reserve first, so that Return
// knows where to put it back.
func (b *Budget) takeGlobal(now time.Duration, id uint64) bool {
	return b.isGood(now, id) && b.reserveLeft.take(b.reserve, now) || b.commonLeft.take(b.common, now)
}

// isGood reports whether the source knocked well lately.
func (b *Budget) isGood(now time.Duration, id uint64) bool {
	e := b.good.find(id)
	return e != nil && now < e.value
}

// Return gives back what Take took for src, when the work was not done after all. A
// good source's token goes back to the reserve, so that recordings sent again in its
// name can't drain it.
func (b *Budget) Return(now time.Duration, src netip.Addr) {
	id := sourceID(b.seed, src)
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.sources.find(id); e != nil {
		e.value.give(b.perSource)
	}
	if b.isGood(now, id) {
		b.reserveLeft.give(b.reserve)
	} else {
		b.commonLeft.give(b.common)
	}
}

// Good notes that src knocked well: for a day it may use the reserved part.
func (b *Budget) Good(now time.Duration, src netip.Addr) {
	id := sourceID(b.seed, src)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.good.place(id).value = now + goodFor
}
