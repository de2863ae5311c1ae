package session

import (
	"errors"
	"testing"
	"time"

	"spad/pkg/firewall"
)

func TestRevert(t *testing.T) {
	b := newBench(t)
	ended := []Session{
		b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1)),
		b.mustOpen(t, knock("closes", "ssh", "192.0.2.2/32", 2)),
		b.mustOpen(t, knock("expires", "ssh", "192.0.2.3/32", 3)),
	}
	cut := []Session{
		b.mustOpen(t, knock("laptop", "nas", "192.0.2.4/32", 4)),
		b.mustOpen(t, knock("gone", "nas", "192.0.2.5/32", 5)),
	}
	ended[2].Until = ended[2].Since + time.Second
	without := rules
	without.Services = rules.Services[1:]
	if err := b.Reload(without, func(Session) time.Duration { return 20 * time.Second }); err != nil {
		t.Fatal(err)
	}
	b.pass(10 * time.Second)
	for _, sel := range []Selection{{Device: "closes", Service: "ssh", TimeMS: 100}, {Device: "gone", Service: "nas"}} {
		if _, err := b.Close(sel, "test"); err != nil {
			t.Fatal(err)
		}
	}
	b.kinds()
	if err := b.Revert(rules, all, ended, cut); err != nil {
		t.Fatal(err)
	}
	check(t, "ended by the reload", b.open("ssh", "192.0.2.1"), "192.0.2.1")
	check(t, "closed by its device since", b.open("ssh", "192.0.2.2"), "")
	check(t, "its time is over", b.open("ssh", "192.0.2.3"), "")
	check(t, "cut by the reload", b.open("nas", "192.0.2.4"), "192.0.2.4")
	check(t, "shut by an operator since", b.open("nas", "192.0.2.5"), "")
	check(t, "events", b.kinds(), "restored")
	list, _, _ := b.List()
	for _, s := range list {
		for _, old := range append(ended, cut...) {
			if s.ID == old.ID && s.Until != old.Until {
				t.Errorf("%s of %s ends at %v, before it was %v", s.Service, s.Device, s.Until, old.Until)
			}
		}
	}
	if len(list) != 2 {
		t.Errorf("open: %+v", list)
	}
}

// A ruleset that the firewall refuses changes nothing, and nothing comes back.
func TestRevertRefused(t *testing.T) {
	b := newBench(t)
	s := b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1))
	if err := b.Reload(firewall.Ruleset{Services: rules.Services[1:], Mark: rules.Mark, KnockPort: rules.KnockPort}, all); err != nil {
		t.Fatal(err)
	}
	b.fake.FailNext(errors.New("refused"))
	if err := b.Revert(rules, all, []Session{s}, nil); err == nil {
		t.Error("no error")
	}
	if list, _, _ := b.List(); len(list) != 0 {
		t.Errorf("open: %+v", list)
	}
}
