package flood

import (
	"math"
	"time"
)

// meter is a token bucket's rate, made ready for use.
type meter struct {
	interval time.Duration // between two tokens
	depth    time.Duration // in which an empty bucket fills; 0 lets nothing through
}

// maxDepth bounds the time that an empty bucket takes to fill, and with it all sums of times.
const maxDepth = 1 << 50 * time.Nanosecond // 13 days

func newMeter(r Rate) meter {
	if !(r.PerSecond > 0) || r.Burst <= 0 {
		return meter{}
	}
	interval := min(max(math.Ceil(float64(time.Second)/r.PerSecond), 1), float64(maxDepth))
	depth := min(interval*float64(r.Burst), float64(maxDepth))
	return meter{time.Duration(interval), time.Duration(depth)}
}

// bucket is a token bucket in one number: the time when it will be full. (This is the
// generic cell rate algorithm's theoretical arrival time.) The zero value is full.
type bucket time.Duration

// ready reports whether there is a token. A bucket that is emptier than empty, since
// the rate was another when it was emptied, starts to fill now.
func (b *bucket) ready(m meter, now time.Duration) bool {
	*b = min(*b, bucket(now+m.depth))
	return m.depth > 0 && b.next(m, now) <= now+m.depth
}

// take takes a token out, if there is one.
func (b *bucket) take(m meter, now time.Duration) bool {
	if !b.ready(m, now) {
		return false
	}
	*b = bucket(b.next(m, now))
	return true
}

// next is when the bucket would be full if a token were taken out now.
func (b *bucket) next(m meter, now time.Duration) time.Duration {
	return max(time.Duration(*b), now) + m.interval
}

// give puts a token back.
func (b *bucket) give(m meter) { *b -= bucket(m.interval) }
