package session

import (
	"cmp"
	"errors"
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
	now := t.now()
	for _, s := range earlier {
		if left := t.left(rules, limit, s, now); left > 0 {
			s.Until = now + left
			t.restore(s)
		}
	}
	if err := t.backend.Apply(rules, t.doors(now)); err != nil {
		return err
	}
	for _, s := range t.byOwner {
		e := t.event(event.Restored, s, "restart")
		e.TTL, e.Until = s.Until-now, time.Now().Add(s.Until-now)
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
		t.forget(old)
	}
	t.remember(s)
}

// left returns how long a session may go on under the rules.
func (t *Table) left(rules firewall.Ruleset, limit Limit, s *Session, now time.Duration) time.Duration {
	if !fits(rules, s) {
		return 0
	}
	return min(s.Until-now, limit(*s))
}

// Reload replaces the ruleset; sessions that do not fit it end with it, and those over the limit are cut to it, in one
// step. Of an error, nothing has changed. No knock may be under way.
func (t *Table) Reload(rules firewall.Ruleset, limit Limit) error {
	var failed error
	stopped := t.do(func() {
		now := t.now()
		before := map[*Session]time.Duration{}
		var gone []*Session
		for _, s := range t.live() {
			before[s] = s.Until
			t.forget(s)
			if left := t.left(rules, limit, s, now); left > 0 {
				s.Until = now + left
				t.remember(s)
			} else {
				gone = append(gone, s)
			}
		}
		if failed = t.backend.Apply(rules, t.doors(now)); failed != nil {
			for _, s := range gone {
				t.remember(s)
			}
			for s, until := range before {
				s.Until = until
			}
			return
		}
		clear(t.closed)
		for _, s := range gone {
			t.bus.Publish(t.event(event.Closed, s, "reload"))
		}
		t.logFile(t.file.rewrite())
	})
	return cmp.Or(stopped, failed)
}

// Retain ends the sessions that have no right to stay, and cuts those over the limit to it. No knock may be under way.
func (t *Table) Retain(limit Limit, by string) error {
	var errs error
	stopped := t.do(func() {
		clear(t.closed)
		for _, s := range t.live() {
			now := t.now()
			switch left := limit(*s); {
			case left <= 0:
				errs = errors.Join(errs, t.end(s, event.Closed, by))
			case left < s.Until-now:
				t.forget(s)
				s.Until = now + left
				t.remember(s)
				errs = errors.Join(errs, t.settle(s.place(), now))
				t.logFile(t.file.put(s))
			}
		}
	})
	return cmp.Or(stopped, errs)
}

// doors returns what the kernel should hold.
func (t *Table) doors(now time.Duration) []firewall.Door {
	doors := make([]firewall.Door, 0, len(t.byPlace))
	for p, sessions := range t.byPlace {
		door := firewall.Door{Service: p.service, Source: p.source}
		for _, s := range sessions {
			door.TTL = max(door.TTL, s.Until-now)
		}
		if door.TTL > 0 {
			doors = append(doors, door)
		}
	}
	return doors
}

// fits says whether a session can be open under the rules: its service is there, and its source is as wide as the
// service says.
func fits(rules firewall.Ruleset, s *Session) bool {
	service, ok := rules.Service(s.Service)
	return ok && service.Prefix(s.Source.Addr()) == s.Source
}
