package firewalltest

import (
	"net/netip"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// testPinholes: the same port of several hosts and of the router, each guarded for itself; a host by the end of its
// address, whatever the prefix, which does not mean the router if its address ends so; and IPv4 by translation beside it.
func testPinholes(t *testing.T, f Factory) {
	const port, other = 2101, 2102
	s := newScene(t, f, nil)
	if !s.hasIPv6() {
		s.skipIPv6()
	}
	whole, otherHost := netip.MustParseAddr("2001:db8:5::50"), netip.MustParseAddr("2001:db8:5::99")
	ends := []netip.Addr{netip.MustParseAddr("2001:db8:6::1"), netip.MustParseAddr("2001:db8:7:8::1")} // as the router's own
	for _, a := range append(ends, whole, otherHost) {
		s.must(s.addAddr(s.LANHost, a))
	}
	one := firewall.Ports{Proto: firewall.TCP, First: port, Last: port}
	both := firewall.Ports{Proto: firewall.TCP, First: other, Last: other}
	s.rules.Services = []firewall.Service{
		{Name: "router", Open: []firewall.Ports{one}},
		{Name: "whole", Forward: &firewall.Forward{Port: one, Hole: firewall.Hole{Addr: whole, Bits: 128}}},
		{Name: "end", Forward: &firewall.Forward{
			Port: firewall.Ports{Proto: firewall.TCP, First: port - 50, Last: port + 50}, Hole: firewall.Hole{Addr: netip.MustParseAddr("::1"), Bits: 64},
		}, IPv6Prefix: 64, Cut: true},
		{Name: "both", Forward: &firewall.Forward{
			Port: both, To4: netip.AddrPortFrom(s.LANHost.IP4, 3102), Hole: firewall.Hole{Addr: whole, Bits: 128},
		}},
	}
	for name, server := range map[string]*Server{
		"router": s.serve(s.Router, firewall.TCP, port, tagRouter), "hole": s.serve(s.LANHost, firewall.TCP, port, tagHole),
		"both": s.serve(s.LANHost, firewall.TCP, other, tagHole), "translated": s.serve(s.LANHost, firewall.TCP, 3102, tagLAN),
	} {
		s.servers[name] = server
	}
	s.decoys["both"] = s.serve(s.Router, firewall.TCP, other, tagDecoy)
	hole := func(service string, at netip.Addr, port uint16) way {
		return way{service: service, v6: true, proto: firewall.TCP, port: port, tag: tagHole, at: at}
	}
	s.ways = []way{
		toRouter("router", false, firewall.TCP, port, tagRouter), toRouter("router", true, firewall.TCP, port, tagRouter),
		hole("whole", whole, port), hole("end", ends[0], port), hole("end", ends[1], port), hole("both", whole, other),
		toRouter("both", false, firewall.TCP, other, tagLAN),
	}
	s.must(s.Apply(s.rules, nil))
	s.every(func(w way) { s.shut(s.Laptop, w, "before") })
	for _, opened := range s.ways {
		s.must(s.Apply(s.rules, []firewall.Door{s.door(opened, s.Laptop.Addr(opened.v6), time.Hour)}))
		s.every(func(w way) {
			if w.service == opened.service && w.v6 == opened.v6 {
				s.open(s.Laptop, w, "opened")
			} else {
				s.shut(s.Laptop, w, "another service was opened")
			}
			s.shut(s.Stranger, w, "opened for another")
		})
	}
	s.shut(s.Laptop, toRouter("both", true, firewall.TCP, other, tagDecoy), "the router's own port")
	s.public = true // the same servers have addresses that nobody guards
	for _, h := range []*Host{s.Laptop, s.Stranger} {
		s.open(h, hole("none", otherHost, port), "another host")
		s.open(h, hole("none", s.LANHost.IP6, port), "another host")
	}
	s.rules.AlwaysAllow = []netip.Prefix{netip.PrefixFrom(s.Laptop.IP4, 32), netip.PrefixFrom(s.Laptop.IP6, 128)}
	s.must(s.Apply(s.rules, nil))
	s.every(func(w way) {
		s.open(s.Laptop, w, "always allowed")
		s.shut(s.Stranger, w, "another is always allowed")
	})
}

// testTwiceBehind: a host that is reached at the same port through a pinhole, and translated from the router's. Either
// ends with its own door only.
func testTwiceBehind(t *testing.T, f Factory) {
	const port = 2101
	s := newScene(t, f, nil)
	if !s.hasIPv6() {
		s.skipIPv6()
	}
	ports := firewall.Ports{Proto: firewall.TCP, First: port, Last: port}
	hole := &firewall.Forward{Port: ports, Hole: firewall.Hole{Addr: s.LANHost.IP6, Bits: 128}}
	translated := &firewall.Forward{Port: ports, To6: netip.AddrPortFrom(s.LANHost.IP6, port)}
	s.servers["twice"] = s.serve(s.LANHost, firewall.TCP, port, tagHole)
	s.ways = []way{
		{service: "hole", v6: true, proto: firewall.TCP, port: port, tag: tagHole, at: s.LANHost.IP6},
		toRouter("translated", true, firewall.TCP, port, tagHole),
	}
	for _, guard := range []firewall.Guard{firewall.GuardDrop, firewall.GuardReject} {
		s.rules.Services = []firewall.Service{
			{Name: "hole", Forward: hole, Guard: guard, Cut: true}, {Name: "translated", Forward: translated, Guard: guard, Cut: true},
		}
		for i, w := range s.ways {
			s.must(s.Apply(s.rules, s.doors(s.Laptop, time.Hour)))
			calls, streams := s.lasting(s.Laptop)
			s.must(s.Shut(s.door(s.ways[1-i], s.Laptop.IP6, 0)))
			s.open(s.Laptop, w, "the other door was shut")
			if err := calls[w].Ping(w.tag, longEnough); err != nil {
				t.Errorf("%v, guard %v: its connection ended with the other's door: %v", w, guard, err)
			}
			if streams[w].Silent(longEnough) {
				t.Errorf("%v, guard %v: its stream ended with the other's door", w, guard)
			}
			if !streams[s.ways[1-i]].Silent(2 * shortEnough) {
				t.Errorf("%v, guard %v: its stream goes on after its door was shut", s.ways[1-i], guard)
			}
		}
	}
}
