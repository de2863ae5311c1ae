package firewalltest_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

var fakeRules = firewall.Ruleset{
	Services: []firewall.Service{
		{Name: "ssh", Open: []firewall.Ports{{Proto: firewall.TCP, First: 22, Last: 22}}},
		{Name: "home", Open: []firewall.Ports{{Proto: firewall.UDP, First: 51820, Last: 51820}}, IPv6Prefix: 64},
	},
	KnockPort: 41372, Mark: 1 << 20, AlwaysAllow: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
}

func fakeDoor(service, source string, ttl time.Duration) firewall.Door {
	return firewall.Door{Service: service, Source: netip.MustParsePrefix(source), TTL: ttl}
}

func TestFakeDoorsExpire(t *testing.T) {
	now := time.Unix(1000, 0)
	f := firewalltest.NewFake(func() time.Time { return now })
	if err := f.Apply(fakeRules, []firewall.Door{fakeDoor("ssh", "192.0.2.1/32", time.Minute)}); err != nil {
		t.Fatal(err)
	}
	if err := f.Open(fakeDoor("home", "2001:db8:0:1::/64", 2*time.Minute), fakeDoor("ssh", "192.0.2.2/32", time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := f.Shut(fakeDoor("ssh", "192.0.2.2/32", 0)); err != nil {
		t.Fatal(err)
	}
	open := func(service, from string, want bool) {
		t.Helper()
		if got := f.IsOpen(service, netip.MustParseAddr(from)); got != want {
			t.Errorf("IsOpen(%s, %s) = %v at %v", service, from, got, now.Sub(time.Unix(1000, 0)))
		}
	}
	open("ssh", "192.0.2.1", true)
	open("ssh", "192.0.2.2", false)
	open("ssh", "192.168.1.7", true)
	open("home", "2001:db8:0:1::99", true)
	now = now.Add(time.Minute)
	open("ssh", "192.0.2.1", false)
	open("home", "2001:db8:0:1::99", true)
	got, err := f.Doors()
	if want := []firewall.Door{fakeDoor("home", "2001:db8:0:1::/64", time.Minute)}; err != nil || !cmp.Equal(got, want, cmp.Comparer(samePrefix)) {
		t.Errorf("Doors() = %v, %v; want %v", got, err, want)
	}
	next := f.Reopen()
	if err := next.Open(got...); !errors.Is(err, firewall.ErrNoRuleset) {
		t.Errorf("open before apply after a restart: %v", err)
	}
	if left, err := next.Doors(); err != nil || len(left) != 1 {
		t.Errorf("after a restart Doors() = %v, %v", left, err)
	}
	if err := f.Misuse(); err != nil {
		t.Error(err)
	}
}

// A second process finds what the first left, and each sees what the other does.
func TestFakeIsSharedByProcesses(t *testing.T) {
	first := firewalltest.NewFake(nil).Lenient()
	ssh, from := fakeDoor("ssh", "192.0.2.1/32", time.Minute), netip.MustParseAddr("192.0.2.1")
	if err := first.Apply(fakeRules, []firewall.Door{ssh}); err != nil {
		t.Fatal(err)
	}
	second := first.Reopen()
	if !second.IsOpen("ssh", from) {
		t.Error("the restart shut a door")
	}
	for range 2 { // as lenient as the first
		if err := second.Down(); err != nil {
			t.Error(err)
		}
	}
	if _, up := first.Ruleset(); up || first.IsOpen("ssh", from) {
		t.Error("the other's down is not seen")
	}
	if err := first.Open(ssh); !errors.Is(err, firewall.ErrNoRuleset) {
		t.Errorf("open after the other's down: %v", err)
	}
}

func samePrefix(a, b netip.Prefix) bool { return a == b }

func TestFakeIsStrict(t *testing.T) {
	ssh := fakeDoor("ssh", "192.0.2.1/32", time.Minute)
	for name, misuse := range map[string]func(*firewalltest.Fake) error{
		"open before apply": func(f *firewalltest.Fake) error { f.Down(); return f.Open(ssh) },
		"shut before apply": func(f *firewalltest.Fake) error { f.Down(); return f.Shut(ssh) },
		"unknown service":   func(f *firewalltest.Fake) error { return f.Open(fakeDoor("nas", "192.0.2.1/32", time.Minute)) },
		"shut unknown":      func(f *firewalltest.Fake) error { return f.Shut(fakeDoor("nas", "192.0.2.1/32", 0)) },
		"network":           func(f *firewalltest.Fake) error { return f.Open(fakeDoor("ssh", "192.0.2.0/24", time.Minute)) },
		"host bits":         func(f *firewalltest.Fake) error { return f.Open(fakeDoor("home", "2001:db8::1/64", time.Minute)) },
		"wrong length":      func(f *firewalltest.Fake) error { return f.Open(fakeDoor("home", "2001:db8::1/128", time.Minute)) },
		"mapped":            func(f *firewalltest.Fake) error { return f.Open(fakeDoor("ssh", "::ffff:192.0.2.1/128", time.Minute)) },
		"no time":           func(f *firewalltest.Fake) error { return f.Open(fakeDoor("ssh", "192.0.2.1/32", 0)) },
		"too long":          func(f *firewalltest.Fake) error { return f.Open(fakeDoor("ssh", "192.0.2.1/32", 24*time.Hour)) },
		"twice in one call": func(f *firewalltest.Fake) error { return f.Open(ssh, ssh) },
		"apply bad door":    func(f *firewalltest.Fake) error { return f.Apply(fakeRules, []firewall.Door{ssh, ssh}) },
		"apply bad rules":   func(f *firewalltest.Fake) error { return f.Apply(firewall.Ruleset{Mark: 3}, nil) },
		"down twice":        func(f *firewalltest.Fake) error { f.Down(); return f.Down() },
		"after close":       func(f *firewalltest.Fake) error { f.Close(); return f.Open(ssh) },
		"close twice":       func(f *firewalltest.Fake) error { f.Close(); return f.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			f := firewalltest.NewFake(nil)
			if err := f.Apply(fakeRules, nil); err != nil {
				t.Fatal(err)
			}
			if err := misuse(f); !errors.Is(err, firewalltest.ErrMisuse) {
				t.Errorf("got %v, want misuse", err)
			}
			if f.Misuse() == nil {
				t.Error("misuse is not remembered")
			}
			if f.IsOpen("ssh", netip.MustParseAddr("192.0.2.1")) {
				t.Error("the door is open all the same")
			}
		})
	}
}

func TestFakeFails(t *testing.T) {
	f := firewalltest.NewFake(nil)
	if err := f.Apply(fakeRules, nil); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	f.FailNext(broken, nil, broken)
	ssh := fakeDoor("ssh", "192.0.2.1/32", time.Minute)
	var got []error
	for range 4 {
		got = append(got, f.Open(ssh))
	}
	if diff := cmp.Diff([]error{broken, nil, broken, nil}, got, cmpopts.EquateErrors()); diff != "" {
		t.Error(diff)
	}
	want := []string{"apply 2 services 0 doors"}
	for range 4 {
		want = append(want, "open ssh 192.0.2.1/32 1m0s")
	}
	if diff := cmp.Diff(want, f.Calls()); diff != "" {
		t.Error(diff)
	}
	if f.Misuse() != nil {
		t.Error("a failure on demand is no misuse")
	}
}
