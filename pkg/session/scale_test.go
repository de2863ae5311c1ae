package session

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"spad/pkg/event"
)

// crowd is how many sessions the tests of this file open: more than are ended in one step.
const crowd = 3*atOnce + 7

// one is session i of the crowd. Their ends are spread over an hour and a half, in an order far from that of opening.
func one(i int) Opening {
	o := knock(fmt.Sprint("device", i%50), "ssh", fmt.Sprintf("10.1.%d.%d/32", i>>8, i&255), int64(i+1))
	o.Delegated, o.TTL = true, time.Minute+time.Duration(i*7919%crowd)*time.Second
	return o
}

func (b *bench) fill(t *testing.T) {
	t.Helper()
	for i := range crowd {
		b.mustOpen(t, one(i))
	}
}

// check compares the table and the kernel with what should be open: it says how long session i has left.
func (b *bench) check(t *testing.T, when string, left func(i int) time.Duration) {
	t.Helper()
	want := map[netip.Prefix]time.Duration{}
	for i := range crowd {
		if d := left(i); d > 0 {
			want[one(i).Source] = d
		}
	}
	list, now, err := b.List()
	if n, countErr := b.Count(); err != nil || countErr != nil || n != len(list) {
		t.Fatalf("%s: %d counted, %d listed, %v, %v", when, n, len(list), countErr, err)
	}
	if !slices.IsSortedFunc(list, func(a, b Session) int { return cmp.Compare(a.Until, b.Until) }) {
		t.Errorf("%s: the list is not in the order of the ends", when)
	}
	for _, s := range list {
		if want[s.Source] != s.Until-now {
			t.Fatalf("%s: %v has %v left, want %v", when, s.Source, s.Until-now, want[s.Source])
		}
	}
	doors, err := b.fake.Doors()
	if err != nil || len(list) != len(want) || len(doors) != len(want) {
		t.Fatalf("%s: %d sessions, %d doors, %v, want %d", when, len(list), len(doors), err, len(want))
	}
	for _, d := range doors {
		if want[d.Source] != d.TTL {
			t.Fatalf("%s: the door for %v has %v left, want %v", when, d.Source, d.TTL, want[d.Source])
		}
	}
}

// TestCrowd: whatever becomes of some of many sessions, the others keep their time, and each ends at its own.
func TestCrowd(t *testing.T) {
	b := newBench(t)
	start := b.now()
	b.fill(t)
	until := func(i int) time.Duration { return start + one(i).TTL }
	left := func(i int) time.Duration { return until(i) - b.now() }
	b.check(t, "opened", left)

	b.pass(10 * time.Second)
	for i := 0; i < crowd; i += 5 {
		o := one(i)
		o.TTL, o.TimeMS = 3*time.Hour, crowd+1
		b.mustOpen(t, o)
	}
	renewed := b.now() + 3*time.Hour
	until = func(i int) time.Duration {
		if i%5 == 0 {
			return renewed
		}
		return start + one(i).TTL
	}
	b.check(t, "every fifth renewed", left)

	for i := 1; i < crowd; i += 5 {
		o := one(i)
		closed, err := b.Close(Selection{Device: o.Device, Service: o.Service, Source: o.Source, TimeMS: crowd + 1}, "knock")
		if err != nil || len(closed) != 1 || closed[0].Source != o.Source {
			t.Fatalf("closed %v, %v", closed, err)
		}
	}
	remaining := until
	until = func(i int) time.Duration {
		if i%5 == 1 {
			return 0
		}
		return remaining(i)
	}
	b.check(t, "every fifth closed", left)

	b.restart(t, "boot-1", rules, all)
	b.check(t, "restored", left)

	for range 5 {
		b.pass(15 * time.Minute)
		for range crowd/atOnce + 1 { // expiry ends some at once
			if _, err := b.Count(); err != nil {
				t.Fatal(err)
			}
		}
		b.check(t, fmt.Sprintf("after %v", b.now()-start), left)
	}
	b.pass(3 * time.Hour)
	b.restart(t, "boot-1", rules, all)
	b.check(t, "long after", func(int) time.Duration { return 0 })
}

// TestOrderOfExpiry: sessions end in the order of their ends, also those that were renewed, or cut, in between.
func TestOrderOfExpiry(t *testing.T) {
	b := newBench(t)
	for i := range 40 {
		o := one(i)
		o.TTL = time.Duration(40-i) * time.Minute
		b.mustOpen(t, o)
	}
	late := one(39) // was the first to end
	late.TTL, late.TimeMS = 50*time.Minute, 1000
	b.mustOpen(t, late)
	short := func(s Session) time.Duration {
		if s.Source == one(0).Source { // was the last
			return 90 * time.Second
		}
		return time.Hour
	}
	if err := b.Retain(short, "expiry"); err != nil {
		t.Fatal(err)
	}
	want := []int{0}
	for i := 38; i > 0; i-- {
		want = append(want, i)
	}
	want = append(want, 39)
	b.kinds()
	for range 51 {
		b.pass(time.Minute)
		if _, err := b.Count(); err != nil {
			t.Fatal(err)
		}
		for len(b.events) > 0 {
			e := <-b.events
			if e.Kind != event.Expired || len(want) == 0 || e.Source != one(want[0]).Source.Addr().String() {
				t.Fatalf("%s %s, want the end of %v", e.Kind, e.Source, want)
			}
			want = want[1:]
		}
	}
	if len(want) > 0 {
		t.Errorf("not ended: %v", want)
	}
}

// A failed reload of many sessions changes neither them nor when they end.
func TestCrowdReload(t *testing.T) {
	b := newBench(t)
	start := b.now()
	b.fill(t)
	left := func(i int) time.Duration { return start + one(i).TTL - b.now() }
	half := func(s Session) time.Duration { return 20 * time.Minute }
	b.fake.FailNext(errors.New("refused"))
	if err := b.Reload(rules, half); err == nil {
		t.Fatal("no error")
	}
	b.check(t, "after the failure", left)
	if err := b.Reload(rules, half); err != nil {
		t.Fatal(err)
	}
	b.check(t, "cut", func(i int) time.Duration { return min(left(i), 20*time.Minute) })
	none := func(s Session) time.Duration {
		if s.Device == "device7" {
			return 0
		}
		return time.Hour
	}
	if err := b.Retain(none, "operator"); err != nil {
		t.Fatal(err)
	}
	b.check(t, "one device gone", func(i int) time.Duration {
		if i%50 == 7 {
			return 0
		}
		return min(left(i), 20*time.Minute)
	})
	if closed, err := b.Close(Selection{All: true}, "operator"); err != nil || len(closed) != crowd-crowd/50 {
		t.Errorf("closed %d of %d, %v", len(closed), crowd, err)
	}
	b.check(t, "all closed", func(int) time.Duration { return 0 })
}

// TestFull: nobody has more sessions than there can be, and who has may still renew and close them.
func TestFull(t *testing.T) {
	table := New(Options{Backend: idle{}, File: t.TempDir() + "/sessions", BootID: "boot", Now: func() time.Duration { return time.Hour }})
	if table.limits != (limits{MaxSessions, MaxOwn, MaxDelegated}) {
		t.Error("the table has other limits than it says")
	}
	table.limits = limits{all: 70, own: 10, delegated: 20}
	if err := table.Start(rules, all); err != nil {
		t.Fatal(err)
	}
	open := func(o Opening, i int) error {
		o.Source = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		_, err := table.open(o)
		return err
	}
	fixed := Opening{Device: "phone", Key: "k", Service: "ssh", TTL: time.Hour, Fixed: true}
	delegated := Opening{Device: "web", Key: "k", Service: "ssh", TTL: time.Hour, Delegated: true}
	remote := Opening{Key: "pin", By: "remote web", Service: "ssh", TTL: time.Hour}
	operator := Opening{Service: "ssh", TTL: time.Hour}
	next := 0
	for _, c := range []struct {
		name string
		o    Opening
		most int
	}{{"of one device", fixed, 10}, {"of a delegate", delegated, 20}, {"of a remote", remote, 20}, {"in all", operator, 20}} {
		first := next
		for range c.most {
			if err := open(c.o, next); err != nil {
				t.Fatalf("%s, number %d: %v", c.name, next-first, err)
			}
			next++
		}
		if err := open(c.o, next); !errors.Is(err, ErrFull) {
			t.Errorf("%s: one more than %d: %v", c.name, c.most, err)
		}
		if err := open(c.o, first); err != nil {
			t.Errorf("%s: a renewal: %v", c.name, err)
		}
	}
	if n := table.len(); n != 70 {
		t.Errorf("%d sessions, want 70", n)
	}
	if err := table.end("operator", table.selected(Selection{Device: "phone", Service: "ssh", Own: true})...); err != nil {
		t.Fatal(err)
	}
	if err := open(fixed, next); err != nil {
		t.Errorf("where there is room again: %v", err)
	}
	if err := table.file.close(); err != nil {
		t.Error(err)
	}
}
