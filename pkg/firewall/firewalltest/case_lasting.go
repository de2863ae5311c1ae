package firewalltest

import (
	"testing"
	"time"

	"spad/pkg/firewall"
)

// lasting opens a connection or flow through every way, and one on which the server pushes.
func (s *scene) lasting(h *Host) (calls, streams map[way]*Call) {
	s.Helper()
	calls, streams = map[way]*Call{}, map[way]*Call{}
	for _, w := range s.ways {
		for _, all := range []map[way]*Call{calls, streams} {
			c, err := s.call(h, w, longEnough)
			s.must(err)
			s.Cleanup(func() { _ = c.Close() })
			all[w] = c
		}
		s.must(streams[w].Stream())
	}
	return calls, streams
}

func testKeep(t *testing.T, f Factory) {
	const ttl = time.Second
	s := newScene(t, f, nil)
	s.must(s.Open(s.doors(s.Laptop, ttl)...))
	calls, streams := s.lasting(s.Laptop)
	s.must(s.Open(s.doors(s.Laptop, ttl)...))
	due := time.Now().Add(ttl)
	s.every(func(w way) {
		s.shutsAt(s.Laptop, w, due)
		if err := calls[w].Ping(w.tag, longEnough); err != nil {
			t.Errorf("%v: the established connection ended with its door: %v", w, err)
		}
		if streams[w].Silent(longEnough) {
			t.Errorf("%v: the established stream ended with its door", w)
		}
		s.shut(s.Laptop, w, "a new connection beside established ones")
	})
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.must(s.Shut(s.doors(s.Laptop, 0)...))
	s.every(func(w way) {
		if err := calls[w].Ping(w.tag, longEnough); err != nil {
			t.Errorf("%v: the established connection ended when its door was shut: %v", w, err)
		}
	})
}

func testCut(t *testing.T, f Factory, guard firewall.Guard, loose string) {
	const ttl = time.Second
	s := newScene(t, f, func(s *firewall.Service) { s.Guard, s.Cut = guard, true })
	s.must(s.Router.Sysctl("net/netfilter/nf_conntrack_tcp_loose", loose))
	second := s.AddHost("second", s.Internet, "203.0.113.11", "2001:db8:11::11")
	s.must(s.Open(append(s.doors(s.Laptop, time.Hour), s.doors(second, time.Hour)...)...))
	calls, streams := s.lasting(s.Laptop)
	others, _ := s.lasting(second)
	s.must(s.Open(s.doors(s.Laptop, ttl)...))
	due := time.Now().Add(ttl)
	s.every(func(w way) {
		if err := calls[w].Ping(w.tag, longEnough); err != nil && time.Now().Before(due) {
			t.Errorf("%v: the connection is cut before its time: %v", w, err)
		}
	})
	s.every(func(w way) {
		s.shutsAt(s.Laptop, w, due)
		s.dead(w, calls[w], streams[w], "its door's time is over")
		if err := others[w].Ping(w.tag, longEnough); err != nil {
			t.Errorf("%v: another host's connection is cut as well: %v", w, err)
		}
	})
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	calls, streams = s.lasting(s.Laptop)
	s.must(s.Shut(s.doors(s.Laptop, 0)...))
	s.every(func(w way) { s.dead(w, calls[w], streams[w], "its door was shut") })
}

// dead fails the test if a connection or a stream through a way lives.
func (s *scene) dead(w way, call, stream *Call, when string) {
	s.Helper()
	seen := s.servers[w.service].Seen(s.Laptop.Addr(w.v6))
	if call.Ping(w.tag, shortEnough) == nil {
		s.Errorf("%v: the connection lives after %s", w, when)
	} else if s.servers[w.service].Seen(s.Laptop.Addr(w.v6)) != seen {
		s.Errorf("%v: the connection lives in one direction after %s", w, when)
	}
	if !stream.Silent(2 * shortEnough) {
		s.Errorf("%v: the server's stream goes on after %s", w, when)
	}
}

// testCutOff: the port is open to others by rules of somebody else. Only who came by a door is cut off.
func testCutOff(t *testing.T, f Factory) {
	const ttl = time.Second
	s := newScene(t, f, func(s *firewall.Service) { s.Guard, s.Cut = firewall.GuardOff, true })
	s.public = true
	var direct []way // to forward-… without a door comes to the router's own port
	for _, w := range s.ways {
		if w.tag == tagLAN {
			w.tag = tagDecoy
		}
		direct = append(direct, w)
	}
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	calls, streams := s.lasting(s.Laptop)
	ways := s.ways
	s.ways = direct
	others, pushed := s.lasting(s.Stranger)
	s.ways = ways
	s.must(s.Open(s.doors(s.Laptop, ttl)...))
	time.Sleep(ttl + 100*time.Millisecond)
	s.every(func(w way) {
		until := time.Now().Add(time.Second)
		for calls[w].Ping(w.tag, shortEnough) == nil && time.Now().Before(until) {
			time.Sleep(10 * time.Millisecond)
		}
		s.dead(w, calls[w], streams[w], "its door's time is over")
	})
	for _, w := range direct {
		if err := others[w].Ping(w.tag, longEnough); err != nil {
			t.Errorf("%v: a connection that came by no door is cut: %v", w, err)
		}
		if pushed[w].Silent(longEnough) {
			t.Errorf("%v: a stream that came by no door is cut", w)
		}
	}
}
