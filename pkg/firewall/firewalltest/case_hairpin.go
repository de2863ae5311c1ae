package firewalltest

import (
	"net/netip"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// testHairpin: a neighbour of the LAN host comes by the router's public address. Without lan the LAN host answers it
// directly, from an address that it does not expect.
func testHairpin(t *testing.T, f Factory) {
	s := newScene(t, f, cut)
	lan := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	neighbour := s.AddNeighbour("neighbour", s.LANHost, "192.168.1.51", "fd00:1::51", lan...)
	all := s.ways
	s.ways = nil
	for _, w := range all {
		if w.tag == tagLAN {
			s.ways = append(s.ways, w)
		}
	}
	doors := append(s.doors(neighbour, time.Hour), s.doors(s.Laptop, time.Hour)...)
	s.must(s.Apply(s.rules, doors))
	s.every(func(w way) {
		if c, err := s.call(neighbour, w, shortEnough); err == nil {
			_ = c.Close()
			t.Errorf("%v: without lan there is an answer, so that this lab shows nothing", w)
		}
		s.open(s.Laptop, w, "without lan")
	})
	s.rules.LAN = lan
	s.must(s.Apply(s.rules, nil))
	s.every(func(w way) { s.shut(neighbour, w, "lan, but no door") })
	seen, outside := s.seenFrom(neighbour), map[way]int{}
	for _, w := range s.ways {
		outside[w] = s.servers[w.service].Seen(s.Laptop.Addr(w.v6))
	}
	s.must(s.Apply(s.rules, doors))
	s.every(func(w way) {
		s.open(neighbour, w, "lan and a door")
		s.open(s.Laptop, w, "from outside")
	})
	for _, w := range s.ways {
		router := RouterLAN4
		if w.v6 {
			router = RouterLAN6
		}
		if s.servers[w.service].Seen(router) == 0 {
			t.Errorf("%v: nothing came from the router's address in the LAN", w)
		}
		if s.servers[w.service].Seen(s.Laptop.Addr(w.v6)) == outside[w] {
			t.Errorf("%v: the laptop's own address is not seen", w)
		}
	}
	if now := s.seenFrom(neighbour); now != seen {
		t.Errorf("%d packets came with the neighbour's own address, %d before", now, seen)
	}
	s.straight(neighbour)
	calls, streams := s.lasting(neighbour)
	s.must(s.Shut(s.doors(neighbour, 0)...))
	s.every(func(w way) {
		if calls[w].Ping(w.tag, shortEnough) == nil || !streams[w].Silent(2*shortEnough) {
			t.Errorf("%v: the neighbour's connection lives after its door was shut", w)
		}
		s.open(s.Laptop, w, "another's door was shut")
	})
	s.rules.AlwaysAllow = lan
	s.must(s.Apply(s.rules, nil))
	s.every(func(w way) { s.open(neighbour, w, "always allowed") })
	s.strangerUnseen()
}

// seenFrom counts what servers have seen from a host.
func (s *scene) seenFrom(h *Host) (n int) {
	for _, server := range s.servers {
		n += server.Seen(h.IP4) + server.Seen(h.IP6)
	}
	return n
}

// straight: what the neighbour sends to the same ports elsewhere keeps its address.
func (s *scene) straight(h *Host) {
	s.Helper()
	for _, w := range s.ways {
		if w.proto != firewall.TCP {
			continue
		}
		network := "tcp4"
		if w.v6 {
			network = "tcp6"
		}
		l, err := s.Stranger.Listen(network, s.Stranger.At(w.v6, w.port))
		s.must(err)
		c, err := h.Dial("tcp", s.Stranger.At(w.v6, w.port), longEnough)
		if err != nil {
			s.Errorf("%v: to the same port of another host: %v", w, err)
		} else {
			there, err := l.Accept()
			s.must(err)
			if from := netip.MustParseAddrPort(there.RemoteAddr().String()); from.Addr().Unmap() != h.Addr(w.v6) {
				s.Errorf("%v: to the same port of another host it comes from %v", w, from)
			}
			_ = there.Close()
			_ = c.Close()
		}
		_ = l.Close()
	}
}
