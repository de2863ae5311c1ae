package replay

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var windows = cmp.AllowUnexported(window{}, table{})

func TestWindowJudges(t *testing.T) {
	const now, width = 1_000_000, 60_000
	used := window{floor: 900_000, spent: []int64{950_000, 990_000}, aside: []int64{910_000, 2_000_000}}
	restarted := window{floor: 900_000, start: 990_000, spent: []int64{985_000}}
	for _, c := range []struct {
		name string
		w    window
		t    int64
		want Verdict
	}{
		{"new device, now", window{}, now, Fresh},
		{"zero is never above a floor", window{}, 0, Refused},
		{"oldest in the window", window{}, now - width, Fresh},
		{"just too old", window{}, now - width - 1, ClockOff},
		{"latest in the window", window{}, now + width, Fresh},
		{"just too early", window{}, now + width + 1, ClockOff},
		{"largest time there is", window{}, maxMS, ClockOff},
		{"at the floor", used, 900_000, Refused},
		{"below the floor", used, 1, Refused},
		{"remembered", used, 990_000, Refused},
		{"between remembered ones", used, 980_000, Fresh},
		{"an old one has moved the floor", window{spent: []int64{930_000}}, 925_000, Refused},
		{"the oldest in the window has not", window{spent: []int64{940_000}}, 939_999, ClockOff},
		{"above an old one, outside", window{spent: []int64{930_000}}, 935_000, ClockOff},
		{"set aside, past", used, 910_000, Refused},
		{"set aside, future", used, 2_000_000, Refused},
		{"at the start floor", restarted, 990_000, ClockOff},
		{"below the start floor", restarted, 950_000, ClockOff},
		{"above the start floor", restarted, 990_001, Fresh},
		{"below the start floor, remembered", restarted, 985_000, Refused},
		{"below the start floor, at the own one", restarted, 900_000, Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := window{c.w.floor, c.w.start, slices.Clone(c.w.spent), slices.Clone(c.w.aside)}
			if got := c.w.judge(c.t, now, width); got != c.want {
				t.Errorf("judge(%d) = %v, want %v", c.t, got, c.want)
			}
			if diff := cmp.Diff(before, c.w, windows); diff != "" {
				t.Errorf("judging changed the window: %s", diff)
			}
		})
	}
}

func TestWindowRemembersSixtyFour(t *testing.T) {
	var w window
	for i := range int64(64) {
		w.remember(1000 - 10*i)
	}
	if w.floor != 0 || len(w.spent) != 64 {
		t.Fatalf("after 64 times: floor %d, %d remembered; want 0 and 64", w.floor, len(w.spent))
	}
	w.remember(2000)
	if w.floor != 370 || len(w.spent) != 64 || w.spent[0] != 380 {
		t.Errorf("after 65: floor %d, %d remembered from %d; want 370, 64 from 380", w.floor, len(w.spent), w.spent[0])
	}
	w.remember(375)
	if w.floor != 375 || len(w.spent) != 64 {
		t.Errorf("a 66th, lower than all: floor %d, %d remembered; want 375 and 64", w.floor, len(w.spent))
	}
}

func TestWindowSetsAsideSixteen(t *testing.T) {
	const now = 1000
	for _, c := range []struct {
		name  string
		times []int64
		lost  []int64
	}{
		{"the farthest is in the past", []int64{10, 1500}, []int64{10}},
		{"the farthest is in the future", []int64{900, 5000}, []int64{5000}},
		{"of two equally far the past one", []int64{500, 1500}, []int64{500}},
		{"all in the future", []int64{3000, 4000}, []int64{4000}},
		{"all in the past", []int64{20, 10}, []int64{10}},
		{"a new one, farthest", []int64{900, 901, 9999}, []int64{9999, 900}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w window
			for i := range int64(16 - 1) {
				w.setAside(now+i, now)
			}
			for _, s := range c.times {
				w.setAside(s, now)
			}
			if len(w.aside) != 16 || w.floor != 0 {
				t.Errorf("%d set aside, floor %d; want 16 and 0", len(w.aside), w.floor)
			}
			for _, s := range c.lost {
				if w.has(s) {
					t.Errorf("%d is still there: %v", s, w.aside)
				}
			}
		})
	}
}

func TestWindowRaise(t *testing.T) {
	w := window{floor: 10, start: 50, spent: []int64{20, 30, 40}, aside: []int64{15, 30, 99}}
	w.raise(5)
	w.raise(30)
	if diff := cmp.Diff(window{floor: 30, start: 50, spent: []int64{40}, aside: []int64{99}}, w, windows); diff != "" {
		t.Error(diff)
	}
	w.raise(1000)
	if w.floor != 1000 || len(w.spent)+len(w.aside) != 0 {
		t.Errorf("after raising above all: %+v", w)
	}
}

// TestRecordsReadTwice applies a journal's records again, as happens when a batch comes
// to stand behind a snapshot that has it already.
func TestRecordsReadTwice(t *testing.T) {
	once, twice, k := newTable(), newTable(), key{1}
	var all []record
	for i := range int64(90) {
		_, fresh := once.spend(k, 1000+i, 1000+i, 50)
		_, aside := once.spend(k, 1_000_000+i, 1000+i, 50)
		all = append(all, fresh, aside)
	}
	for _, r := range append(all, all...) {
		twice.apply(r)
	}
	twice.windows[k].aside = once.windows[k].aside // of these the nearest are kept, whatever came before
	if diff := cmp.Diff(once, twice, windows); diff != "" {
		t.Error(diff)
	}
}

// oracle is the rule in the words of the specification, slow and with maps.
type oracle struct {
	floor, start int64
	spent, aside map[int64]bool
}

func (o *oracle) spend(t, now, width int64) Verdict {
	floor := o.floor
	for s := range o.spent {
		if s < now-width {
			floor = max(floor, s)
		}
	}
	if t <= floor || o.spent[t] || o.aside[t] {
		return Refused
	}
	o.floor = floor
	if max(t-now, now-t) <= width && t > o.start {
		o.spent[t] = true
		if o.count(o.spent) > 64 {
			o.floor = o.lowest()
		}
		return Fresh
	}
	o.aside[t] = true
	if o.count(o.aside) > 16 {
		delete(o.aside, o.farthest(now))
	}
	return ClockOff
}

// count forgets what is not above the floor, as nobody asks for it, and counts the rest.
func (o *oracle) count(set map[int64]bool) int {
	for s := range set {
		if s <= o.floor {
			delete(set, s)
		}
	}
	return len(set)
}

func (o *oracle) lowest() int64 {
	low := int64(maxMS)
	for s := range o.spent {
		low = min(low, s)
	}
	return low
}

func (o *oracle) farthest(now int64) (far int64) {
	far = now
	for s := range o.aside {
		if d, best := max(s-now, now-s), max(far-now, now-far); d > best || d == best && s < far {
			far = s
		}
	}
	return far
}

// TestTableAgainstOracle spends random times, most of them near the clock and many of
// them again, and holds every verdict against the oracle's and against the promise.
func TestTableAgainstOracle(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		o := &oracle{spent: map[int64]bool{}, aside: map[int64]bool{}}
		tab, k, opened, past := newTable(), key{1}, map[int64]bool{}, []int64{1}
		now, width := int64(1_000_000), []int64{0, 50, 2000}[seed%3]
		for range 3000 {
			at := now + r.Int64N(4*width+40) - 2*width - 20
			switch r.IntN(40) {
			case 0:
				now += r.Int64N(3 * (width + 1)) // time passes
			case 1:
				now -= r.Int64N(width + 1) // a restart with an older clock
			case 2:
				floor := now - r.Int64N(width+1)
				tab.apply(record{kind: kindDevice, key: k, floor: floor})
				o.floor = max(o.floor, floor)
			case 3:
				tab.startFloor(nil, now)
				o.start = max(o.start, now)
				if tab.windows[k] == nil {
					o.start = 0
				}
			case 4, 5, 6, 7, 8, 9:
				at = past[r.IntN(len(past))]
			}
			past = append(past, at)
			got, _ := tab.spend(k, at, now, width)
			if want := o.spend(at, now, width); got != want {
				t.Fatalf("seed %d: spend(%d) at %d is %v, want %v; oracle %+v", seed, at, now, got, want, o)
			}
			if got == Fresh && opened[at] {
				t.Fatalf("seed %d: %d opened twice", seed, at)
			}
			opened[at] = opened[at] || got == Fresh
		}
		if w := tab.windows[k]; len(w.spent) > 64 || len(w.aside) > 16 {
			t.Fatalf("seed %d: %d remembered, %d set aside", seed, len(w.spent), len(w.aside))
		}
		if len(opened) < 50 {
			t.Fatalf("seed %d: only %d times tried", seed, len(opened))
		}
	}
}
