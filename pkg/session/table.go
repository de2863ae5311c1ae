package session

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"spad/pkg/event"
	"spad/pkg/firewall"
)

// Options are the parts a Table works with.
type Options struct {
	Backend firewall.Backend
	Bus     *event.Bus
	Log     *slog.Logger
	File    string               // where sessions are kept
	BootID  string               // sessions of another boot are forgotten
	Now     func() time.Duration // CLOCK_BOOTTIME
}

// Table is the table of open doors. Its methods may be called from anywhere while Run runs; they are carried out one
// after the other by the goroutine of Run.
type Table struct {
	backend firewall.Backend
	bus     *event.Bus
	log     *slog.Logger
	now     func() time.Duration
	file    *file

	jobs    chan func()
	stopped chan struct{}

	rules  firewall.Ruleset // in force
	limits limits
	*index
	closed map[right]int64 // time of the last close: an open that it overtook comes too late
}

// New returns an empty table. Start must come first, then Run.
func New(o Options) *Table {
	t := &Table{
		backend: o.Backend, bus: o.Bus, log: o.Log, now: o.Now,
		jobs:    make(chan func()),
		stopped: make(chan struct{}),
		limits:  limits{MaxSessions, MaxOwn, MaxDelegated},
		index:   newIndex(),
		closed:  map[right]int64{},
	}
	t.file = &file{path: o.File, bootID: o.BootID, live: func() []*Session { return t.queue }}
	return t
}

// Run carries out what the other methods ask, and ends sessions when their time is up, until ctx is done. The doors
// stay as they are: stopping is not opening, nor closing.
func (t *Table) Run(ctx context.Context) error {
	defer close(t.stopped)
	timer := time.NewTimer(t.sleep())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return t.file.close()
		case job := <-t.jobs:
			job()
		case <-timer.C:
			t.expire()
		}
		timer.Reset(t.sleep())
	}
}

// String names the task.
func (t *Table) String() string { return "session table" }

// do has the goroutine of Run call f, and waits for it.
func (t *Table) do(f func()) error {
	done := make(chan struct{})
	select {
	case t.jobs <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-t.stopped:
		return ErrStopped
	}
}

// Open opens a door, renews it, or moves it here: the door is open in the kernel when it returns without an error. Of an
// error, nothing has changed. A packet that a later one for the same source overtook gets the session as it is.
func (t *Table) Open(o Opening) (Session, error) {
	var s Session
	var err error
	if stopped := t.do(func() { s, err = t.open(o) }); stopped != nil {
		return Session{}, stopped
	}
	return s, err
}

func (t *Table) open(o Opening) (Session, error) {
	now := t.now()
	s := &Session{
		ID: newID(), Device: o.Device, Key: o.Key, Service: o.Service, Source: o.Source, Delegated: o.Delegated, Fixed: o.Fixed, By: o.By,
		Since: now, Until: now + o.TTL, ChangedMS: o.TimeMS,
	}
	old := t.byOwner[s.owner()]
	if old != nil && old.Until <= now {
		t.remove(old)
		t.lapsed(old)
		old = nil
	}
	if o.TimeMS != 0 && o.TimeMS <= t.closed[s.owner().right] {
		return Session{}, ErrStale
	}
	if old != nil && o.TimeMS != 0 && o.TimeMS <= old.ChangedMS {
		if old.Source == o.Source {
			return *old, nil // an earlier try that was overtaken: what it asked for is open
		}
		return Session{}, ErrStale
	}
	if old != nil {
		s.ID, s.Since, s.ChangedMS = old.ID, old.Since, max(s.ChangedMS, old.ChangedMS)
	} else if err := t.room(s); err != nil {
		return Session{}, err
	}
	if err := t.replace(old, s, now); err != nil {
		return Session{}, fmt.Errorf("opening %q for %v: %w", o.Service, o.Source, err)
	}
	t.publishOpened(old, s, o)
	return *s, nil
}

// replace puts s in the place of old, which may be nil: on disk, then in the kernel, new door first. If a step fails,
// those before it are undone.
func (t *Table) replace(old, s *Session, now time.Duration) error {
	if err := t.file.put(s); err != nil {
		return err
	}
	if old != nil {
		t.remove(old)
	}
	t.add(s)
	err := t.settle(now, s)
	if err == nil && old != nil && old.place() != s.place() {
		err = t.settle(now, old)
	}
	if err == nil {
		t.compact()
		return nil
	}
	t.remove(s)
	if old != nil {
		t.add(old)
		t.logFile(t.file.put(old))
	} else {
		t.logFile(t.file.drop(s))
	}
	if undo := t.settle(now, s); undo != nil {
		t.log.Error("a half opened door could not be shut; the kernel ends it in time", "service", s.Service,
			"source", s.Source, "ttl", s.Until-now, "err", undo)
	}
	return err
}

// limits are how many sessions there can be.
type limits struct{ all, own, delegated int }

// room says whether there can be one more session.
func (t *Table) room(s *Session) error {
	most := t.limits.own
	if s.Delegated || s.remote() {
		most = t.limits.delegated
	}
	if t.len() >= t.limits.all {
		return fmt.Errorf("%w: %d in all, which is the most", ErrFull, t.len())
	}
	if n := len(t.held[s.holder()]); n >= most && s.holder() != (holder{}) {
		who := s.By
		if s.Device != "" {
			who = fmt.Sprintf("device %q", s.Device)
		}
		return fmt.Errorf("%w: %d by %s, which is the most for one", ErrFull, n, who)
	}
	return nil
}

// settle makes the kernel's doors at the sessions' places what the table says: open as long as the longest there, or
// shut.
func (t *Table) settle(now time.Duration, sessions ...*Session) error {
	var open, shut []firewall.Door
	for p := range places(sessions) {
		if door := t.door(p, now); door.TTL > 0 {
			open = append(open, door)
		} else {
			shut = append(shut, door)
		}
	}
	if len(open) > 0 {
		if err := t.backend.Open(open...); err != nil {
			return err
		}
	}
	if len(shut) > 0 {
		return t.backend.Shut(shut...)
	}
	return nil
}

func places(sessions []*Session) map[place]bool {
	all := make(map[place]bool, len(sessions))
	for _, s := range sessions {
		all[s.place()] = true
	}
	return all
}

// door returns what the kernel should hold at a place; nothing if no time is left.
func (x *index) door(p place, now time.Duration) firewall.Door {
	door := firewall.Door{Service: p.service, Source: p.source}
	for _, s := range x.byPlace[p] {
		door.TTL = max(door.TTL, s.Until-now)
	}
	return door
}

func (t *Table) publishOpened(old, s *Session, o Opening) {
	e := t.event(event.Opened, s, o.By)
	e.TTL = o.TTL
	e.Until = time.Now().Add(o.TTL)
	switch {
	case old == nil:
	case old.Source != s.Source:
		e.Kind, e.From = event.Moved, old.SourceText()
	default:
		e.Kind = event.Renewed
	}
	t.bus.Publish(e)
}

func (t *Table) event(k event.Kind, s *Session, by string) event.Event {
	if by == "knock" {
		by = ""
	}
	return event.Event{Kind: k, Device: s.Device, Service: s.Service, Session: s.ID, Source: s.SourceText(), By: by}
}

// List returns the open sessions, the one that ends first first, and the time they are measured by.
func (t *Table) List() ([]Session, time.Duration, error) {
	var all []Session
	var now time.Duration
	err := t.do(func() {
		t.expire()
		now = t.now()
		all = make([]Session, 0, t.len())
		for _, s := range t.queue {
			if s.Until > now {
				all = append(all, *s)
			}
		}
	})
	slices.SortFunc(all, func(a, b Session) int { return cmp.Or(cmp.Compare(a.Until, b.Until), strings.Compare(a.ID, b.ID)) })
	return all, now, err
}

// Count returns how many sessions are open.
func (t *Table) Count() (int, error) {
	n := 0
	err := t.do(func() {
		t.expire()
		n = t.len()
	})
	return n, err
}
