package firewalltest

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"spad/pkg/firewall"
)

func testReject(t *testing.T, f Factory) {
	s := newScene(t, f, func(s *firewall.Service) { s.Guard = firewall.GuardReject })
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.every(func(w way) {
		s.open(s.Laptop, w, "opened")
		for _, port := range []uint16{w.port, 2998} { // nobody listens at the second
			likewise := w
			likewise.port = port
			if _, err := s.call(s.Stranger, likewise, longEnough); !refused(err) {
				t.Errorf("port %d of %v is not refused: %v", port, w, err)
			}
		}
	})
}

func testOff(t *testing.T, f Factory) {
	s := newScene(t, f, func(s *firewall.Service) { s.Guard = firewall.GuardOff })
	s.public = true
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.every(func(w way) {
		s.open(s.Laptop, w, "opened")
		if w.tag == tagLAN {
			w.tag = tagDecoy // without a door, the port is the router's own
		}
		s.open(s.Stranger, w, "no guard")
	})
}

func testAlwaysAllow(t *testing.T, f Factory) {
	s := newScene(t, f, cut)
	s.rules.AlwaysAllow = []netip.Prefix{ // nested, equal, neighbours, and the ends of the space
		netip.MustParsePrefix("203.0.113.0/26"), netip.MustParsePrefix("203.0.113.8/29"), netip.MustParsePrefix("203.0.113.8/29"),
		netip.MustParsePrefix("203.0.113.128/25"), netip.MustParsePrefix("255.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/8"),
		netip.MustParsePrefix("2001:db8:10::/48"), netip.MustParsePrefix("2001:db8:10::/64"), netip.MustParsePrefix("ff00::/8"),
	}
	s.must(s.Apply(s.rules, nil))
	s.every(func(w way) {
		s.open(s.Laptop, w, "always allowed")
		s.shut(s.Stranger, w, "another is always allowed")
	})
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.must(s.Shut(s.doors(s.Laptop, 0)...))
	s.every(func(w way) { s.open(s.Laptop, w, "always allowed, and a door was shut") })
}

// testAlwaysKept: who needs no door loses no connection when one is shut.
func testAlwaysKept(t *testing.T, f Factory) {
	s := newScene(t, f, cut)
	s.rules.AlwaysAllow = []netip.Prefix{netip.PrefixFrom(s.Laptop.IP4, 32), netip.PrefixFrom(s.Laptop.IP6, 128)}
	s.must(s.Apply(s.rules, nil))
	calls, streams := s.lasting(s.Laptop)
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.must(s.Shut(s.doors(s.Laptop, 0)...))
	s.every(func(w way) {
		if err := calls[w].Ping(w.tag, longEnough); err != nil {
			t.Errorf("%v: a connection that is always allowed is cut: %v", w, err)
		}
		if streams[w].Silent(longEnough) {
			t.Errorf("%v: a stream that is always allowed is cut", w)
		}
	})
}

// testOwnTraffic: what the router does itself is not the guard's business.
func testOwnTraffic(t *testing.T, f Factory) {
	s := newScene(t, f, cut)
	for _, w := range s.ways {
		if w.tag != tagRouter {
			continue
		}
		own := []netip.Addr{s.Router.Addr(w.v6), RouterLAN4, netip.MustParseAddr("127.0.0.1")}
		if w.v6 {
			own = []netip.Addr{s.Router.IP6, RouterLAN6, netip.IPv6Loopback()}
		}
		for _, a := range own {
			to := net.JoinHostPort(a.String(), strconv.Itoa(int(w.port)))
			c, err := s.Router.Call(netip.AddrPort{}, w.proto, to, longEnough)
			if err == nil {
				err = c.Ping(w.tag, longEnough)
				_ = c.Close()
			}
			if err != nil {
				t.Errorf("%v: the router does not reach itself at %v: %v", w, a, err)
			}
		}
	}
	// The router's own connections, from and to the very ports that are guarded.
	const port = 40080
	s.rules.KnockPort = 0
	for _, proto := range []firewall.Proto{firewall.TCP, firewall.UDP} {
		s.Stranger.Serve(t, proto, port, tagOther)
	}
	from := uint16(40000)
	for _, guard := range []firewall.Guard{firewall.GuardDrop, firewall.GuardReject} {
		for _, forward := range []bool{false, true} {
			s.rules.Services = nil
			for i, proto := range []firewall.Proto{firewall.TCP, firewall.UDP} {
				service := firewall.Service{Name: "high-" + proto.String(), Cut: true, Guard: guard}
				if forward {
					service.Forward = &firewall.Forward{
						Port: firewall.Ports{Proto: proto, First: from + uint16(i), Last: from + uint16(i)},
						To4:  netip.AddrPortFrom(s.LANHost.IP4, port), To6: netip.AddrPortFrom(s.LANHost.IP6, port),
					}
				} else {
					service.Open = []firewall.Ports{{Proto: proto, First: 30000, Last: 65000}}
				}
				s.rules.Services = append(s.rules.Services, service)
			}
			s.must(s.Apply(s.rules, nil))
			for i, proto := range []firewall.Proto{firewall.TCP, firewall.UDP} {
				s.callsOut(from+uint16(i), proto, port, fmt.Sprintf("guard %v, forward %v", guard, forward))
			}
			from += 2
		}
	}
}

// callsOut fails the test unless the router can talk to the stranger from one of its ports.
func (s *scene) callsOut(from uint16, proto firewall.Proto, to uint16, when string) {
	s.Helper()
	for _, v6 := range s.families() {
		c, err := s.Router.Call(netip.AddrPortFrom(s.Router.Addr(v6), from), proto, s.Stranger.At(v6, to), longEnough)
		if err == nil {
			s.Cleanup(func() { _ = c.Close() })
			err = c.Ping(tagOther, longEnough)
		}
		if err == nil {
			err = c.Stream()
		}
		if err != nil {
			s.Errorf("%s: %v from a guarded port of the router, v6 %v: %v", when, proto, v6, err)
		}
	}
}

// testOtherHost: what passes the router to the same port of another host is not taken, guarded or cut.
func testOtherHost(t *testing.T, f Factory) {
	s := newScene(t, f, cut)
	s.rules.AlwaysAllow = []netip.Prefix{netip.PrefixFrom(s.LANHost.IP4, 32)} // its forwards would match
	s.must(s.Apply(s.rules, nil))
	served := map[uint16]bool{}
	for _, w := range s.ways {
		if !served[w.port] {
			served[w.port] = true
			s.Stranger.Serve(t, w.proto, w.port, tagOther)
		}
	}
	s.every(func(w way) {
		c, err := s.LANHost.Call(netip.AddrPort{}, w.proto, s.Stranger.At(w.v6, w.port), longEnough)
		if err == nil {
			err = c.Ping(tagOther, longEnough)
		}
		if err == nil {
			err = c.Stream()
		}
		if err != nil {
			t.Errorf("the LAN host to the same port as %v of another host: %v", w, err)
		}
	})
}
