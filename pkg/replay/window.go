package replay

import "slices"

const (
	maxSpent = 64 // remembered times per device; one more and the floor rises to the lowest
	maxAside = 16 // times per device that were outside the window when they came
)

// window is what one device has spent. Its zero value is a device never seen. All
// times are milliseconds since 1970.
type window struct {
	floor int64   // everything at or below it is spent
	start int64   // the start floor: at or below it nothing is fresh, because the journal may have lost it
	spent []int64 // above the floor, ascending
	aside []int64 // above the floor, ascending; spent as well, but the floor never moves because of them
}

// judge says what time t is at knock clock now, both ends of the window included.
// It changes nothing.
func (w *window) judge(t, now, width int64) Verdict {
	switch {
	case t <= w.aged(now, width), w.has(t):
		return Refused
	case t < now-width, t > now+width, t <= w.start:
		return ClockOff
	default:
		return Fresh
	}
}

// aged returns the floor with the remembered times that are older than the window moved into it.
func (w *window) aged(now, width int64) int64 {
	floor := w.floor
	for _, t := range w.spent {
		if t >= now-width {
			break
		}
		floor = t
	}
	return floor
}

// has reports whether t is on one of the lists.
func (w *window) has(t int64) bool {
	_, spent := slices.BinarySearch(w.spent, t)
	_, aside := slices.BinarySearch(w.aside, t)
	return spent || aside
}

// raise lifts the floor to t, if t is higher, and forgets what is no longer above it.
func (w *window) raise(t int64) {
	if t <= w.floor {
		return
	}
	w.floor = t
	w.spent = above(w.spent, t)
	w.aside = above(w.aside, t)
}

// remember spends t.
func (w *window) remember(t int64) {
	w.spent = insert(w.spent, t, w.floor)
	if len(w.spent) > maxSpent {
		w.raise(w.spent[0])
	}
}

// setAside spends t without ever moving the floor. When the list is full the time
// farthest from now is dropped; of two equally far the past one, which can come near
// again only if the clock is lost.
func (w *window) setAside(t, now int64) {
	w.aside = insert(w.aside, t, w.floor)
	if len(w.aside) <= maxAside {
		return
	}
	last := len(w.aside) - 1
	if now-w.aside[0] >= w.aside[last]-now {
		w.aside = slices.Delete(w.aside, 0, 1)
	} else {
		w.aside = w.aside[:last]
	}
}

// insert puts t into the ascending list, unless it is there or not above the floor.
func insert(list []int64, t, floor int64) []int64 {
	i, found := slices.BinarySearch(list, t)
	if found || t <= floor {
		return list
	}
	return slices.Insert(list, i, t)
}

// above returns what is higher than t of an ascending list, in the same memory.
func above(list []int64, t int64) []int64 {
	i, found := slices.BinarySearch(list, t)
	if found {
		i++
	}
	return slices.Delete(list, 0, i)
}
