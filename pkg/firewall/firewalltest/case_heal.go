package firewalltest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"spad/pkg/firewall"
)

// healed is how long a backend may take to notice damage where the kernel has to be asked for it.
const healed = 5 * time.Second

// testHealing: another program flushes what it finds, once with each of its tools, or takes out one door, or puts one in.
// Who watches puts it back, as the daemon does.
func testHealing(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.requires("nft", "iptables-nft", "iptables-legacy")
	watcher, ok := s.Backend.(firewall.Watcher)
	if !ok {
		t.Fatal("the backend does not watch")
	}
	doors := s.doors(s.Laptop, time.Hour)
	s.must(s.Apply(s.rules, doors))
	s.every(func(w way) { s.open(s.Laptop, w, "opened") })

	var mended atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		err := watcher.Watch(ctx, func() {
			mended.Add(1)
			if err := s.Apply(s.rules, doors); err != nil && ctx.Err() == nil {
				t.Errorf("putting back what was damaged: %v", err)
			}
		})
		if err != nil {
			t.Errorf("watching: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); watch.Wait() })
	time.Sleep(100 * time.Millisecond) // the watch begins

	s.public = true // what the stranger gets through between damage and repair is the vandal's doing
	for _, v := range vandals {
		t.Run(v.name, func(t *testing.T) {
			before := mended.Load()
			v.strike(s)
			for until := time.Now().Add(healed + time.Second); mended.Load() == before; time.Sleep(10 * time.Millisecond) {
				if v.mayMiss && time.Now().After(until) {
					return
				} else if time.Now().After(until) {
					t.Fatal("not noticed")
				}
			}
			time.Sleep(500 * time.Millisecond) // it was noticed, and is mended
			s.every(func(w way) {
				s.open(s.Laptop, w, v.name)
				s.shut(s.Stranger, w, v.name)
			})
			quiet := mended.Load()
			time.Sleep(healed / 4)
			if again := mended.Load(); again != quiet {
				t.Errorf("%d more repairs of what is whole", again-quiet)
			}
		})
	}
}

// vandals are other programs. A backend that has nothing to do with what they strike may miss it.
var vandals = []struct {
	name    string
	mayMiss bool
	strike  func(*scene)
}{
	{"nft flush ruleset", true, func(s *scene) { s.command("nft", "flush", "ruleset") }},
	{"iptables-legacy -F", true, func(s *scene) {
		for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
			for _, table := range []string{"mangle", "nat", "filter"} {
				s.command(program, "-t", table, "-F")
			}
		}
	}},
	{"a rule put before ours", true, func(s *scene) {
		for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
			s.command(program, "-t", "mangle", "-I", "PREROUTING", "-j", "ACCEPT")
		}
	}},
	{"one door taken out", false, func(s *scene) { s.tamper(false) }},
	{"one door put in", false, func(s *scene) { s.tamper(true) }},
}

// command runs a program at the router.
func (s *scene) command(name string, args ...string) {
	s.Helper()
	if out, err := s.Router.Command(name, args...).CombinedOutput(); err != nil {
		s.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// tamper takes the laptop's first door out behind the backend's back, or puts the stranger in, wherever it is kept.
func (s *scene) tamper(in bool) {
	s.Helper()
	door := s.door(s.ways[0], s.Laptop.IP4, time.Hour)
	verb := "delete"
	if in {
		door.Source, verb = s.door(s.ways[0], s.Stranger.IP4, time.Hour).Source, "add"
	}
	out, err := s.Router.Command("nft", "list", "sets").Output()
	s.must(err)
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line) // set from4_NAME {
		if len(words) == 3 && words[0] == "set" && strings.HasPrefix(words[1], "from4_"+door.Service) {
			s.command("nft", verb, "element", "inet", "spad", words[1], "{ "+door.Source.Addr().String()+" }")
			return
		}
	}
	set, entry := "spad4-"+door.Service, &netlink.IPSetEntry{IP: door.Source.Addr().AsSlice(), Replace: true}
	s.Router.Do(func() {
		if in {
			hour := uint32(3600)
			entry.Timeout = &hour
			err = netlink.IpsetAdd(set, entry)
		} else {
			err = netlink.IpsetDel(set, entry)
		}
	})
	if err != nil {
		s.Fatal(errors.Join(errors.New("no set of the backend's was found"), err))
	}
}
