package session

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"spad/pkg/event"
	"spad/pkg/firewall"
)

// Limit says how long a session may stay open from now on; nothing or less: not at all.
type Limit func(Session) time.Duration

// Start puts the ruleset into the kernel together with the doors that an earlier run of this boot left open, as long as
// the limit lets them. It comes before Run.
func (t *Table) Start(rules firewall.Ruleset, limit Limit) error {
	earlier, err := t.file.load()
	if err != nil {
		t.log.Warn("open doors of the last run are shut", "err", err)
	}
	now, services := t.now(), rules.Index()
	for _, s := range earlier {
		if left := left(services, limit, s, now); left > 0 {
			s.Until = now + left
			t.restore(s)
		}
	}
	if err := t.backend.Apply(rules, t.doors(now)); err != nil {
		return err
	}
	t.rules = rules
	wall := time.Now()
	for _, s := range t.queue {
		e := t.event(event.Restored, s, "restart")
		e.Time, e.TTL, e.Until = wall, s.Until-now, wall.Add(s.Until-now)
		t.bus.Publish(e)
	}
	t.logFile(t.file.rewrite()) // a full disk opens nothing new, but the guard is up
	return nil
}

// restore takes a session of an earlier run over. If the file has two of one owner, the later change counts.
func (t *Table) restore(s *Session) {
	if old := t.byOwner[s.owner()]; old != nil {
		if old.ChangedMS > s.ChangedMS {
			return
		}
		t.remove(old)
	}
	t.add(s)
}

// left returns how long a session may go on with these services.
func left(services firewall.Index, limit Limit, s *Session, now time.Duration) time.Duration {
	if !fits(services, s) {
		return 0
	}
	return min(s.Until-now, limit(*s))
}

// Reload replaces the ruleset; sessions that do not fit it end with it, and those over the limit are cut to it, in one
// step. Of an error, nothing has changed. No knock may be under way.
func (t *Table) Reload(rules firewall.Ruleset, limit Limit) error {
	return t.reload(rules, limit, func() []*Session { return t.queue })
}

func (t *Table) reload(rules firewall.Ruleset, limit Limit, sessions func() []*Session) error {
	var failed error
	stopped := t.do(func() {
		now, services := t.now(), rules.Index()
		next := newIndex()
		for _, s := range sessions() {
			if left := left(services, limit, s, now); left > 0 {
				kept := *s
				kept.Until = now + left
				next.add(&kept)
			}
		}
		if failed = t.backend.Apply(rules, next.doors(now)); failed != nil {
			// A backend whose steps are not one transaction may have come further than none: back to where it was.
			failed = errors.Join(failed, t.backend.Apply(t.rules, t.doors(now)))
			return
		}
		t.told(t.index, next)
		t.rules, t.index = rules, next
		clear(t.closed)
		t.logFile(t.file.rewrite())
	})
	return cmp.Or(stopped, failed)
}

// Heal puts rules and doors back that another program took away, with the time that is left.
func (t *Table) Heal() error {
	var failed error
	stopped := t.do(func() { failed = t.backend.Apply(t.rules, t.doors(t.now())) })
	return cmp.Or(stopped, failed)
}

// Retain ends the sessions that have no right to stay, and cuts those over the limit to it. No knock may be under way.
func (t *Table) Retain(limit Limit, by string) error {
	var errs error
	stopped := t.do(func() {
		clear(t.closed)
		now := t.now()
		var gone, cut []*Session
		for _, s := range t.queue {
			switch left := limit(*s); {
			case left <= 0:
				gone = append(gone, s)
			case left < s.Until-now:
				cut = append(cut, s)
			}
		}
		for some := range slices.Chunk(gone, atOnce) {
			errs = errors.Join(errs, t.end(by, some...))
		}
		for _, s := range cut {
			errs = errors.Join(errs, t.cut(s, now+limit(*s)))
		}
	})
	return cmp.Or(stopped, errs)
}

// cut lets a session end earlier.
func (t *Table) cut(s *Session, until time.Duration) error {
	t.remove(s)
	s.Until = until
	t.add(s)
	t.logFile(t.file.put(s))
	return t.settle(t.now(), s)
}

// doors returns what the kernel should hold.
func (x *index) doors(now time.Duration) []firewall.Door {
	doors := make([]firewall.Door, 0, len(x.byPlace))
	for p := range x.byPlace {
		if door := x.door(p, now); door.TTL > 0 {
			doors = append(doors, door)
		}
	}
	return doors
}

// fits says whether a session can be open: its service is there, and its source is as wide as the service says.
func fits(services firewall.Index, s *Session) bool {
	service, ok := services[s.Service]
	return ok && service.Prefix(s.Source.Addr()) == s.Source
}
