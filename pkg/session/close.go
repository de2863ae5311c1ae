package session

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"spad/pkg/event"
)

// tick is the longest the table sleeps while a door is open: go timers stand still in suspend, and so do the kernel's
// timeouts, so that after a wake-up what is due is shut within it.
const tick = time.Second

// atOnce is how many doors are shut in one step: the kernel takes some milliseconds for them.
const atOnce = 1000

// idleTick is how long it sleeps when nothing is open.
const idleTick = time.Hour

// Close shuts the doors of the selected sessions, unless another session needs them, and returns the sessions. That
// there are none is no error. A session whose door can't be shut stays in the table, and the error says why; so does,
// with ErrStale, one that a packet later than the selection's has changed.
func (t *Table) Close(sel Selection, by string) ([]Session, error) {
	var closed []Session
	var errs error
	stopped := t.do(func() {
		if sel.TimeMS != 0 {
			r := right{sel.Device, sel.Key, sel.Service}
			t.closed[r] = max(t.closed[r], sel.TimeMS)
		}
		var fresh []*Session
		for _, s := range t.selected(sel) {
			if sel.TimeMS != 0 && sel.TimeMS < s.ChangedMS {
				errs = errors.Join(errs, ErrStale)
				continue
			}
			fresh = append(fresh, s)
		}
		for some := range slices.Chunk(fresh, atOnce) {
			if err := t.end(by, some...); err != nil {
				errs = errors.Join(errs, err)
				continue
			}
			for _, s := range some {
				closed = append(closed, *s)
			}
		}
	})
	return closed, cmp.Or(stopped, errs)
}

// end shuts the doors of sessions before their time. Of an error, all of them stay in the table, though some of their
// doors may be shut.
func (t *Table) end(by string, sessions ...*Session) error {
	for _, s := range sessions {
		t.remove(s)
	}
	if err := t.settle(t.now(), sessions...); err != nil {
		for _, s := range sessions {
			t.add(s)
		}
		return fmt.Errorf("shutting %s: %w", name(sessions), err)
	}
	t.ended(event.Closed, by, sessions)
	return nil
}

// expire ends the sessions whose time is up, but not too many at once: knocks come in between.
func (t *Table) expire() {
	now := t.now()
	var due []*Session
	for t.len() > 0 && t.queue[0].Until <= now && len(due) < atOnce {
		due = append(due, t.queue[0])
		t.remove(t.queue[0])
	}
	if len(due) > 0 {
		t.lapsed(due...)
	}
}

// lapsed shuts the doors of sessions that were taken out because their time is up. The kernel has done so already,
// unless the machine slept.
func (t *Table) lapsed(sessions ...*Session) {
	if err := t.settle(t.now(), sessions...); err != nil {
		t.log.Warn("doors whose time is up could not be shut by the daemon; the kernel does it", "doors", name(sessions), "err", err)
	}
	t.ended(event.Expired, "", sessions)
}

// ended writes down and makes known that sessions are out of the table and the kernel.
func (t *Table) ended(why event.Kind, by string, sessions []*Session) {
	t.logFile(t.file.drop(sessions...))
	t.compact()
	for _, s := range sessions {
		t.bus.Publish(t.event(why, s, by))
	}
}

// name names doors for people.
func name(sessions []*Session) string {
	s := sessions[0]
	text := fmt.Sprintf("%q for %v", s.Service, s.Source)
	if len(sessions) > 1 {
		text += fmt.Sprintf(" and %d more", len(sessions)-1)
	}
	return text
}

// sleep returns how long the table may sleep.
func (t *Table) sleep() time.Duration {
	if t.len() == 0 {
		return idleTick
	}
	return max(min(t.queue[0].Until-t.now(), tick), time.Millisecond)
}

// logFile reports a file of sessions that can't be written. What is lost is only the take-over by the next start.
func (t *Table) logFile(err error) {
	if err != nil {
		t.log.Error("the file of sessions can't be written; a restart may not know the open doors", "err", err)
	}
}

func (t *Table) compact() {
	if t.file.lines > compactAt && t.file.lines > 2*t.len() {
		t.logFile(t.file.rewrite())
	}
}
