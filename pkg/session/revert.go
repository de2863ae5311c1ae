package session

import (
	"time"

	"spad/pkg/event"
	"spad/pkg/firewall"
)

// Revert is Reload to a ruleset that was in force before, and undoes what the reload between did to sessions, given as
// they were before it: those that it ended are open again for the rest of their time, and those that it cut, and that are
// still open, end when they did. What a device has closed since, or opened elsewhere, stays as it is.
func (t *Table) Revert(rules firewall.Ruleset, limit Limit, ended, cut []Session) error {
	return t.reload(rules, limit, func() []*Session { return t.undone(ended, cut) })
}

// undone returns copies of the sessions that there would be.
func (t *Table) undone(ended, cut []Session) []*Session {
	until := make(map[string]time.Duration, len(cut))
	for _, s := range cut {
		until[s.ID] = s.Until
	}
	all := make([]*Session, 0, len(t.queue)+len(ended))
	for _, s := range t.queue {
		kept := *s
		kept.Until = max(s.Until, until[s.ID])
		all = append(all, &kept)
	}
	for _, s := range ended {
		if t.byOwner[s.owner()] == nil && t.closed[s.owner().right] < max(s.ChangedMS, 1) {
			all = append(all, &s)
		}
	}
	return all
}

// told publishes what became of the sessions that a reload was about: those that it ended, and those it brought back.
func (t *Table) told(old, next *index) {
	for _, s := range old.queue {
		if next.byOwner[s.owner()] == nil {
			t.bus.Publish(t.event(event.Closed, s, "reload"))
		}
	}
	for _, s := range next.queue {
		if old.byOwner[s.owner()] == nil {
			t.bus.Publish(t.event(event.Restored, s, "reload"))
		}
	}
}
