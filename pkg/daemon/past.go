package daemon

import (
	"slices"
	"sync"
	"time"

	"spad/pkg/control"
)

// What is remembered of knocks. One takes about 250 bytes.
const (
	pastFresh    = 1024 // knocks that proved who sent them, and that nobody sent them before
	pastDoubtful = 256  // packets that anybody may have recorded and sent again, and such
	pastShare    = 64   // of one device in each, so that no device makes all the others forgotten
)

// past is the last knocks that name an enrolled device. Packets that prove nobody never get here, and what a stranger can
// send again is kept apart: he can't make a device's own knocks forgotten.
type past struct {
	fresh, doubtful ring
}

func newPast() *past {
	return &past{fresh: ring{size: pastFresh}, doubtful: ring{size: pastDoubtful}}
}

// of returns the knocks that pick wants, the latest first.
func (p *past) of(pick func(control.Knock) bool) []control.Knock {
	all := append(p.fresh.all(pick), p.doubtful.all(pick)...)
	slices.SortStableFunc(all, func(a, b control.Knock) int { return b.Time.Compare(a.Time) })
	return all
}

// ring is a bounded list, the oldest first. It is a slice in order rather than a circle, since what goes is often in the
// middle: adding to a full one takes 1.2 µs, see BenchmarkPast.
type ring struct {
	size int

	mu   sync.Mutex
	list []*control.Knock
	own  map[string]int // by device, how many in list
}

// add remembers a knock. One that is like the last of its device is counted with it.
func (r *ring) add(k control.Knock) {
	k.Count = 1
	r.mu.Lock()
	defer r.mu.Unlock()
	of := func(other *control.Knock) bool { return other.Device == k.Device }
	if r.own[k.Device] > 0 {
		latest := len(r.list) - 1
		for !of(r.list[latest]) {
			latest--
		}
		if alike(*r.list[latest], k) {
			k.Count += r.list[latest].Count
			r.drop(latest)
		}
	}
	switch {
	case r.own[k.Device] >= pastShare:
		r.drop(slices.IndexFunc(r.list, of))
	case len(r.list) >= r.size:
		r.drop(0)
	}
	if r.own == nil {
		r.own = map[string]int{}
	}
	r.list = append(r.list, &k)
	r.own[k.Device]++
}

func (r *ring) drop(i int) {
	name := r.list[i].Device
	r.list = slices.Delete(r.list, i, i+1)
	if r.own[name]--; r.own[name] == 0 {
		delete(r.own, name)
	}
}

// alike says whether two knocks differ in their time alone.
func alike(a, b control.Knock) bool {
	a.Time, a.Count = time.Time{}, 0
	b.Time, b.Count = time.Time{}, 0
	return a == b
}

func (r *ring) all(pick func(control.Knock) bool) (list []control.Knock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.list {
		if pick(*k) {
			list = append(list, *k)
		}
	}
	return list
}
