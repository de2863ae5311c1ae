package session

import (
	"cmp"
	"errors"
	"time"

	"spad/pkg/event"
	"spad/pkg/firewall"
)

// Start puts the ruleset into the kernel together with the doors that an earlier run of this boot left open and that
// keep says may stay. It comes before Run.
func (t *Table) Start(rules firewall.Ruleset, keep func(Session) bool) error {
	earlier, err := t.file.load()
	if err != nil {
		t.log.Warn("open doors of the last run are shut", "err", err)
	}
	now := t.now()
	for _, s := range earlier {
		_, known := rules.Service(s.Service)
		// An unclean end may have left two lines of one owner: the later change counts.
		if old := t.byOwner[s.owner()]; old != nil && old.Until >= s.Until {
			continue
		} else if old != nil {
			t.forget(old)
		}
		if known && s.Until > now && fits(rules, s) && keep(*s) {
			t.remember(s)
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
	return t.file.rewrite()
}

// Reload replaces the ruleset; sessions that do not fit it, or that keep refuses, end with it, in one step. Of an error,
// nothing has changed.
func (t *Table) Reload(rules firewall.Ruleset, keep func(Session) bool) error {
	var failed error
	stopped := t.do(func() {
		gone := t.selected(func(s *Session) bool { return !fits(rules, s) || !keep(*s) })
		for _, s := range gone {
			t.forget(s)
		}
		if err := t.backend.Apply(rules, t.doors(t.now())); err != nil {
			for _, s := range gone {
				t.remember(s)
			}
			failed = err
			return
		}
		for _, s := range gone {
			t.bus.Publish(t.event(event.Closed, s, "reload"))
		}
		t.logFile(t.file.rewrite())
	})
	return cmp.Or(stopped, failed)
}

// Retain ends the sessions that keep refuses: those of a device that was removed or disabled.
func (t *Table) Retain(keep func(Session) bool) error {
	var errs error
	stopped := t.do(func() {
		for _, s := range t.selected(func(s *Session) bool { return !keep(*s) }) {
			errs = errors.Join(errs, t.end(s, event.Closed, "operator"))
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
