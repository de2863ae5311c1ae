package firewalltest

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"spad/pkg/firewall"
)

func testDoor(t *testing.T, f Factory) {
	const ttl = 2 * time.Second
	s := newScene(t, f, nil)
	s.every(func(w way) { s.shut(s.Laptop, w, "before") })
	opened := time.Now()
	s.must(s.Open(s.doors(s.Laptop, ttl)...))
	s.must(s.Close()) // the daemon is dead from here on
	s.every(func(w way) {
		s.open(s.Laptop, w, "opened")
		s.shut(s.Stranger, w, "opened for another")
	})
	time.Sleep(time.Until(opened.Add(ttl / 2)))
	s.every(func(w way) {
		err := s.stage.reach(s.Laptop, netip.AddrPort{}, w, longEnough)
		if err != nil && time.Since(opened) < ttl-100*time.Millisecond {
			t.Errorf("%v is shut before its time: %v", w, err)
		}
	})
	s.every(func(w way) { s.shutsAt(s.Laptop, w, opened.Add(ttl)) })
	s.every(func(w way) { s.shut(s.Laptop, w, "after its time") })
}

func cut(s *firewall.Service) { s.Cut = true }

// march sends a numbered packet every millisecond, from one port, until stop is closed, and returns how many. Nothing
// but the door lets them through if the service is cut, established or not.
func (s *scene) march(h *Host, w way, stop <-chan struct{}) int {
	c, err := h.Dial("udp", s.to(w), longEnough)
	if err != nil {
		s.Error(err)
		return 0
	}
	defer c.Close()
	go func() { // answers are of no interest
		b := make([]byte, 1<<16)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return n
		case <-time.After(time.Millisecond):
			if _, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
				s.Errorf("packet %d through %v: %v", n, w, err)
			}
		}
	}
}

// underTraffic runs f while the laptop sends through every UDP way, and fails the test if a packet is lost. The
// stranger sends as well, and the scene fails if one of his arrives.
func (s *scene) underTraffic(f func()) {
	s.Helper()
	if s.onPaper() {
		s.underQuestions(f)
		return
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range s.ways {
		if w.proto != firewall.UDP {
			continue
		}
		from := s.Laptop.Addr(w.v6)
		before := s.servers[w.service].Seen(from)
		wg.Go(func() {
			sent := s.march(s.Laptop, w, stop)
			seen := func() int { return s.servers[w.service].Seen(from) - before }
			for until := time.Now().Add(longEnough); seen() < sent && time.Now().Before(until); {
				time.Sleep(10 * time.Millisecond) // the server is not done with what has arrived
			}
			if seen() != sent || sent == 0 {
				s.Errorf("%v: of %d packets %d arrived", w, sent, seen())
			}
		})
		wg.Go(func() { s.march(s.Stranger, w, stop) })
	}
	f()
	close(stop)
	wg.Wait()
}

func testRenewal(t *testing.T, f Factory) {
	const ttl = time.Second
	s := newScene(t, f, cut)
	s.must(s.Open(s.doors(s.Laptop, ttl)...))
	s.underTraffic(func() {
		for until := time.Now().Add(2 * ttl); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
			s.must(s.Open(s.doors(s.Laptop, ttl)...))
		}
	})
}

func testRenewedTime(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.must(s.Open(s.doors(s.Stranger, time.Second)...))
	s.public = true
	s.must(s.Open(s.doors(s.Laptop, time.Second)...))
	s.must(s.Open(s.doors(s.Stranger, time.Hour)...))
	shortened := time.Now()
	s.every(func(w way) { s.open(s.Laptop, w, "shortened") })
	s.every(func(w way) { s.shutsAt(s.Laptop, w, shortened.Add(time.Second)) })
	s.every(func(w way) { s.open(s.Stranger, w, "lengthened") })
	s.leftBetween(s.Backend, 50*time.Minute, time.Hour)
}

// leftBetween checks the time left of all doors, as a backend lists it.
func (s *scene) leftBetween(b firewall.Backend, low, high time.Duration) []firewall.Door {
	s.Helper()
	doors, err := b.Doors()
	s.must(err)
	if len(doors) == 0 {
		s.Error("no doors are listed")
	}
	for _, d := range doors {
		if d.TTL < low || d.TTL > high {
			s.Errorf("door of %s for %v has %v left, want %v to %v", d.Service, d.Source, d.TTL, low, high)
		}
	}
	return doors
}

func testShut(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	second := s.AddHost("second", s.Internet, "203.0.113.11", "2001:db8:11::11")
	s.must(s.Open(append(s.doors(s.Laptop, time.Hour), s.doors(second, time.Hour)...)...))
	s.every(func(w way) { s.open(s.Laptop, w, "opened") })
	shut := s.ways[0]
	s.must(s.Shut(s.door(shut, s.Laptop.Addr(shut.v6), 0)))
	s.every(func(w way) {
		if w == shut {
			s.shut(s.Laptop, w, "shut")
		} else {
			s.open(s.Laptop, w, "another one was shut")
		}
		s.open(second, w, "shut for another")
	})
	s.must(s.Shut(s.doors(s.Laptop, 0)...)) // one of them is shut already
	s.every(func(w way) {
		s.shut(s.Laptop, w, "shut")
		s.open(second, w, "shut for another")
	})
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.every(func(w way) { s.open(s.Laptop, w, "opened again") })
}

func testTooEarly(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	calls := map[way]*Call{}
	for _, w := range s.ways {
		if w.proto != firewall.UDP {
			continue
		}
		c, err := s.Laptop.Call(netip.AddrPort{}, w.proto, s.to(w), longEnough)
		s.must(err)
		t.Cleanup(func() { _ = c.Close() })
		calls[w] = c
		if err := c.Ping(w.tag, shortEnough); err == nil {
			t.Errorf("%v is open before", w)
		}
	}
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	for w, c := range calls {
		if err := c.Ping(w.tag, longEnough); err != nil {
			t.Errorf("%v: the flow that was too early does not get through: %v", w, err)
		}
	}
}

func testFragments(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	for _, w := range s.ways {
		if w.proto != firewall.UDP {
			continue
		}
		for _, h := range []*Host{s.Laptop, s.Stranger} {
			c, err := h.Call(netip.AddrPort{}, w.proto, s.to(w), longEnough)
			s.must(err)
			timeout := longEnough
			if h == s.Stranger {
				timeout = shortEnough
			}
			if err := c.ping(w.tag, timeout, 4000); (err == nil) != (h == s.Laptop) {
				t.Errorf("%v: a fragmented packet of the %s: %v", w, h.Name, err)
			}
			_ = c.Close()
		}
	}
}
