package firewalltest

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// paper is a Lab of names and addresses only, where the Fake says what is open.
type paper struct {
	t      *testing.T
	lab    *Lab
	fake   *Fake // of the last process; all of them share what a kernel would hold
	served map[socket]byte
}

// socket is where a server would listen, on all addresses of a host.
type socket struct {
	host *Host
	port firewall.Ports
}

func newPaper(t *testing.T) (*Lab, *paper) {
	p := &paper{t: t, lab: &Lab{tb: t}, served: map[socket]byte{}}
	p.lab.Internet = p.addHost("internet", "0.0.0.0", "::")
	p.lab.Laptop = p.addHost("laptop", "203.0.113.10", "2001:db8:10::10")
	p.lab.Stranger = p.addHost("stranger", "203.0.113.66", "2001:db8:66::66")
	p.lab.Router = p.addHost("router", "203.0.113.1", "2001:db8:1::1")
	p.lab.LANHost = p.addHost("lanhost", "192.168.1.50", "fd00:1::50")
	return p.lab, p
}

// backend gives a Fake that is as lenient as a real backend.
func (p *paper) backend() firewall.Backend {
	if p.fake == nil {
		p.fake = NewFake(nil).Lenient()
	} else {
		p.fake = p.fake.Reopen()
	}
	return p.fake
}

func (p *paper) addHost(name, ip4, ip6 string) *Host {
	return &Host{Name: name, IP4: netip.MustParseAddr(ip4), IP6: netip.MustParseAddr(ip6), lab: p.lab}
}

func (p *paper) addAddr(*Host, netip.Addr) error { return nil } // a host may ask from any

func (p *paper) hasIPv6() bool { return true }

// serve notes the server; it sees nobody.
func (p *paper) serve(h *Host, proto firewall.Proto, port uint16, tag byte) *Server {
	p.served[socket{h, firewall.Ports{Proto: proto, First: port, Last: port}}] = tag
	return &Server{tag: tag}
}

func (p *paper) reach(h *Host, from netip.AddrPort, w way, _ time.Duration) error {
	addr := from.Addr()
	if !addr.IsValid() {
		addr = h.Addr(w.v6)
	}
	at, ok := p.leads(w, addr)
	switch tag := p.served[at]; {
	case !ok || tag == 0:
		return os.ErrDeadlineExceeded // as from nobody
	case tag != w.tag:
		return fmt.Errorf("%w: %q instead of %q", errWho, tag, w.tag)
	}
	return nil
}

// leads finds the socket that a packet from the address to a way's port would come to; false if a guard keeps it out.
// A port that belongs to no service is guarded by nobody.
func (p *paper) leads(w way, from netip.Addr) (socket, bool) {
	at := socket{p.lab.Router, firewall.Ports{Proto: w.proto, First: w.port, Last: w.port}}
	rules, _ := p.fake.Ruleset()
	if w.at.IsValid() {
		at.host = p.lab.LANHost
		for _, s := range rules.Services {
			if s.Hole().Contains(w.at) && s.Forward.Port.Contains(w.proto, w.port) {
				return at, p.fake.IsOpen(s.Name, from)
			}
		}
		return at, true
	}
	for _, s := range rules.Services {
		for _, ports := range s.Ports() {
			if !ports.Contains(w.proto, w.port) {
				continue
			}
			if s.Forward != nil && ports == s.Forward.Port {
				if to := target(*s.Forward, from); to.Addr() == p.lab.LANHost.Addr(w.v6) {
					port := to.Port() + w.port - ports.First
					at = socket{p.lab.LANHost, firewall.Ports{Proto: w.proto, First: port, Last: port}}
				}
			}
			return at, p.fake.IsOpen(s.Name, from)
		}
	}
	return at, true
}

// onPaper reports whether the scene has the Fake for a backend.
func (s *scene) onPaper() bool {
	_, ok := s.stage.(*paper)
	return ok
}

// underQuestions is underTraffic on paper: while f runs, every way is asked for each millisecond.
func (s *scene) underQuestions(f func()) {
	s.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range s.ways {
		wg.Go(func() {
			for {
				s.open(s.Laptop, w, "meanwhile")
				s.shut(s.Stranger, w, "meanwhile")
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	f()
	close(stop)
	wg.Wait()
}
