package firewalltest

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

func testApply(t *testing.T, f Factory) {
	s := newScene(t, f, cut)
	s.must(s.Apply(s.rules, s.doors(s.Laptop, time.Minute)))
	s.underTraffic(func() {
		for i := range 60 {
			rules := s.rules
			if i%2 == 1 { // a reload with other services
				rules.Services = append(rules.Services[:len(rules.Services):len(rules.Services)],
					firewall.Service{Name: "extra", Open: []firewall.Ports{{Proto: firewall.UDP, First: 1999, Last: 1999}}})
			}
			s.must(s.Apply(rules, s.doors(s.Laptop, time.Minute)))
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func testReplace(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	second := s.AddHost("second", s.Internet, "203.0.113.11", "2001:db8:11::11")
	s.must(s.Apply(s.rules, s.doors(s.Laptop, time.Hour)))
	s.every(func(w way) { s.open(s.Laptop, w, "applied with doors") })
	old := s.rules
	s.rules.Services = nil
	for _, service := range old.Services {
		if service.Forward == nil {
			s.rules.Services = append(s.rules.Services, service)
		}
	}
	var doors []firewall.Door
	for _, w := range s.ways {
		if w.tag == tagRouter {
			doors = append(doors, s.door(w, s.Laptop.Addr(w.v6), time.Hour))
		}
	}
	doors = doors[:1]
	s.must(s.Apply(s.rules, doors))
	s.every(func(w way) {
		switch {
		case w.tag == tagLAN:
			w.tag = tagDecoy
			s.open(second, w, "its service is gone, so its port is the router's own")
		case w.tag == tagHole:
			s.open(second, w, "its service is gone, so the router lets everybody pass")
		case doors[0] == s.door(w, s.Laptop.Addr(w.v6), time.Hour):
			s.open(s.Laptop, w, "applied with this door")
		default:
			s.shut(s.Laptop, w, "applied without this door")
		}
	})
	got, err := s.Doors()
	s.must(err)
	if sources(got) != sources(doors) {
		t.Errorf("listed:\n%s\nwant:\n%s", sources(got), sources(doors))
	}
	if err := s.Open(firewall.Door{Service: "forward-tcp", Source: netip.PrefixFrom(s.Laptop.IP4, 32), TTL: time.Hour}); !errors.Is(err, firewall.ErrUnknownService) {
		t.Errorf("opening a door of a service that is gone: %v", err)
	}
}

func testRestart(t *testing.T, f Factory) {
	const ttl = 2 * time.Second
	s := newScene(t, f, cut)
	opened := time.Now()
	s.must(s.Open(s.doors(s.Laptop, ttl)...))
	s.must(s.Close())
	time.Sleep(ttl / 4)
	next := s.backend()
	s.underTraffic(func() {
		doors := s.leftBetween(next, time.Millisecond, ttl-ttl/4)
		if sources(doors) != sources(s.doors(s.Laptop, 0)) {
			t.Errorf("listed after a restart:\n%s", sources(doors))
		}
		s.must(next.Apply(s.rules, doors))
		time.Sleep(time.Until(opened.Add(ttl / 2)))
	})
	s.every(func(w way) { s.shutsAt(s.Laptop, w, opened.Add(ttl)) })
	doors, err := next.Doors()
	s.must(err)
	if len(doors) != 0 {
		t.Errorf("listed after their time: %v", doors)
	}
}

func testMany(t *testing.T, f Factory) {
	const many = 5000
	s := newScene(t, f, nil)
	doors := s.doors(s.Laptop, time.Hour)
	for i := range many {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		if i%2 == 1 && s.hasIPv6() {
			a = netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 14: byte(i >> 8), 15: byte(i)})
		}
		doors = append(doors, s.door(s.ways[i%len(s.ways)], a, time.Hour))
	}
	check := func(when string) {
		got, err := s.Doors()
		s.must(err)
		if sources(got) != sources(doors) {
			t.Errorf("%s: %d doors are listed, not the %d that are open", when, len(got), len(doors))
		}
		s.every(func(w way) {
			s.open(s.Laptop, w, when)
			s.shut(s.Stranger, w, when)
		})
	}
	s.must(s.Apply(s.rules, doors))
	check("applied")
	s.must(s.Open(doors...))
	check("renewed")
	s.must(s.Shut(doors[len(s.ways):]...))
	doors = doors[:len(s.ways)]
	check("shut but for the laptop's")
}

func testRefused(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	fresh := s.backend()
	door := s.door(s.ways[0], s.Laptop.IP4, time.Hour)
	if err := fresh.Open(door); !errors.Is(err, firewall.ErrNoRuleset) {
		t.Errorf("open before apply: %v", err)
	}
	if err := fresh.Shut(door); !errors.Is(err, firewall.ErrNoRuleset) {
		t.Errorf("shut before apply: %v", err)
	}
	unknown, network, timeless, lasting := door, door, door, door
	unknown.Service, network.Source, timeless.TTL, lasting.TTL = "none", netip.MustParsePrefix("203.0.113.0/24"), 0, firewall.MaxTTL+1
	for _, c := range []struct {
		name string
		door firewall.Door
		want error
	}{
		{"unknown service", unknown, firewall.ErrUnknownService},
		{"network", network, firewall.ErrSource},
		{"no time", timeless, firewall.ErrTTL},
		{"too long", lasting, firewall.ErrTTL},
	} {
		if err := s.Open(door, c.door); !errors.Is(err, c.want) {
			t.Errorf("open, %s: %v", c.name, err)
		}
		if err := s.Apply(s.rules, []firewall.Door{door, c.door}); !errors.Is(err, c.want) {
			t.Errorf("apply, %s: %v", c.name, err)
		}
	}
	if err := s.Apply(firewall.Ruleset{Mark: 3}, nil); err == nil {
		t.Error("a mark of two bits is applied")
	}
	s.every(func(w way) { s.shut(s.Laptop, w, "all was refused") })
	doors, err := s.Doors()
	if err != nil || len(doors) != 0 {
		t.Errorf("doors after all was refused: %v, %v", doors, err)
	}
	s.must(s.Open())
	s.must(s.Shut())
}

// testRefusedRules: rules that make no sense change nothing of those that hold.
func testRefusedRules(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	doors := s.doors(s.Laptop, time.Hour)
	s.must(s.Open(doors...))
	elsewhere, one, two := netip.MustParseAddrPort("192.168.2.50:80"), netip.MustParseAddr("2001:db8:5::50"), netip.MustParseAddr("::50")
	ports := firewall.Ports{Proto: firewall.TCP, First: 2100, Last: 2110}
	hole := func(name string, a netip.Addr, bits int) firewall.Service {
		return firewall.Service{Name: name, Forward: &firewall.Forward{Port: ports, Hole: firewall.Hole{Addr: a, Bits: bits}}}
	}
	for name, more := range map[string]struct {
		lan      string
		services []firewall.Service
	}{
		"a port twice": {services: []firewall.Service{{Name: "x", Open: []firewall.Ports{ports}}, {Name: "y", Open: []firewall.Ports{ports}}}},
		"a port that is forwarded": {services: []firewall.Service{
			{Name: "x", Open: []firewall.Ports{ports}}, {Name: "y", Forward: &firewall.Forward{Port: ports, To4: elsewhere}},
		}},
		"the knock port":        {services: []firewall.Service{{Name: "x", Open: []firewall.Ports{{Proto: firewall.UDP, First: 41000, Last: 42000}}}}},
		"outside the LAN":       {"192.168.1.0/24", []firewall.Service{{Name: "x", Forward: &firewall.Forward{Port: ports, To4: elsewhere}}}},
		"a host's port twice":   {services: []firewall.Service{hole("x", one, 128), hole("y", two, 64)}},
		"a pinhole for many":    {services: []firewall.Service{hole("x", two, 8)}},
		"behind the last port":  {services: []firewall.Service{{Name: "x", Forward: &firewall.Forward{Port: ports, To4: netip.MustParseAddrPort("192.168.1.50:65530")}}}},
		"a pinhole of IPv4":     {services: []firewall.Service{hole("x", elsewhere.Addr(), 128)}},
		"a target of no family": {services: []firewall.Service{{Name: "x", Forward: &firewall.Forward{Port: ports}}}},
	} {
		bad := s.rules
		bad.Services = append(bad.Services[:len(bad.Services):len(bad.Services)], more.services...)
		if more.lan != "" {
			bad.LAN = []netip.Prefix{netip.MustParsePrefix(more.lan), netip.MustParsePrefix("fd00:1::/64")}
		}
		if err := s.Apply(bad, nil); err == nil {
			t.Errorf("%s: applied", name)
		}
	}
	got, err := s.Doors()
	s.must(err)
	if sources(got) != sources(doors) {
		t.Errorf("listed after all was refused:\n%s", sources(got))
	}
	s.every(func(w way) {
		s.open(s.Laptop, w, "all was refused")
		s.shut(s.Stranger, w, "all was refused")
	})
}

func testDown(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.public = true
	other := s.backend() // spad down is another process
	s.must(other.Down())
	s.every(func(w way) {
		if w.tag == tagLAN {
			w.tag = tagDecoy
		}
		s.open(s.Stranger, w, "down")
	})
	doors, err := other.Doors()
	if err != nil || len(doors) != 0 {
		t.Errorf("doors after down: %v, %v", doors, err)
	}
	s.must(other.Down()) // nothing is there
	s.must(s.Apply(s.rules, nil))
	s.every(func(w way) { s.shut(s.Laptop, w, "applied again") })
}

// testMarks: a firewall of somebody else drops all that has not the mark, in the way of what comes in and of what
// passes; and somebody else's bits of the mark arrive as they were.
func testMarks(t *testing.T, f Factory) {
	const foreign = 0x80000005
	s := newScene(t, f, nil)
	s.Router.Serve(t, firewall.UDP, knockPort, tagRouter)
	s.must(s.Router.dropsUnmarked(foreign, foreign|testMark))
	var knocks []way
	for _, v6 := range s.families() {
		knocks = append(knocks, toRouter("knock", v6, firewall.UDP, knockPort, tagRouter))
	}
	s.every(func(w way) { s.shut(s.Laptop, w, "before") })
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.every(func(w way) {
		s.open(s.Laptop, w, "other rules accept the mark")
		s.shut(s.Stranger, w, "other rules accept the mark")
	})
	s.ways = knocks
	s.Stranger.Serve(t, firewall.UDP, knockPort, tagOther)
	s.every(func(w way) {
		s.open(s.Stranger, w, "the knock port")
		c, err := s.LANHost.Call(netip.AddrPort{}, w.proto, s.Stranger.At(w.v6, w.port), longEnough)
		s.must(err)
		defer c.Close()
		if err := c.Ping(tagOther, shortEnough); err == nil {
			t.Errorf("%v: what passes to the same port of another host has the mark", w)
		}
	})
}

// dropsUnmarked is a firewall that sets marks on all that comes in, and lets in or pass only the wanted mark, and what
// belongs to a connection on its way back.
func (h *Host) dropsUnmarked(set, want uint32) error {
	c, err := nftables.New(nftables.WithNetNSFd(h.NetNS()))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
		return c.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority, Policy: &policy,
		})
	}
	number := binaryutil.NativeEndian.PutUint32
	mangle := chain("mangle", nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, nftables.ChainPolicyAccept)
	c.AddRule(&nftables.Rule{Table: table, Chain: mangle, Exprs: []expr.Any{
		&expr.Immediate{Register: 1, Data: number(set)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}})
	for name, hook := range map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward} {
		filter := chain(name, hook, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop)
		for _, match := range [][]expr.Any{
			{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: number(want)}},
			{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}}},
			{ // neighbour discovery
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMPV6}},
			},
		} {
			c.AddRule(&nftables.Rule{Table: table, Chain: filter, Exprs: append(match, &expr.Verdict{Kind: expr.VerdictAccept})})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("making a foreign firewall at %s: %w", h.Name, err)
	}
	return nil
}
