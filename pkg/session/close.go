package session

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"spad/pkg/event"
)

// tick is the longest the table sleeps while a door is open: go timers stand still in suspend, and so do the kernel's
// timeouts, so that after a wake-up what is due is shut within it.
const tick = time.Second

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
		for _, s := range t.selected(sel.matches) {
			if sel.TimeMS != 0 && sel.TimeMS < s.ChangedMS {
				errs = errors.Join(errs, ErrStale)
				continue
			}
			if err := t.end(s, event.Closed, by); err != nil {
				errs = errors.Join(errs, err)
				continue
			}
			closed = append(closed, *s)
		}
	})
	return closed, cmp.Or(stopped, errs)
}

func (t *Table) selected(match func(*Session) bool) []*Session {
	var found []*Session
	for _, s := range t.byOwner {
		if match(s) {
			found = append(found, s)
		}
	}
	return found
}

// end takes a session out: the table, the kernel, the file. It is the one way a door is shut.
func (t *Table) end(s *Session, why event.Kind, by string) error {
	t.forget(s)
	if err := t.settle(s.place(), t.now()); err != nil && why != event.Expired {
		t.remember(s)
		return fmt.Errorf("shutting %q for %v: %w", s.Service, s.Source, err)
	} else if err != nil {
		t.log.Warn("a door whose time is up could not be shut by the daemon; the kernel does it", "service", s.Service, "err", err)
	}
	t.logFile(t.file.drop(s))
	t.compact()
	t.bus.Publish(t.event(why, s, by))
	return nil
}

// expire ends the sessions whose time is up. Their doors are shut by the kernel already, unless the machine slept.
func (t *Table) expire() {
	now := t.now()
	if len(t.byOwner) == 0 || now < t.next {
		return
	}
	for _, s := range t.selected(func(s *Session) bool { return s.Until <= now }) {
		t.end(s, event.Expired, "")
	}
	t.next = now + idleTick
	for _, s := range t.byOwner {
		t.next = min(t.next, s.Until)
	}
}

// sleep returns how long the table may sleep.
func (t *Table) sleep() time.Duration {
	if len(t.byOwner) == 0 {
		return idleTick
	}
	return max(min(t.next-t.now(), tick), time.Millisecond)
}

// logFile reports a file of sessions that can't be written. What is lost is only the take-over by the next start.
func (t *Table) logFile(err error) {
	if err != nil {
		t.log.Error("the file of sessions can't be written; a restart may not know the open doors", "err", err)
	}
}

func (t *Table) compact() {
	if t.file.lines > compactAt && t.file.lines > 4*len(t.byOwner) {
		t.logFile(t.file.rewrite())
	}
}
