package firewalltest

import (
	"net/netip"
	"testing"
	"time"

	"spad/pkg/firewall"
)

func testRanges(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.rules.Services = []firewall.Service{{Name: "range", Open: []firewall.Ports{
		{Proto: firewall.UDP, First: 60000, Last: 60010},
		{Proto: firewall.TCP, First: 65000, Last: 65535},
		{Proto: firewall.TCP, First: 64999, Last: 64999},
		{Proto: firewall.UDP, First: 1, Last: 3},
	}}}
	s.must(s.Apply(s.rules, nil))
	var in, out []way
	for _, v6 := range s.families() {
		for _, port := range []uint16{60000, 60005, 60010, 1, 3} {
			in = append(in, toRouter("range", v6, firewall.UDP, port, tagRouter))
		}
		for _, port := range []uint16{64999, 65000, 65300, 65535} {
			in = append(in, toRouter("range", v6, firewall.TCP, port, tagRouter))
		}
		out = append(out, toRouter("range", v6, firewall.UDP, 59999, tagRouter), toRouter("range", v6, firewall.UDP, 60011, tagRouter),
			toRouter("range", v6, firewall.TCP, 64998, tagRouter), toRouter("range", v6, firewall.TCP, 60005, tagRouter),
			toRouter("range", v6, firewall.UDP, 4, tagRouter))
	}
	served := map[firewall.Ports]bool{}
	for _, w := range append(in, out...) {
		if p := (firewall.Ports{Proto: w.proto, First: w.port, Last: w.port}); !served[p] {
			served[p] = true
			s.serve(s.Router, w.proto, w.port, tagRouter)
		}
	}
	s.ways = in
	s.every(func(w way) { s.shut(s.Laptop, w, "before") })
	for _, v6 := range s.families() {
		s.must(s.Open(s.door(way{service: "range", v6: v6}, s.Laptop.Addr(v6), time.Hour)))
	}
	s.every(func(w way) {
		s.open(s.Laptop, w, "in the range")
		s.shut(s.Stranger, w, "in the range")
	})
	s.ways = out
	s.every(func(w way) { s.open(s.Stranger, w, "beside the range") })
}

func testPrefix(t *testing.T, f Factory) {
	s := newScene(t, f, func(s *firewall.Service) { s.IPv6Prefix = 64 })
	if !s.hasIPv6() {
		s.skipIPv6()
	}
	near, far := netip.MustParseAddr("2001:db8:10::ffff"), netip.MustParseAddr("2001:db8:10:1::10")
	s.must(s.addAddr(s.Laptop, near))
	s.must(s.addAddr(s.Laptop, far))
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	check := func(when string, nearOpen bool) {
		s.every(func(w way) {
			if !w.v6 {
				return
			}
			if nearOpen {
				s.open(s.Laptop, w, when)
				s.openFrom(s.Laptop, netip.AddrPortFrom(near, 0), w, when+", from the same prefix")
			} else {
				s.shut(s.Laptop, w, when)
				s.shutFrom(s.Laptop, netip.AddrPortFrom(near, 0), w, when+", from the same prefix")
			}
			s.shutFrom(s.Laptop, netip.AddrPortFrom(far, 0), w, when+", from the next prefix")
		})
	}
	check("opened", true)
	doors, err := s.Doors()
	s.must(err)
	if got, want := sources(doors), sources(s.doors(s.Laptop, 0)); got != want {
		t.Errorf("listed:\n%s\nwant:\n%s", got, want)
	}
	s.must(s.Shut(s.doors(s.Laptop, 0)...))
	check("shut", false)
}

func testNeighbours(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	one, twelve := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.12")
	s.must(s.addAddr(s.Laptop, one))
	s.must(s.addAddr(s.Laptop, twelve))
	check := func(when string, open map[netip.Addr]bool) {
		s.every(func(w way) {
			for _, a := range []netip.Addr{one, twelve} {
				if w.v6 {
					continue
				}
				if open[a] {
					s.openFrom(s.Laptop, netip.AddrPortFrom(a, 0), w, when)
				} else {
					s.shutFrom(s.Laptop, netip.AddrPortFrom(a, 0), w, when)
				}
			}
		})
	}
	for _, w := range s.ways {
		if !w.v6 {
			s.must(s.Open(s.door(w, one, time.Hour), s.door(w, twelve, time.Hour)))
		}
	}
	check("both open", map[netip.Addr]bool{one: true, twelve: true})
	for _, w := range s.ways {
		if !w.v6 {
			s.must(s.Shut(s.door(w, one, 0)))
		}
	}
	check("one shut", map[netip.Addr]bool{twelve: true})
}

func testOneFamily(t *testing.T, f Factory) {
	s := newScene(t, f, func(s *firewall.Service) {
		if s.Forward != nil {
			s.Forward.To6 = netip.AddrPort{}
		}
	})
	s.rules.AlwaysAllow = []netip.Prefix{netip.PrefixFrom(s.Laptop.IP4, 32), netip.PrefixFrom(s.Laptop.IP6, 128)}
	s.must(s.Apply(s.rules, nil))
	s.every(func(w way) {
		if service, _ := s.rules.Service(w.service); service.Forward != nil && w.v6 && w.tag != tagHole {
			s.shut(s.Laptop, w, "no IPv6 target") // and the scene sees to it that the router's own port got nothing
		} else {
			s.open(s.Laptop, w, "always allowed")
		}
	})
}
