package webhook

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"spad/pkg/event/outbox"
)

// pace is how long to wait between attempts.
type pace struct {
	least, most time.Duration // the first wait, and the longest
	asked       time.Duration // the longest that a receiver can ask for
	tell        time.Duration // between two log lines
}

var normal = pace{least: time.Second, most: 5 * time.Minute, asked: time.Hour, tell: time.Minute}

// backOff returns how long to wait after so many failures: twice as long each time, with up to a quarter more, so that many
// routers do not come back to a receiver in the same moment.
func (p pace) backOff(failures int) time.Duration {
	d := p.most
	if failures < 30 {
		d = min(p.least<<(max(failures, 1)-1), p.most)
	}
	return d + rand.N(d/4+1)
}

// downAt is how many sessions must have failed in a row for the receiver to count as down: it may dislike a single event for
// ever, which is to hold up no other session than that event's.
const downAt = 4

// state is what is known of the receiver. If it is down, one attempt at a time finds out when it is back, whatever the number
// of sessions.
type state struct {
	failing   []string      // sessions that failed since something went well, at most downAt
	downs     int           // failures since it is down
	pausing   time.Time     // nothing is sent before
	probing   chan struct{} // closed when the only attempt under way has ended; nil: all may send
	told      time.Time     // when the log was told of a failure
	untold    int           // failures since
	wasFailed bool          // it was told, so its end will be too
}

// await returns when an attempt may be made, or with the error of ctx.
func (w *Webhook) await(ctx context.Context) error {
	for {
		wait, probing, ok := w.admit(time.Now())
		if ok {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-probing:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		t.Stop()
	}
}

// admit says whether an attempt may be made now, and else what to wait for.
func (w *Webhook) admit(now time.Time) (wait time.Duration, probing <-chan struct{}, ok bool) {
	const long = time.Hour // then it is asked again, whatever there was
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.stats.Gone:
		return long, nil, false
	case now.Before(w.state.pausing):
		return w.state.pausing.Sub(now), nil, false
	case !w.stats.Down:
		return 0, nil, true
	case w.state.probing != nil:
		return long, w.state.probing, false
	}
	w.state.probing = make(chan struct{})
	return 0, nil, true
}

// settle hands a message back and learns from what became of it.
func (w *Webhook) settle(m outbox.Message, r result) {
	if r.ok() {
		w.o.Outbox.Done(m)
		if w.well() {
			w.o.Outbox.Hurry()
		}
		return
	}
	wait := w.o.pace.backOff(m.Attempt)
	if asked := min(r.after, w.o.pace.asked); asked > wait {
		wait = asked
	}
	w.failed(m, r, wait)
	w.o.Outbox.Retry(m, wait)
}

// well notes that the receiver took an event, and says whether it had not for a while.
func (w *Webhook) well() (back bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	back = w.stats.Down
	w.stats.Delivered++
	w.stats.Down = false
	w.state.failing, w.state.downs = w.state.failing[:0], 0
	w.state.release()
	if back && w.state.wasFailed {
		w.o.Log.Info("webhook delivers again", "webhook", w.o.Name, "waiting", w.o.Outbox.Stats().Waiting)
		w.state.wasFailed, w.state.told, w.state.untold = false, time.Time{}, 0
	}
	return back
}

// failed notes a failure.
func (w *Webhook) failed(m outbox.Message, r result, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.stats.Failed++
	w.state.note(m.Session)
	w.state.release()
	switch {
	case r.status == http.StatusGone:
		w.stats.Gone = true
		w.o.Log.Error("webhook's receiver says that it is gone for good (410): nothing is sent until spad reload or a restart; "+
			"events are kept, as many as fit", "webhook", w.o.Name)
		return
	case r.after > 0 && (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable):
		w.state.pausing = now.Add(min(r.after, w.o.pace.asked))
	case now.Before(w.state.pausing): // one of those that were under way when the first of them failed
	case len(w.state.failing) >= downAt:
		w.stats.Down = true
		w.state.downs++
		w.state.pausing = now.Add(w.o.pace.backOff(w.state.downs))
	}
	w.tell(m, r, wait, now)
}

// note remembers that a session failed.
func (s *state) note(session string) {
	if len(s.failing) < downAt && !slices.Contains(s.failing, session) {
		s.failing = append(s.failing, session)
	}
}

// release lets the next one try, or all.
func (s *state) release() {
	if s.probing != nil {
		close(s.probing)
		s.probing = nil
	}
}

// tell writes a line about a failure, once in a while.
func (w *Webhook) tell(m outbox.Message, r result, wait time.Duration, now time.Time) {
	if now.Sub(w.state.told) < w.o.pace.tell {
		w.state.untold++
		return
	}
	w.o.Log.Warn("webhook: an event was not taken and is tried again", "webhook", w.o.Name, "why", r.text(), "id", m.ID,
		"attempt", m.Attempt, "again_in", wait.Round(time.Second), "failures_not_logged", w.state.untold)
	w.state.told, w.state.untold, w.state.wasFailed = now, 0, true
}
