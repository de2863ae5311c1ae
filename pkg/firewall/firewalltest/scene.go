package firewalltest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// Factory makes a backend that works in the router's network namespace.
type Factory func(tb testing.TB, router *Host) firewall.Backend

// scene is a lab with a backend on its router and servers behind every door; for the Fake, on paper.
type scene struct {
	*testing.T
	*Lab
	firewall.Backend
	stage   stage
	rules   firewall.Ruleset
	ways    []way
	servers map[string]*Server // by service
	decoys  map[string]*Server // on the router, at the ports that are forwarded
	public  bool               // the stranger may be seen
}

// way is one way in: a service, by one family. Services have one port each.
type way struct {
	service string
	v6      bool
	proto   firewall.Proto
	port    uint16
	tag     byte
	at      netip.Addr // the host's own address if it leads through a pinhole; otherwise the router's
}

// toRouter is a way that begins at a port of the router.
func toRouter(service string, v6 bool, proto firewall.Proto, port uint16, tag byte) way {
	return way{service: service, v6: v6, proto: proto, port: port, tag: tag}
}

// to returns where a way begins.
func (l *Lab) to(w way) string {
	if w.at.IsValid() {
		return netip.AddrPortFrom(w.at, w.port).String()
	}
	return l.Router.At(w.v6, w.port)
}

func (w way) String() string {
	if w.v6 {
		return w.service + " IPv6"
	}
	return w.service + " IPv4"
}

// The tags of servers.
const (
	tagRouter = 'r'
	tagLAN    = 'l'
	tagDecoy  = 'd'
	tagOther  = 'o'
	tagHole   = 'h'
)

const (
	knockPort = 41372
	testMark  = 1 << 20
)

// newScene makes the six services, each changed by change, and applies them.
func newScene(t *testing.T, factory Factory, change func(*firewall.Service)) *scene {
	t.Helper()
	s := &scene{T: t, servers: map[string]*Server{}, decoys: map[string]*Server{}}
	s.setUp(factory)
	s.rules = firewall.Ruleset{KnockPort: knockPort, Mark: testMark}
	for i, proto := range []firewall.Proto{firewall.TCP, firewall.UDP} {
		open, forward := uint16(2001+i), uint16(2003+i)
		s.add(firewall.Service{Name: "open-" + proto.String(), Open: []firewall.Ports{{Proto: proto, First: open, Last: open}}}, change)
		s.servers["open-"+proto.String()] = s.serve(s.Router, proto, open, tagRouter)
		name, to := "forward-"+proto.String(), forward+1000
		s.add(firewall.Service{Name: name, Forward: &firewall.Forward{
			Port: firewall.Ports{Proto: proto, First: forward, Last: forward},
			To4:  netip.AddrPortFrom(s.LANHost.IP4, to), To6: netip.AddrPortFrom(s.LANHost.IP6, to),
		}}, change)
		s.servers[name] = s.serve(s.LANHost, proto, to, tagLAN)
		s.decoys[name] = s.serve(s.Router, proto, forward, tagDecoy)
		for _, v6 := range s.families() {
			s.ways = append(s.ways, toRouter("open-"+proto.String(), v6, proto, open, tagRouter), toRouter(name, v6, proto, forward, tagLAN))
		}
		s.pinhole(proto, uint16(2005+i), change)
	}
	s.Backend = s.backend()
	s.must(s.Apply(s.rules, nil))
	t.Cleanup(s.strangerUnseen)
	return s
}

// pinhole adds a service for the LAN host's own IPv6 address.
func (s *scene) pinhole(proto firewall.Proto, port uint16, change func(*firewall.Service)) {
	s.Helper()
	name := "hole-" + proto.String()
	s.add(firewall.Service{Name: name, Forward: &firewall.Forward{
		Port: firewall.Ports{Proto: proto, First: port, Last: port}, Hole: firewall.Hole{Addr: s.LANHost.IP6, Bits: 128},
	}}, change)
	s.servers[name] = s.serve(s.LANHost, proto, port, tagHole)
	if s.hasIPv6() {
		s.ways = append(s.ways, way{service: name, v6: true, proto: proto, port: port, tag: tagHole, at: s.LANHost.IP6})
	}
}

func (s *scene) add(service firewall.Service, change func(*firewall.Service)) {
	if change != nil {
		change(&service)
	}
	s.rules.Services = append(s.rules.Services, service)
}

// backend makes a backend, as another process has it, that is closed when the test ends.
func (s *scene) backend() firewall.Backend {
	s.Helper()
	return s.stage.backend()
}

func (s *scene) must(err error) {
	if err != nil {
		s.Helper()
		s.Fatal(err)
	}
}

// strangerUnseen holds at the end of every test that doesn't say otherwise.
func (s *scene) strangerUnseen() {
	if s.public {
		return
	}
	for _, all := range []map[string]*Server{s.servers, s.decoys} {
		for name, server := range all {
			if n := server.Seen(s.Stranger.IP4) + server.Seen(s.Stranger.IP6); n != 0 {
				s.Errorf("%s: %d packets of the stranger got through", name, n)
			}
		}
	}
	for name, decoy := range s.decoys {
		if n := decoy.Seen(s.Laptop.IP4) + decoy.Seen(s.Laptop.IP6); n != 0 {
			s.Errorf("%s: %d packets of the laptop reached the router's own port", name, n)
		}
	}
}

// every runs f for all ways at the same time.
func (s *scene) every(f func(way)) {
	s.Helper()
	var wg sync.WaitGroup
	for _, w := range s.ways {
		wg.Go(func() { f(w) })
	}
	wg.Wait()
}

// doors returns a door for the address's host through every way.
func (s *scene) doors(h *Host, ttl time.Duration) []firewall.Door {
	var all []firewall.Door
	for _, w := range s.ways {
		all = append(all, s.door(w, h.Addr(w.v6), ttl))
	}
	return all
}

func (s *scene) door(w way, from netip.Addr, ttl time.Duration) firewall.Door {
	service, _ := s.rules.Service(w.service)
	return firewall.Door{Service: w.service, Source: service.Prefix(from), TTL: ttl}
}

// call connects through a way and pings once.
func (s *scene) call(h *Host, w way, timeout time.Duration) (*Call, error) {
	return s.Lab.call(h, netip.AddrPort{}, w, timeout)
}

func (l *Lab) call(h *Host, from netip.AddrPort, w way, timeout time.Duration) (*Call, error) {
	c, err := h.Call(from, w.proto, l.to(w), timeout)
	if err != nil {
		return nil, err
	}
	if err := c.Ping(w.tag, timeout); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// open fails the test unless the way is open for the host now.
func (s *scene) open(h *Host, w way, when string) {
	s.Helper()
	s.openFrom(h, netip.AddrPort{}, w, when)
}

func (s *scene) openFrom(h *Host, from netip.AddrPort, w way, when string) {
	s.Helper()
	if err := s.stage.reach(h, from, w, longEnough); err != nil {
		s.Errorf("%s: %v is shut for the %s: %v", when, w, h.Name, err)
	}
}

// shut fails the test if the way is open for the host, or answers at all.
func (s *scene) shut(h *Host, w way, when string) {
	s.Helper()
	s.shutFrom(h, netip.AddrPort{}, w, when)
}

func (s *scene) shutFrom(h *Host, from netip.AddrPort, w way, when string) {
	s.Helper()
	switch err := s.stage.reach(h, from, w, shortEnough); {
	case err == nil:
		s.Errorf("%s: %v is open for the %s", when, w, h.Name)
	case !timedOut(err):
		s.Errorf("%s: %v answers the %s: %v", when, w, h.Name, err)
	}
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// shutsAt waits until the way is shut for the host, and fails the test if it is not a second after its time.
func (s *scene) shutsAt(h *Host, w way, due time.Time) {
	s.Helper()
	time.Sleep(time.Until(due))
	for {
		begun := time.Now()
		if s.stage.reach(h, netip.AddrPort{}, w, shortEnough) != nil {
			return
		}
		if begun.After(due.Add(time.Second)) {
			s.Errorf("%v is open %v after its time", w, begun.Sub(due).Round(time.Millisecond))
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// sources lists doors without their time, in order, for comparison.
func sources(doors []firewall.Door) string {
	var all []string
	for _, d := range doors {
		all = append(all, fmt.Sprintf("%s %v", d.Service, d.Source))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}
