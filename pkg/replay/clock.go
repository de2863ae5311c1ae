package replay

import (
	"sync"
	"time"
)

// clock is the knock clock, in milliseconds since 1970: it never steps back. It is
// safe for concurrent use.
type clock struct {
	system func() time.Time
	mono   func() time.Duration

	mu   sync.Mutex
	base int64         // what the clock showed
	at   time.Duration // when the monotonic clock showed this
}

// newClock starts the clock at the later of the system clock and saved. A nil system
// or mono is the real one.
func newClock(system func() time.Time, mono func() time.Duration, saved int64) *clock {
	if system == nil {
		system = time.Now
	}
	if mono == nil {
		began := time.Now()
		mono = func() time.Duration { return time.Since(began) }
	}
	return &clock{system: system, mono: mono, base: within(max(saved, system().UnixMilli())), at: mono()}
}

// now reads the clock.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, system := c.mono(), within(c.system().UnixMilli())
	ran := max(0, (at - c.at).Milliseconds())
	if now := within(c.base + ran); system <= now {
		return now
	}
	c.base, c.at = system, at
	return system
}

// within cuts t to what fits a packet.
func within(t int64) int64 { return min(max(t, 0), maxMS) }
