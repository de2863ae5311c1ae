package firewalltest

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
		c, err := s.call(s.Laptop, w, longEnough)
		if err == nil {
			_ = c.Close()
		} else if time.Since(opened) < ttl-100*time.Millisecond {
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
	c, err := h.Dial("udp", s.Router.At(w.v6, w.port), longEnough)
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
		c, err := s.Laptop.Call(netip.AddrPort{}, w.proto, s.Router.At(w.v6, w.port), longEnough)
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
			c, err := h.Call(netip.AddrPort{}, w.proto, s.Router.At(w.v6, w.port), longEnough)
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
			in = append(in, way{"range", v6, firewall.UDP, port, tagRouter})
		}
		for _, port := range []uint16{64999, 65000, 65300, 65535} {
			in = append(in, way{"range", v6, firewall.TCP, port, tagRouter})
		}
		out = append(out, way{"range", v6, firewall.UDP, 59999, tagRouter}, way{"range", v6, firewall.UDP, 60011, tagRouter},
			way{"range", v6, firewall.TCP, 64998, tagRouter}, way{"range", v6, firewall.TCP, 60005, tagRouter},
			way{"range", v6, firewall.UDP, 4, tagRouter})
	}
	served := map[firewall.Ports]bool{}
	for _, w := range append(in, out...) {
		if p := (firewall.Ports{Proto: w.proto, First: w.port, Last: w.port}); !served[p] {
			served[p] = true
			s.Router.Serve(t, w.proto, w.port, tagRouter)
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

func (s *scene) families() []bool {
	if s.Router.HasIPv6() {
		return []bool{false, true}
	}
	return []bool{false}
}

func testPrefix(t *testing.T, f Factory) {
	s := newScene(t, f, func(s *firewall.Service) { s.IPv6Prefix = 64 })
	if !s.Router.HasIPv6() {
		t.Skip("the kernel has no IPv6")
	}
	near, far := netip.MustParseAddr("2001:db8:10::ffff"), netip.MustParseAddr("2001:db8:10:1::10")
	s.must(s.Laptop.AddAddr(near))
	s.must(s.Laptop.AddAddr(far))
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
	s.must(s.Laptop.AddAddr(one))
	s.must(s.Laptop.AddAddr(twelve))
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
		if service, _ := s.rules.Service(w.service); service.Forward != nil && w.v6 {
			s.shut(s.Laptop, w, "no IPv6 target") // and the scene sees to it that the router's own port got nothing
		} else {
			s.open(s.Laptop, w, "always allowed")
		}
	})
}

func testMulticast(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	const guarded, unguarded = 2900, 2901
	s.rules.Services = []firewall.Service{{Name: "cast", Open: []firewall.Ports{{Proto: firewall.UDP, First: guarded, Last: guarded}}}}
	s.must(s.Apply(s.rules, nil))
	for _, v6 := range s.families() {
		// The host on the other end of the router's link sends to all hosts there. A port that nobody guards gets it.
		network, group, from := "udp4", "224.0.0.1", s.Router.hops.up4
		if v6 {
			network, group, from = "udp6", "ff02::1", s.Router.hops.up6
		}
		hidden := s.Router.serve(t, network, guarded, tagRouter)
		public := s.Router.serve(t, network, unguarded, tagRouter)
		s.must(s.Internet.shout(s.Router.down, group, guarded))
		s.must(s.Internet.shout(s.Router.down, group, unguarded))
		for until := time.Now().Add(longEnough); public.Seen(from) == 0 && time.Now().Before(until); {
			time.Sleep(10 * time.Millisecond)
		}
		if public.Seen(from) == 0 {
			t.Errorf("the test's packet to %s does not even arrive at a port that is not guarded", group)
		}
		if n := hidden.Seen(from); n != 0 {
			t.Errorf("%d packets to %s got past the guard", n, group)
		}
	}
}

// shout sends a ping to a multicast group on a link.
func (h *Host) shout(name, group string, port uint16) error {
	link, err := h.links.LinkByName(name)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	c, err := h.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	to := &net.UDPAddr{IP: net.ParseIP(group), Port: int(port)}
	if to.IP.To4() == nil {
		to.Zone = strconv.Itoa(index) // by name it would be looked up in another namespace
	} else if err := multicastBy(c.(*net.UDPConn), index); err != nil {
		return err
	}
	_, err = c.WriteTo(binary.BigEndian.AppendUint64(nil, pings.Add(1)), to)
	return err
}

// multicastBy makes a socket send its IPv4 multicast packets over the link with that index.
func multicastBy(c *net.UDPConn, index int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
	})
	return errors.Join(err, failed)
}
