package firewalltest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// forwardRanges replaces the scene's services by forwards of several ports, to other ports and to the same, with a
// server of its own tag behind each of the ways, which are the ends and the middle of each range.
func (s *scene) forwardRanges(change func(*firewall.Service)) {
	s.Helper()
	s.rules.Services, s.ways = nil, nil
	var tag byte
	for i, proto := range []firewall.Proto{firewall.TCP, firewall.UDP} {
		for j, r := range []struct{ first, last, to, to6 uint16 }{
			{5000, 5010, 6000, 6500}, // to other ports, far away
			{5100, 5110, 5101, 5109}, // that overlap with these, in both directions
			{5200, 5210, 5200, 5200}, // the same ports
			{5300, 5310, 5300, 5301}, // the same for one family
			{5400, 5400 + firewall.MaxShifted - 1, 20000, 65536 - firewall.MaxShifted},
		} {
			f := &firewall.Forward{
				Port: firewall.Ports{Proto: proto, First: r.first, Last: r.last},
				To4:  netip.AddrPortFrom(s.LANHost.IP4, r.to), To6: netip.AddrPortFrom(s.LANHost.IP6, r.to6),
			}
			name := fmt.Sprintf("range-%d-%d", i, j)
			s.add(firewall.Service{Name: name, Forward: f}, change)
			for _, port := range []uint16{r.first, r.first + 3, r.last} {
				s.decoys[fmt.Sprint(proto, port)] = s.serve(s.Router, proto, port, tagDecoy)
				for _, v6 := range s.families() {
					w := way{service: name, v6: v6, proto: proto, port: port}
					at := r.to + port - r.first
					if v6 {
						at = r.to6 + port - r.first
					}
					w.tag = s.behind(proto, at, &tag)
					s.ways = append(s.ways, w)
				}
			}
		}
	}
	s.must(s.Apply(s.rules, nil))
}

// behind serves a port of the LAN host with a tag of its own, and returns that; the same again for the same port.
func (s *scene) behind(proto firewall.Proto, port uint16, tag *byte) byte {
	s.Helper()
	name := fmt.Sprint("behind ", proto, port)
	if s.servers[name] == nil {
		*tag++
		s.servers[name] = s.serve(s.LANHost, proto, port, *tag)
	}
	return s.servers[name].tag
}

func (s *scene) doorsOfAll(h *Host, ttl time.Duration) []firewall.Door {
	var all []firewall.Door
	for _, service := range s.rules.Services {
		for _, v6 := range s.families() {
			all = append(all, s.door(way{service: service.Name, v6: v6}, h.Addr(v6), ttl))
		}
	}
	return all
}

func testForwardRanges(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.forwardRanges(nil)
	s.every(func(w way) { s.shut(s.Laptop, w, "before") })
	s.must(s.Open(s.doorsOfAll(s.Laptop, time.Hour)...))
	s.every(func(w way) {
		s.open(s.Laptop, w, "in the range")
		s.shut(s.Stranger, w, "in the range")
	})
	for _, port := range []uint16{4999, 5011, 5211} {
		s.serve(s.Router, firewall.TCP, port, tagOther)
		for _, v6 := range s.families() {
			s.open(s.Stranger, toRouter("none", v6, firewall.TCP, port, tagOther), "beside the range")
		}
	}
	s.must(s.Shut(s.doorsOfAll(s.Laptop, 0)...))
	s.every(func(w way) { s.shut(s.Laptop, w, "shut") })
}

// testCutRanges: what ends with its door ends on each port of a range, in both directions.
func testCutRanges(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.forwardRanges(cut)
	s.must(s.Open(s.doorsOfAll(s.Laptop, time.Hour)...))
	calls, streams := s.lasting(s.Laptop)
	s.must(s.Shut(s.doorsOfAll(s.Laptop, 0)...))
	s.every(func(w way) {
		if calls[w].Ping(w.tag, shortEnough) == nil {
			t.Errorf("%v, port %d: the connection lives after its door was shut", w, w.port)
		}
		if !streams[w].Silent(2 * shortEnough) {
			t.Errorf("%v, port %d: the server's stream goes on after its door was shut", w, w.port)
		}
	})
}
