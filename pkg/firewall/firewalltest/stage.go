package firewalltest

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// stage is what a scene plays on, and how it finds out whether a way is open. Cases that use no more than this, and no
// packets of their own, hold for the Fake too.
type stage interface {
	// backend makes a backend as another process has it.
	backend() firewall.Backend
	// reach returns nil if a host comes through a way to the server that it leads to. From is the host's choice if zero.
	reach(h *Host, from netip.AddrPort, w way, timeout time.Duration) error
	addHost(name, ip4, ip6 string) *Host
	addAddr(*Host, netip.Addr) error
	serve(h *Host, proto firewall.Proto, port uint16, tag byte) *Server
	hasIPv6() bool
}

// setUp builds the stage: a lab on a real kernel for a factory's backends, paper for the Fake, which has no factory.
func (s *scene) setUp(factory Factory) {
	s.Helper()
	if factory == nil {
		s.Lab, s.stage = newPaper(s.T)
		return
	}
	s.Lab = NewLab(s.T)
	s.stage = wired{s.T, s.Lab, factory}
}

// AddHost is Lab.AddHost on any stage.
func (s *scene) AddHost(name string, via *Host, ip4, ip6 string) *Host {
	s.Helper()
	if via != s.Internet {
		s.Fatalf("%s is to be connected to %s: scenes have hosts in the internet only", name, via.Name)
	}
	return s.stage.addHost(name, ip4, ip6)
}

func (s *scene) addAddr(h *Host, a netip.Addr) error { return s.stage.addAddr(h, a) }

func (s *scene) serve(h *Host, proto firewall.Proto, port uint16, tag byte) *Server {
	s.Helper()
	return s.stage.serve(h, proto, port, tag)
}

func (s *scene) hasIPv6() bool { return s.stage.hasIPv6() }

// skipIPv6 ends a case that is about IPv6 alone.
func (s *scene) skipIPv6() {
	s.Helper()
	if os.Getenv("CI") == "true" {
		s.Fatal("the kernel has no IPv6")
	}
	s.Skip("the kernel has no IPv6")
}

// families says of each family that there is whether it is IPv6.
func (s *scene) families() []bool {
	if s.hasIPv6() {
		return []bool{false, true}
	}
	return []bool{false}
}

// wired is a Lab, where real packets find out what is open.
type wired struct {
	t       *testing.T
	lab     *Lab
	factory Factory
}

func (s wired) backend() firewall.Backend {
	s.t.Helper()
	b := s.factory(s.t, s.lab.Router)
	s.t.Cleanup(func() { _ = b.Close() })
	return b
}

func (s wired) reach(h *Host, from netip.AddrPort, w way, timeout time.Duration) error {
	c, err := s.lab.call(h, from, w, timeout)
	if err != nil {
		return err
	}
	_ = c.Close()
	return nil
}

func (s wired) addHost(name, ip4, ip6 string) *Host {
	s.t.Helper()
	return s.lab.AddHost(name, s.lab.Internet, ip4, ip6)
}

func (s wired) addAddr(h *Host, a netip.Addr) error { return h.AddAddr(a) }

func (s wired) serve(h *Host, proto firewall.Proto, port uint16, tag byte) *Server {
	s.t.Helper()
	return h.Serve(s.t, proto, port, tag)
}

func (s wired) hasIPv6() bool { return s.lab.Router.HasIPv6() }
