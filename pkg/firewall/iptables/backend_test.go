package iptables

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

func secondsOf(n int) time.Duration { return time.Duration(n) * time.Second }

func rules() firewall.Ruleset {
	return firewall.Ruleset{
		Mark: 1 << 20, KnockPort: 41372,
		AlwaysAllow: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00::/8")},
		LAN:         []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		Services: []firewall.Service{
			{Name: "ssh", Open: []firewall.Ports{{Proto: firewall.TCP, First: 22, Last: 22}}, Guard: firewall.GuardReject},
			{Name: "a-name-that-has-thirty-two-chars", Open: []firewall.Ports{{Proto: firewall.UDP, First: 60000, Last: 65535}}, IPv6Prefix: 56, Cut: true},
			{Name: "off", Open: []firewall.Ports{{Proto: firewall.TCP, First: 25, Last: 25}}, Guard: firewall.GuardOff, Cut: true},
			{Name: "nas", Cut: true, Forward: &firewall.Forward{
				Port: firewall.Ports{Proto: firewall.TCP, First: 7890, Last: 7890},
				To4:  netip.MustParseAddrPort("192.168.1.50:80"), To6: netip.MustParseAddrPort("[fd00:1::50]:80"),
			}},
			{Name: "a-pinhole-with-a-very-long-name", Cut: true, Guard: firewall.GuardReject, Forward: &firewall.Forward{
				Port: firewall.Ports{Proto: firewall.TCP, First: 22, Last: 22}, Hole: firewall.Hole{Addr: netip.MustParseAddr("::50"), Bits: 64},
			}},
		},
	}
}

// fewer is another ruleset, with services that are gone, changed and new.
func fewer() firewall.Ruleset {
	r := rules()
	r.AlwaysAllow = r.AlwaysAllow[:1]
	r.Services = append(r.Services[:1:1], firewall.Service{Name: "new", Open: []firewall.Ports{{Proto: firewall.TCP, First: 80, Last: 80}}})
	r.Services[0].Guard = firewall.GuardDrop
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A failing step leaves everything as it was, until the old rules go: then both hold, and either refuses.
func TestApplyFailsAtEveryStep(t *testing.T) {
	start := func(t *testing.T) (*kernel, *Backend) {
		k := newKernel()
		b := k.backend()
		must(t, b.Apply(rules(), []firewall.Door{door("ssh", "10.0.0.1/32", 60), door("nas", "10.0.0.1/32", 60)}))
		return k, b
	}
	next := []firewall.Door{door("ssh", "10.0.0.1/32", 90), door("new", "10.0.0.2/32", 60)}
	k, b := start(t)
	before := k.calls
	must(t, b.Apply(fewer(), next))
	want, steps := k.String(), k.calls-before
	if steps < 20 {
		t.Fatalf("only %d steps", steps)
	}
	broken := errors.New("broken")
	whole := 0
	for step := 1; step <= steps; step++ {
		k, b := start(t)
		was := k.String()
		k.fail, k.failAt = broken, k.calls+step
		err := b.Apply(fewer(), next)
		if !errors.Is(err, broken) {
			t.Errorf("step %d: %v", step, err)
		}
		switch now := k.String(); {
		case now == was:
			whole++
		case !strings.Contains(now, "spad.1-guard"):
			t.Errorf("step %d: neither the old nor the new rules: %s", step, cmp.Diff(was, now))
		case strings.Contains(now, "spad.0-guard") && strings.Contains(now, "10.0.0.2/32"):
			t.Errorf("step %d: a new door is open before the old rules are gone", step)
		}
		must(t, b.Apply(fewer(), next)) // and the next one puts it right
		any := regexp.MustCompile(`spad\.\d+`)
		if diff := cmp.Diff(any.ReplaceAllString(want, ""), any.ReplaceAllString(k.String(), "")); diff != "" {
			t.Errorf("step %d, then again: %s", step, diff)
		}
	}
	if whole < steps/3 { // the others are those that take the old away
		t.Errorf("after %d of %d steps nothing had changed", whole, steps)
	}
}

// TestCrashAtEveryStep: the process is gone between two steps and undoes nothing. Both guards hold or one of them, new doors
// are shut while the old one does, old doors while the new one does, and the next process puts it right.
func TestCrashAtEveryStep(t *testing.T) {
	next := []firewall.Door{door("ssh", "10.0.0.1/32", 90), door("new", "10.0.0.2/32", 60)}
	changing := regexp.MustCompile(`spad\.\d+|/\d+s`)
	fresh := newKernel()
	must(t, fresh.backend().Apply(fewer(), next))
	want := changing.ReplaceAllString(fresh.String(), "")
	done := false
	for step := 1; !done; step++ {
		k := newKernel()
		b := k.backend()
		must(t, b.Apply(rules(), []firewall.Door{door("ssh", "10.0.0.1/32", 60), door("nas", "10.0.0.1/32", 60)}))
		k.fail, k.failAt, k.dead = errors.New("gone"), k.calls+step, true
		done = b.Apply(fewer(), next) == nil
		k.fail, k.failAt, k.dead = nil, 0, false
		for v6, f := range k.families {
			guards := strings.Join(f.rule["mangle"]["PREROUTING"], "\n")
			if !strings.Contains(guards, "-j spad.0-guard") && !strings.Contains(guards, "-j spad.1-guard") {
				t.Errorf("step %d: no guard, v6 %v", step, v6)
			}
			if strings.Contains(guards, "-j spad.0-guard") && strings.Contains(k.String(), "10.0.0.2/32") {
				t.Errorf("step %d: a new door is open before the old rules are gone", step)
			}
			if strings.Contains(guards, "-j spad.1-guard") && len(k.boxes["spad4-nas"].entries) > 0 {
				t.Errorf("step %d: an old door is open under the new rules", step)
			}
		}
		must(t, k.backend().Apply(fewer(), next))
		if diff := cmp.Diff(want, changing.ReplaceAllString(k.String(), "")); diff != "" {
			t.Errorf("step %d, then again: %s", step, diff)
		}
		must(t, k.backend().Down())
		if left := k.String(); left != newKernel().String() {
			t.Errorf("step %d: left after down: %s", step, cmp.Diff(newKernel().String(), left))
		}
	}
}

func TestOpenIsAllOrNothing(t *testing.T) {
	k := newKernel()
	b := k.backend()
	must(t, b.Apply(rules(), nil))
	was := k.String()
	doors := []firewall.Door{door("ssh", "10.0.0.1/32", 60), door("nas", "10.0.0.2/32", 60), door("nas", "fd00::1/128", 60)}
	k.fail, k.failAt = errors.New("broken"), k.calls+3
	if err := b.Open(doors...); !errors.Is(err, k.fail) {
		t.Error(err)
	}
	if now := k.String(); now != was {
		t.Errorf("half of the doors are open: %s", cmp.Diff(was, now))
	}
	must(t, b.Open(doors...))
	k.failAt = k.calls + 1
	if err := b.Shut(doors...); !errors.Is(err, k.fail) {
		t.Error(err)
	}
	if n := strings.Count(k.String(), "/60s"); n != 1 {
		t.Errorf("%d doors are open after one could not be shut", n)
	}
}

// TestLeftovers: a run crashed between two steps; there are two generations and sets that nothing refers to.
func TestLeftovers(t *testing.T) {
	k := newKernel()
	must(t, k.backend().Apply(rules(), []firewall.Door{door("ssh", "10.0.0.1/32", 60)}))
	for _, f := range k.backend().families {
		must(t, f.hook(f.layout(1, rules())))
	}
	must(t, k.create("spad6.48-old", setKind{nets: true, v6: true, timed: true}))
	must(t, k.create("spad4x", setKind{})) // not ours
	b := k.backend()
	must(t, b.Apply(rules(), nil))
	now := k.String()
	for _, gone := range []string{"spad.0", "spad.1", "spad6.48-old", "10.0.0.1"} {
		if strings.Contains(now, gone) {
			t.Errorf("%s is left:\n%s", gone, now)
		}
	}
	must(t, b.Down())
	delete(k.boxes, "spad4x")
	if left := k.String(); left != newKernel().String() {
		t.Errorf("left after down: %s", cmp.Diff(newKernel().String(), left))
	}
}

func TestDoorTime(t *testing.T) {
	for ttl, want := range map[time.Duration]uint32{
		time.Nanosecond: 1, 999 * time.Millisecond: 1, time.Second: 1, 1999 * time.Millisecond: 1, 15 * time.Minute: 900, firewall.MaxTTL: 65535,
	} {
		if got := entryOf(firewall.Door{TTL: ttl}).seconds; got != want {
			t.Errorf("%v: %d s, want %d", ttl, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	long := "a-name-that-has-thirty-two-chars"
	for _, s := range []firewall.Service{{Name: "ssh"}, {Name: "always"}, {Name: long}, {Name: long, IPv6Prefix: 127}} {
		for _, v6 := range []bool{false, true} {
			name := doorSet(s, v6)
			if is, ok := ourSet(name); len(name) > 31 || !ok || is != v6 || name == alwaysSet(v6) {
				t.Errorf("set %s: %d bytes, ours %v, v6 %v", name, len(name), ok, is)
			}
			if chain := generation(99).of("g-" + short(s.Name)); len(chain) > 28 {
				t.Errorf("chain %s has %d bytes", chain, len(chain))
			}
		}
	}
	for _, other := range []string{"spad", "spad5-x", "spad4", "spad4x", "spad6.0-x", "spad6.128-x", "spad6.x-y", "blocklist", "spad4.alwaysnot"} {
		if _, ok := ourSet(other); ok {
			t.Errorf("%s is taken for ours", other)
		}
	}
	for name, want := range map[string]bool{
		"spad.0-guard": true, "spad.12-g-ssh": true, "spad-guard": false, "spad.x-guard": false, "spad.probe": false, "PREROUTING": false, "spad.-1-x": false,
	} {
		if _, _, ok := parseChain(name); ok != want {
			t.Errorf("%s is ours: %v", name, ok)
		}
	}
	r := firewall.Ruleset{Services: []firewall.Service{{Name: "ssh"}, {Name: "ssh"}}}
	if err := checkNames(r); err == nil || !strings.Contains(err.Error(), "rename one") {
		t.Errorf("names that are the same: %v", err)
	}
}

// TestDispatch walks the tree as a packet would, for rows of ports of many sizes.
func TestDispatch(t *testing.T) {
	for _, n := range []int{1, 2, 8, 9, 64, 65, 1000} {
		var leaves []leaf
		want := map[int]string{}
		for i := range n {
			p := firewall.Ports{Proto: firewall.TCP, First: uint16(100 + i*7), Last: uint16(100 + i*7 + i%3)}
			then := fmt.Sprintf("-g leaf%d", i)
			leaves = append(leaves, leaf{p, then})
			for port := p.First; port <= p.Last; port++ {
				want[int(port)] = then
			}
		}
		l := layout{chains: map[string]*chains{}}
		l.dispatch("mangle", "root", byPort, leaves)
		longest := 0
		for port := range 1 << 13 {
			got, met := l.walk(t, "root", port)
			if got != want[port] {
				t.Fatalf("%d leaves: port %d ends in %q, want %q", n, port, got, want[port])
			}
			longest = max(longest, met)
		}
		if most := fanOut * (1 + bits.Len(uint(n))/3); longest > most {
			t.Errorf("%d leaves: a packet meets %d rules, want at most %d", n, longest, most)
		}
	}
}

// walk returns where a packet for a TCP port ends, and how many rules it meets.
func (l layout) walk(t *testing.T, chain string, port int) (end string, met int) {
	for _, rule := range l.chains["mangle"].rules[l.of(chain)] {
		met++
		words := strings.Fields(rule) // -p tcp --dport A:B -g CHAIN
		low, high, _ := strings.Cut(words[3], ":")
		a, err := strconv.Atoi(low)
		must(t, err)
		b, err := strconv.Atoi(high)
		must(t, err)
		if port < a || port > b {
			continue
		}
		if below, _, ours := parseChain(words[5]); ours {
			end, more := l.walk(t, below, port)
			return end, met + more
		}
		return strings.Join(words[4:], " "), met
	}
	return "", met
}

// script writes a program of a name into a folder.
func script(t *testing.T, dir, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
}

// TestProgramsThatFail: programs in the place of iptables that fail as the real ones do.
func TestProgramsThatFail(t *testing.T) {
	never := filepath.Join(t.TempDir(), "never") // who reads it waits until the test ends
	must(t, unix.Mkfifo(never, 0o600))
	t.Cleanup(func() {
		if f, err := os.OpenFile(never, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			_, _ = f.WriteString("end\n")
			_ = f.Close()
		}
	})
	const version = `[ "$1" != --version ] || { echo "iptables v1.8.9 (nf_tables)"; exit; }` + "\n"
	for _, c := range []struct {
		name      string
		iptables  string
		ip6tables string
		variant   string
		want      []string
	}{
		{"none", "", "", "", []string{"iptables is not complete here", "install it"}},
		{"one family", version, "", "", []string{"ip6tables", "install it"}},
		{"no root", version + "echo 'iptables: Could not fetch rule set generation id: Permission denied (you must be root)' >&2; exit 4", version, "", []string{"CAP_NET_ADMIN"}},
		{"no lock", version + "echo \"Fatal: can't open lock file /run/xtables.lock: Permission denied\" >&2; exit 4", version, "", []string{"tmpfiles.d/spad.conf"}},
		{"lock held for nat", version + "[ \"$2\" != nat ] || { echo 'Another app is currently holding the xtables lock.' >&2; exit 4; }", version, "", []string{"has held the lock of iptables for 5s"}},
		{"one family of each variant", version, "echo 'ip6tables v1.8.9 (legacy)'", "", []string{"ip6tables is the legacy variant, not nft"}},
		{"no capability", version + "echo 'iptables: Permission denied (you must be root).' >&2; exit 3", version, "", []string{"CAP_NET_ADMIN"}},
		{"lock held", version + "echo 'Another app is currently holding the xtables lock.' >&2; exit 4", version, "", []string{"has held the lock of iptables for 5s"}},
		{"no table", version + "echo \"can't initialize iptables table mangle: Table does not exist (do you need to insmod?)\" >&2; exit 3", version, "", []string{"insmod", "mangle"}},
		{"hangs", version + "read -r end < " + never, version, "", []string{"has not returned for 200ms"}},
		{"says nothing of itself", "exit 1", version, "", []string{"version"}},
		{"the other variant", version, version, "legacy", []string{"iptables is the nft variant, not legacy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.iptables != "" {
				script(t, dir, "iptables", c.iptables)
				script(t, dir, "iptables-restore", "exit 0")
			}
			if c.ip6tables != "" {
				script(t, dir, "ip6tables", c.ip6tables)
				script(t, dir, "ip6tables-restore", "exit 0")
			}
			t.Setenv("PATH", dir+":/bin")
			defer func(dirs []string, patience time.Duration) { sbin, programPatience = dirs, patience }(sbin, programPatience)
			sbin, programPatience = nil, 200*time.Millisecond
			if c.name != "hangs" {
				programPatience = 10 * time.Second
			}
			_, err := New(Options{Variant: c.variant})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

// TestMissingModules: the kernel lacks something, which only shows when a rule that uses it is added.
func TestMissingModules(t *testing.T) {
	for _, f := range features {
		t.Run(f.name, func(t *testing.T) {
			k := newKernel()
			b := k.backend()
			words := strings.Fields(strings.TrimPrefix(f.rule, "-p tcp ")) // "-m set …", "-j MARK …"
			for i := range b.families {
				b.families[i].table = without{k.families[b.families[i].v6], words[0] + " " + words[1]}
			}
			was := k.String()
			err := b.Apply(rules(), nil)
			if err == nil || !strings.Contains(err.Error(), f.name) {
				t.Errorf("%v does not say %q", err, f.name)
			}
			for _, other := range features {
				if err != nil && other.name != f.name && strings.Contains(err.Error(), other.name) {
					t.Errorf("%q is said to be missing too", other.name)
				}
			}
			if now := k.String(); now != was {
				t.Errorf("something is left: %s", cmp.Diff(was, now))
			}
		})
	}
}

// without is a rulebook that refuses rules with a text, as iptables-restore does.
type without struct {
	*rulebook
	text string
}

func (w without) restore(text string) error {
	if strings.Contains(text, w.text) {
		return fmt.Errorf("running iptables-restore: %w: line 7 failed", exec.Command("false").Run())
	}
	return w.rulebook.restore(text)
}

func TestErrorsOfSets(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{unix.EPERM, "CAP_NET_ADMIN"},
		{unix.ENOENT, "apply the ruleset again"},
		{errors.New("iptables-nft-restore v1.8.9 (nf_tables): Can't open socket to ipset."), "CAP_NET_RAW"},
		{unix.EINVAL, "the kernel has no ipset: load or install the module ip_set"},
		{nl.IPSetError(nl.IPSET_ERR_FIND_TYPE), "ip_set_hash_ip and ip_set_hash_net"},
		{nl.IPSetError(nl.IPSET_ERR_TYPE_SPECIFIC), "the set is full, it takes 1048576 doors"},
	} {
		if got := explain(c.err); !strings.Contains(fmt.Sprint(got), c.want) || !errors.Is(got, c.err) {
			t.Errorf("%v: %v, want %q", c.err, got, c.want)
		}
	}
}

func connect(t *testing.T, l *firewalltest.Lab, variant string) *Backend {
	t.Helper()
	b, err := New(Options{Variant: variant, NetNS: l.Router.NetNS()})
	must(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// TestSetOfAnotherKind: somebody has a set of our name. It is not touched, and nothing of ours is left.
func TestSetOfAnotherKind(t *testing.T) {
	l := firewalltest.NewLab(t)
	for _, typename := range []string{"hash:net", "hash:ip,port"} {
		l.Router.Do(func() { must(t, netlink.IpsetCreate("spad4-ssh", typename, netlink.IpsetCreateOptions{})) })
		b := connect(t, l, "nft")
		err := b.Apply(rules(), nil)
		if err == nil || !strings.Contains(err.Error(), "ipset destroy spad4-ssh") {
			t.Errorf("%s: %v", typename, err)
		}
		names, err := b.sets.names()
		must(t, err)
		if len(names) != 1 {
			t.Errorf("%s: sets are left: %v", typename, names)
		}
		old, err := b.families[0].survey()
		if err != nil || len(old.chains) != 0 {
			t.Errorf("%s: chains are left: %v, %v", typename, old.chains, err)
		}
		l.Router.Do(func() { must(t, netlink.IpsetDestroy("spad4-ssh")) })
		must(t, b.Apply(rules(), nil))
		must(t, b.Down())
	}
}

// TestLockHeld: another program keeps the lock for ever; legacy alone has one.
func TestLockHeld(t *testing.T) {
	l := firewalltest.NewLab(t)
	b := connect(t, l, "legacy")
	must(t, b.Apply(rules(), nil))
	lock, err := os.OpenFile("/run/xtables.lock", os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	defer lock.Close()
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	if err := b.Open(door("ssh", "10.0.0.1/32", 60)); err != nil {
		t.Errorf("a door needs no lock: %v", err)
	}
	if err := b.Apply(fewer(), nil); err == nil || !strings.Contains(err.Error(), "has held the lock of iptables") {
		t.Errorf("apply with the lock held: %v", err)
	}
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_UN))
	doors, err := b.Doors()
	if err != nil || len(doors) != 1 {
		t.Errorf("doors after an apply that failed: %v, %v", doors, err)
	}
	must(t, b.Apply(fewer(), nil))
}

// TestManyServices: they take trees of chains, and more than one transaction.
func TestManyServices(t *testing.T) {
	l := firewalltest.NewLab(t)
	for variant, services := range map[string]int{"nft": 300, "legacy": 1000} {
		b := connect(t, l, variant)
		r := firewall.Ruleset{Mark: 1}
		for i := range services {
			port := uint16(1000 + 2*i)
			r.Services = append(r.Services, firewall.Service{
				Name: fmt.Sprintf("s%d", i), Cut: i%2 == 0, Open: []firewall.Ports{{Proto: firewall.TCP, First: port, Last: port}},
			})
		}
		for range 2 {
			must(t, b.Apply(r, []firewall.Door{door("s7", "10.0.0.1/32", 60)}))
		}
		doors, err := b.Doors()
		if err != nil || len(doors) != 1 {
			t.Errorf("%s: listed %v, %v", variant, doors, err)
		}
		must(t, b.Down())
	}
}

// TestSetsGone: another program flushes the rules and destroys all sets.
func TestSetsGone(t *testing.T) {
	l := firewalltest.NewLab(t)
	b := connect(t, l, "legacy")
	must(t, b.Apply(rules(), nil))
	for _, f := range b.families {
		old, err := f.survey()
		must(t, err)
		must(t, f.remove(old))
	}
	names, err := b.sets.names()
	must(t, err)
	for _, name := range names {
		must(t, b.sets.destroy(name))
	}
	for i, err := range []error{b.Open(door("ssh", "10.0.0.1/32", 60)), b.Shut(door("ssh", "10.0.0.1/32", 60))} {
		if err == nil || !strings.Contains(err.Error(), "apply the ruleset again") {
			t.Errorf("%d: %v", i, err)
		}
	}
	must(t, b.Apply(rules(), []firewall.Door{door("ssh", "10.0.0.1/32", 60)}))
}

func TestClosed(t *testing.T) {
	b := newKernel().backend()
	must(t, b.Close())
	_, err := b.Doors()
	for i, err := range []error{err, b.Apply(rules(), nil), b.Open(), b.Shut(), b.Down()} {
		if err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestForwardWithoutNAT(t *testing.T) {
	k := newKernel()
	b := k.backend()
	b.families[1].noNAT = errors.New("no table nat")
	if err := b.Apply(rules(), nil); err == nil || !strings.Contains(err.Error(), "a forward needs the table nat") {
		t.Errorf("forward without NAT: %v", err)
	}
	r := rules()
	r.Services[3].Forward.To6 = netip.AddrPort{}
	must(t, b.Apply(r, nil))
}
