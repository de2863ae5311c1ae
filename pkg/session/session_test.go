package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/event"
	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

var rules = firewall.Ruleset{
	Services: []firewall.Service{
		{Name: "ssh", Open: []firewall.Ports{{Proto: firewall.TCP, First: 22, Last: 22}}},
		{Name: "nas", Open: []firewall.Ports{{Proto: firewall.TCP, First: 80, Last: 80}}, IPv6Prefix: 64},
	},
	KnockPort: 4000, Mark: 1 << 20,
}

// bench is a table on a fake firewall and a clock that the test turns.
type bench struct {
	*Table
	fake   *firewalltest.Fake
	clock  atomic.Int64 // nanoseconds
	events <-chan event.Event
	dir    string
}

func (b *bench) now() time.Duration   { return time.Duration(b.clock.Load()) }
func (b *bench) pass(d time.Duration) { b.clock.Add(int64(d)) }

func all(Session) time.Duration { return 1000 * time.Hour }

func newBench(t *testing.T) *bench {
	b := &bench{dir: t.TempDir()}
	b.pass(time.Hour)
	epoch := time.Unix(1_700_000_000, 0)
	b.fake = firewalltest.NewFake(func() time.Time { return epoch.Add(b.now()) })
	b.boot(t, "boot-1", rules, all)
	return b
}

// boot starts a table over the same folder and kernel, like a restart of the daemon.
func (b *bench) boot(t *testing.T, bootID string, r firewall.Ruleset, limit Limit) {
	t.Helper()
	bus := event.NewBus(nil)
	b.events, _ = bus.Subscribe(100)
	fake := b.fake
	b.Table = New(Options{
		Backend: fake, Bus: bus, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		File: filepath.Join(b.dir, "sessions"), BootID: bootID, Now: b.now,
	})
	if err := b.Start(r, limit); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	table, done := b.Table, make(chan error)
	go func() { done <- table.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := fake.Misuse(); err != nil {
			t.Error(err)
		}
	})
}

func (b *bench) restart(t *testing.T, bootID string, r firewall.Ruleset, limit Limit) {
	t.Helper()
	b.fake = b.fake.Reopen()
	b.boot(t, bootID, r, limit)
}

func knock(device, service, source string, ms int64) Opening {
	return Opening{
		Device: device, Service: service, Source: netip.MustParsePrefix(source), TTL: time.Minute, By: "knock", TimeMS: ms,
	}
}

func (b *bench) mustOpen(t *testing.T, o Opening) Session {
	t.Helper()
	s, err := b.Open(o)
	if err != nil {
		t.Fatalf("open %+v: %v", o, err)
	}
	return s
}

// open lists which of the addresses find the service open.
func (b *bench) open(service string, addrs ...string) string {
	var found []string
	for _, a := range addrs {
		if b.fake.IsOpen(service, netip.MustParseAddr(a)) {
			found = append(found, a)
		}
	}
	return strings.Join(found, " ")
}

func (b *bench) kinds() string {
	var kinds []string
	for {
		select {
		case e := <-b.events:
			kinds = append(kinds, string(e.Kind))
		default:
			return strings.Join(kinds, " ")
		}
	}
}

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestOpenRenewExpire(t *testing.T) {
	b := newBench(t)
	first := b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1))
	check(t, "opened", b.open("ssh", "192.0.2.1", "192.0.2.2"), "192.0.2.1")
	b.pass(50 * time.Second)
	again := b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 2))
	if again.ID != first.ID || again.Since != first.Since || again.Until != b.now()+time.Minute {
		t.Errorf("a renewal is another session: %+v, was %+v", again, first)
	}
	b.pass(59 * time.Second)
	check(t, "renewed", b.open("ssh", "192.0.2.1"), "192.0.2.1")
	b.pass(time.Second)
	list, _, err := b.List()
	if err != nil || len(list) != 0 {
		t.Errorf("after its time: %v, %v", list, err)
	}
	check(t, "expired", b.open("ssh", "192.0.2.1"), "")
	check(t, "events", b.kinds(), "opened renewed expired")
}

func TestRoam(t *testing.T) {
	b := newBench(t)
	b.mustOpen(t, knock("phone", "ssh", "192.0.2.1/32", 1))
	b.mustOpen(t, knock("phone", "ssh", "2001:db8::1/128", 2))
	check(t, "families do not evict each other", b.open("ssh", "192.0.2.1", "2001:db8::1"), "192.0.2.1 2001:db8::1")
	b.mustOpen(t, knock("phone", "ssh", "192.0.2.2/32", 3))
	check(t, "moved", b.open("ssh", "192.0.2.1", "192.0.2.2", "2001:db8::1"), "192.0.2.2 2001:db8::1")

	if _, err := b.Open(knock("phone", "ssh", "192.0.2.1/32", 2)); !errors.Is(err, ErrStale) {
		t.Errorf("an older knock moved it back: %v", err)
	}
	if s, err := b.Open(knock("phone", "ssh", "192.0.2.2/32", 2)); err != nil || s.ChangedMS != 3 {
		t.Errorf("an overtaken retry of the same source: %+v, %v", s, err)
	}
	check(t, "at the end", b.open("ssh", "192.0.2.1", "192.0.2.2"), "192.0.2.2")
	check(t, "events", b.kinds(), "opened opened moved")
}

func TestFixed(t *testing.T) {
	b := newBench(t)
	for i, source := range []string{"192.0.2.1/32", "192.0.2.2/32"} {
		o := knock("laptop", "ssh", source, int64(i+1))
		o.Fixed = true
		b.mustOpen(t, o)
	}
	check(t, "without roaming", b.open("ssh", "192.0.2.1", "192.0.2.2"), "192.0.2.1 192.0.2.2")
	if closed, err := b.Close(Selection{Device: "laptop", Service: "ssh", Own: true}, "knock"); err != nil || len(closed) != 2 {
		t.Errorf("closed %v, %v", closed, err)
	}
}

// Two devices behind one address share a door of the kernel; it lasts as long as the longer session.
func TestSharedAddress(t *testing.T) {
	b := newBench(t)
	long := knock("laptop", "ssh", "192.0.2.1/32", 1)
	long.TTL = time.Hour
	b.mustOpen(t, long)
	b.mustOpen(t, knock("phone", "ssh", "192.0.2.1/32", 1))
	b.mustOpen(t, knock("phone", "nas", "192.0.2.1/32", 2))
	b.mustOpen(t, knock("phone", "ssh", "192.0.2.10/32", 3)) // phone leaves the shared address
	check(t, "one left", b.open("ssh", "192.0.2.1", "192.0.2.10"), "192.0.2.1 192.0.2.10")
	b.mustOpen(t, knock("phone", "ssh", "192.0.2.1/32", 4))
	b.pass(2 * time.Minute)
	check(t, "the longer session holds the door", b.open("ssh", "192.0.2.1"), "192.0.2.1")

	b.mustOpen(t, knock("phone", "ssh", "192.0.2.1/32", 5))
	closed, err := b.Close(Selection{Device: "laptop", Service: "ssh", Own: true}, "knock")
	if err != nil || len(closed) != 1 {
		t.Fatalf("close: %v, %v", closed, err)
	}
	check(t, "the other device's stays", b.open("ssh", "192.0.2.1"), "192.0.2.1")
	b.pass(time.Minute)
	check(t, "for its own time", b.open("ssh", "192.0.2.1"), "")
}

func TestDelegated(t *testing.T) {
	b := newBench(t)
	for i, source := range []string{"192.0.2.1/32", "192.0.2.2/32"} {
		o := knock("web", "ssh", source, int64(i+1))
		o.Delegated = true
		b.mustOpen(t, o)
	}
	b.mustOpen(t, knock("web", "ssh", "198.51.100.1/32", 3))
	check(t, "side by side", b.open("ssh", "192.0.2.1", "192.0.2.2", "198.51.100.1"), "192.0.2.1 192.0.2.2 198.51.100.1")
	if _, err := b.Close(Selection{Device: "web", Service: "ssh", Own: true}, "knock"); err != nil {
		t.Fatal(err)
	}
	own := Selection{Device: "web", Service: "ssh", Own: true, Source: netip.MustParsePrefix("192.0.2.2/32")}
	check(t, "its own", b.open("ssh", "192.0.2.1", "192.0.2.2", "198.51.100.1"), "192.0.2.1 192.0.2.2")
	sel := Selection{Device: "web", Service: "ssh", Source: netip.MustParsePrefix("192.0.2.1/32")}
	if _, err := b.Close(sel, "knock"); err != nil {
		t.Fatal(err)
	}
	check(t, "the one named", b.open("ssh", "192.0.2.1", "192.0.2.2"), "192.0.2.2")
	if _, err := b.Close(own, "knock"); err != nil {
		t.Fatal(err)
	}
	check(t, "the delegate closes from the address it had named", b.open("ssh", "192.0.2.2"), "")
}

func TestClose(t *testing.T) {
	b := newBench(t)
	s := b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1))
	b.mustOpen(t, knock("laptop", "nas", "2001:db8::/64", 2))
	b.mustOpen(t, Opening{Service: "ssh", Source: netip.MustParsePrefix("192.0.2.7/32"), TTL: time.Minute, By: "operator"})
	for _, step := range []struct {
		name string
		sel  Selection
		want int
	}{
		{"nothing named", Selection{}, 0},
		{"another id", Selection{ID: "ffffffff0"}, 0},
		{"by id", Selection{ID: s.ID}, 1},
		{"again", Selection{ID: s.ID}, 0},
		{"by service", Selection{Service: "nas"}, 1},
		{"all", Selection{All: true}, 1},
	} {
		closed, err := b.Close(step.sel, "operator")
		if err != nil || len(closed) != step.want {
			t.Errorf("%s: closed %d, %v, want %d", step.name, len(closed), err, step.want)
		}
	}
	if doors, _ := b.fake.Doors(); len(doors) != 0 {
		t.Errorf("doors are left: %v", doors)
	}
}

// A close that arrives after a later knock shuts nothing.
func TestCloseOvertaken(t *testing.T) {
	b := newBench(t)
	b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 5))
	sel := Selection{Device: "laptop", Service: "ssh", Own: true, TimeMS: 4}
	if closed, err := b.Close(sel, "knock"); !errors.Is(err, ErrStale) || len(closed) != 0 {
		t.Errorf("closed %v, %v", closed, err)
	}
	check(t, "still open", b.open("ssh", "192.0.2.1"), "192.0.2.1")
	if s, err := b.Open(knock("laptop", "ssh", "192.0.2.1/32", 4)); err == nil {
		t.Errorf("an open that the close overtook: %+v", s)
	}
	sel.TimeMS, sel.Source = 6, netip.MustParsePrefix("192.0.2.1/32") // as a knock from there says
	if closed, err := b.Close(sel, "knock"); err != nil || len(closed) != 1 {
		t.Errorf("closed %v, %v", closed, err)
	}
}

// A step that fails undoes those before it.
func TestAllOrNothing(t *testing.T) {
	broken := errors.New("no buffer space")
	for _, test := range []struct {
		name  string
		fails []error
		want  string
	}{
		{"the new door", []error{broken}, "192.0.2.1"},
		{"shutting the old one", []error{nil, broken}, "192.0.2.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.mustOpen(t, knock("phone", "ssh", "192.0.2.1/32", 1))
			b.fake.FailNext(test.fails...)
			if _, err := b.Open(knock("phone", "ssh", "192.0.2.2/32", 2)); !errors.Is(err, broken) {
				t.Fatalf("got %v", err)
			}
			check(t, "after the failure", b.open("ssh", "192.0.2.1", "192.0.2.2"), test.want)
			b.restart(t, "boot-1", rules, all)
			check(t, "after a restart", b.open("ssh", "192.0.2.1", "192.0.2.2"), test.want)
		})
	}
}

func TestShutFails(t *testing.T) {
	b := newBench(t)
	b.mustOpen(t, knock("phone", "ssh", "192.0.2.1/32", 1))
	b.fake.FailNext(errors.New("no"))
	if closed, err := b.Close(Selection{All: true}, "operator"); err == nil || len(closed) != 0 {
		t.Errorf("closed %v, %v", closed, err)
	}
	if list, _, _ := b.List(); len(list) != 1 {
		t.Errorf("a door that is still open is not listed: %v", list)
	}
	if closed, err := b.Close(Selection{All: true}, "operator"); err != nil || len(closed) != 1 {
		t.Errorf("the second try: %v, %v", closed, err)
	}
}

func TestRestart(t *testing.T) {
	b := newBench(t)
	kept := b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 7))
	b.mustOpen(t, knock("removed", "ssh", "192.0.2.2/32", 1))
	b.mustOpen(t, knock("laptop", "nas", "2001:db8::/64", 8))
	closed := b.mustOpen(t, knock("phone", "ssh", "192.0.2.3/32", 1))
	if _, err := b.Close(Selection{ID: closed.ID}, "operator"); err != nil {
		t.Fatal(err)
	}
	b.pass(20 * time.Second)
	notRemoved := func(s Session) time.Duration {
		if s.Device == "removed" {
			return 0
		}
		return time.Hour
	}
	b.restart(t, "boot-1", firewall.Ruleset{Services: rules.Services[:1], Mark: rules.Mark}, notRemoved)
	list, _, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Session{kept}, list, cmp.Comparer(func(a, b Session) bool { a.at = b.at; return a == b })); diff != "" {
		t.Error(diff)
	}
	check(t, "taken over", b.open("ssh", "192.0.2.1", "192.0.2.2", "192.0.2.3"), "192.0.2.1")
	if _, err := b.Open(knock("laptop", "ssh", "192.0.2.9/32", 6)); !errors.Is(err, ErrStale) {
		t.Errorf("the time of the last change is forgotten: %v", err)
	}
	b.pass(40 * time.Second)
	check(t, "for the time that was left", b.open("ssh", "192.0.2.1"), "")

	b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 20))
	b.restart(t, "boot-2", rules, all)
	if list, _, _ := b.List(); len(list) != 0 {
		t.Errorf("sessions of another boot: %v", list)
	}
}

// Whatever is left of the file, a restart opens no door that was not open.
func TestFileCutShort(t *testing.T) {
	b := newBench(t)
	b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1))
	b.mustOpen(t, knock("phone", "ssh", "192.0.2.2/32", 2))
	path := filepath.Join(b.dir, "sessions")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		f := file{path: filepath.Join(t.TempDir(), "cut"), bootID: "boot-1"}
		if err := os.WriteFile(f.path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		found, _ := f.load()
		for _, s := range found {
			if a := s.Source.String(); a != "192.0.2.1/32" && a != "192.0.2.2/32" {
				t.Fatalf("cut at %d: a door for %s", n, a)
			}
		}
	}
}

// A full or read-only disk opens nothing, and closing leaves no file that would bring the door back.
func TestFileNotWritable(t *testing.T) {
	b := newBench(t)
	s := b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1))
	if err := b.do(func() { b.file.f.Close() }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Close(Selection{ID: s.ID}, "operator"); err != nil {
		t.Errorf("a door must be shut even so: %v", err)
	}
	check(t, "closed", b.open("ssh", "192.0.2.1"), "")
	if _, err := os.Stat(filepath.Join(b.dir, "sessions")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stale file is still there: %v", err)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(knock("laptop", "ssh", "192.0.2.1/32", 2)); err == nil {
		t.Error("opened without a file of sessions")
	}
	check(t, "not opened", b.open("ssh", "192.0.2.1"), "")
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 3))
}

func TestReload(t *testing.T) {
	b := newBench(t)
	b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1))
	b.mustOpen(t, knock("laptop", "nas", "2001:db8::/64", 2))
	b.kinds()
	b.fake.FailNext(errors.New("refused"))
	if err := b.Reload(firewall.Ruleset{Mark: 1}, all); err == nil {
		t.Error("no error")
	}
	if list, _, _ := b.List(); len(list) != 2 {
		t.Errorf("a failed reload changed the table: %v", list)
	}
	wider := rules
	wider.Services = []firewall.Service{rules.Services[0], rules.Services[1]}
	wider.Services[1].IPv6Prefix = 128
	if err := b.Reload(wider, all); err != nil {
		t.Fatal(err)
	}
	check(t, "another prefix length", b.open("nas", "2001:db8::1"), "")
	if err := b.Retain(func(Session) time.Duration { return 5 * time.Second }, "reload"); err != nil {
		t.Fatal(err)
	}
	check(t, "cut to the limit", b.open("ssh", "192.0.2.1"), "192.0.2.1")
	if list, now, _ := b.List(); len(list) != 1 || list[0].Until-now > 5*time.Second {
		t.Errorf("over the limit: %+v", list)
	}
	if err := b.Retain(func(Session) time.Duration { return 0 }, "operator"); err != nil {
		t.Fatal(err)
	}
	check(t, "the device is gone", b.open("ssh", "192.0.2.1"), "")
	check(t, "events", b.kinds(), "closed closed")
}

func TestStopped(t *testing.T) {
	b := newBench(t)
	b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	table := New(Options{Backend: b.fake, Now: b.now, File: filepath.Join(b.dir, "other")})
	if err := table.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Open(knock("laptop", "ssh", "192.0.2.1/32", 2)); !errors.Is(err, ErrStopped) {
		t.Errorf("got %v", err)
	}
	check(t, "stopping closes nothing", b.open("ssh", "192.0.2.1"), "192.0.2.1")
}

func TestCompact(t *testing.T) {
	b := newBench(t)
	for i := range int64(2*compactAt + 10) {
		b.mustOpen(t, knock("laptop", "ssh", "192.0.2.1/32", i+1))
	}
	var lines int
	if err := b.do(func() { lines = b.file.lines }); err != nil {
		t.Fatal(err)
	}
	if lines > compactAt {
		t.Errorf("the file has %d lines for one session", lines)
	}
}
