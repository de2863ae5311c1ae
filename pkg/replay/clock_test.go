package replay

import (
	"math"
	"testing"
	"time"
)

// hands are a system and a monotonic clock that a test moves.
type hands struct {
	system int64 // ms
	mono   time.Duration
}

func (h *hands) clock(saved int64) *clock {
	return newClock(func() time.Time { return time.UnixMilli(h.system) }, func() time.Duration { return h.mono }, saved)
}

func TestClock(t *testing.T) {
	type step struct {
		name         string
		system, mono int64 // moved by, in ms
		want         int64
	}
	for _, c := range []struct {
		name          string
		system, saved int64
		steps         []step
	}{
		{"starts with the system", 5000, 1000, []step{{"at once", 0, 0, 5000}, {"runs", 10, 10, 5010}}},
		{"starts with what was saved", 1000, 5000, []step{{"at once", 0, 0, 5000}, {"runs", 10, 10, 5010}}},
		{"system goes back", 5000, 0, []step{{"to 1970", -5000, 7, 5007}, {"runs", 10, 10, 5017}}},
		{"system goes forward", 5000, 0, []step{{"a year", 1 << 35, 3, 5000 + 1<<35}, {"and back", -1 << 35, 5, 5005 + 1<<35}}},
		{"system catches up", 1000, 5000, []step{{"behind", 3999, 0, 5000}, {"ahead", 11, 4, 5010}}},
		{"before 1970", -99, 0, []step{{"at once", 0, 0, 0}, {"runs", 10, 10, 10}}},
		{"beyond 48 bits", maxMS + 5, 0, []step{{"at once", 0, 0, maxMS}, {"runs", 10, 10, maxMS}}},
		{"saved at the end of time", 1000, maxMS, []step{{"at once", 0, 0, maxMS}, {"runs", 10, 10, maxMS}}},
		{"monotonic clock goes back", 1000, 5000, []step{{"by 3", 0, -3, 5000}, {"and on", 0, 4, 5001}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &hands{system: c.system}
			k := h.clock(c.saved)
			for _, s := range c.steps {
				h.system += s.system
				h.mono += time.Duration(s.mono) * time.Millisecond
				if got := k.now(); got != s.want {
					t.Errorf("%s: %d, want %d", s.name, got, s.want)
				}
			}
		})
	}
}

func TestClockWithoutHandsIsTheRealOne(t *testing.T) {
	before := time.Now().UnixMilli()
	k := newClock(nil, nil, 0)
	if got, after := k.now(), time.Now().UnixMilli(); got < before || got > after+1 {
		t.Errorf("now is %d, want %d to %d", got, before, after)
	}
}

// TestClockSumsFractions reads the clock often while the system clock stands still.
func TestClockSumsFractions(t *testing.T) {
	h := &hands{system: 1000}
	k := h.clock(0)
	for range 5000 {
		h.mono += 300 * time.Microsecond
		k.now()
	}
	if got := k.now(); got != 2500 {
		t.Errorf("1.5 s in steps of 0.3 ms: %d, want 2500", got)
	}
}

func TestWithin(t *testing.T) {
	for in, want := range map[int64]int64{math.MinInt64: 0, -1: 0, 0: 0, maxMS: maxMS, maxMS + 1: maxMS, math.MaxInt64: maxMS} {
		if got := within(in); got != want {
			t.Errorf("within(%d) = %d, want %d", in, got, want)
		}
	}
}
