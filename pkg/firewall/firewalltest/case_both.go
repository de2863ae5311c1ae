package firewalltest

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// testBoth: a service has ports of the router itself and one that it forwards, and a door lets through each to where it
// belongs.
func testBoth(t *testing.T, f Factory) {
	for _, guard := range []firewall.Guard{firewall.GuardDrop, firewall.GuardReject, firewall.GuardOff} {
		for _, ends := range []bool{false, true} {
			t.Run(fmt.Sprintf("guard %v, cut %v", guard, ends), func(t *testing.T) { both(t, f, guard, ends) })
		}
	}
}

func both(t *testing.T, f Factory, guard firewall.Guard, ends bool) {
	s := newScene(t, f, nil)
	s.public = guard != firewall.GuardDrop
	apart := s.rules.Services
	s.rules.Services = nil
	for _, service := range apart {
		if service.Forward != nil && !service.Hole().IsValid() {
			last := len(s.rules.Services) - 1
			s.rules.Services[last].Forward = service.Forward
			for i, w := range s.ways {
				if w.service == service.Name {
					s.ways[i].service = s.rules.Services[last].Name
				}
			}
			continue
		}
		service.Guard, service.Cut = guard, ends
		s.rules.Services = append(s.rules.Services, service)
	}
	s.must(s.Apply(s.rules, nil))
	for _, door := range s.doors(s.Laptop, time.Hour) { // each is there twice, once for either way
		s.must(s.Open(door))
	}
	s.every(func(w way) {
		s.open(s.Laptop, w, "opened")
		err := s.stage.reach(s.Stranger, netip.AddrPort{}, w, shortEnough)
		switch guard {
		case firewall.GuardDrop:
			if !timedOut(err) {
				s.Errorf("%v answers the stranger: %v", w, err)
			}
		case firewall.GuardReject:
			if !refused(err) {
				s.Errorf("%v does not refuse the stranger: %v", w, err)
			}
		}
	})
}

// testToItself: a forward leads to an address of the router's own, where the port has the same number.
func testToItself(t *testing.T, f Factory) {
	for _, guard := range []firewall.Guard{firewall.GuardDrop, firewall.GuardReject} {
		t.Run(guard.String(), func(t *testing.T) {
			s := newScene(t, f, func(s *firewall.Service) { s.Guard = guard })
			for i, service := range s.rules.Services {
				if service.Forward != nil {
					port := service.Forward.Port
					s.rules.Services[i].Forward = &firewall.Forward{
						Port: port, To4: netip.AddrPortFrom(RouterLAN4, port.First), To6: netip.AddrPortFrom(RouterLAN6, port.First),
					}
				}
			}
			s.ways = slices.DeleteFunc(s.ways, func(w way) bool { // a UDP server answers from the address that it likes
				return w.tag != tagLAN || w.proto != firewall.TCP
			})
			for i := range s.ways {
				s.ways[i].tag = tagDecoy
			}
			s.decoys = nil
			s.must(s.Apply(s.rules, nil))
			s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
			s.every(func(w way) { s.open(s.Laptop, w, "opened") })
		})
	}
}
