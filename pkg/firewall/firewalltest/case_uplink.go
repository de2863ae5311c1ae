package firewalltest

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// guarded holds that all ways are shut, opens them for the laptop, and shuts them again.
func (s *scene) guarded(when string) {
	s.Helper()
	s.every(func(w way) { s.shut(s.Laptop, w, when+", before") })
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.every(func(w way) {
		s.open(s.Laptop, w, when+", opened")
		s.shut(s.Stranger, w, when+", opened for another")
	})
	calls, streams := s.lasting(s.Laptop)
	s.must(s.Shut(s.doors(s.Laptop, 0)...))
	s.every(func(w way) { s.dead(w, calls[w], streams[w], when+": its door was shut") })
}

// testBridgeUplink: the uplink is a port of a bridge, whose packets meet the rules of IP once, or twice.
func testBridgeUplink(t *testing.T, f Factory) {
	s := newScene(t, f, cut)
	s.must(s.Router.BridgeUplink())
	for _, on := range []bool{false, true} {
		s.must(s.Router.FilterBridges(on))
		s.guarded(fmt.Sprintf("bridges filtered %v", on))
	}
}

// testTunnelUplink: the uplink is a link from point to point, without Ethernet.
func testTunnelUplink(t *testing.T, f Factory) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s := newScene(t, f, cut)
	s.must(s.Router.TunnelUplink())
	s.guarded("over a tunnel")
}

// testAddressChange: the uplink's addresses change while doors are open. The rules know none of them.
func testAddressChange(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.must(s.Open(s.doors(s.Laptop, time.Hour)...))
	s.every(func(w way) { s.open(s.Laptop, w, "before the change") })
	var old []way
	for _, w := range s.ways {
		if w.tag != tagHole {
			w.at = s.Router.Addr(w.v6)
			old = append(old, w)
		}
	}
	for _, text := range []string{"198.51.100.7", "2001:db8:2::7"} {
		if a := netip.MustParseAddr(text); a.Is4() || s.hasIPv6() {
			s.must(s.Router.MoveTo(a))
		}
	}
	s.every(func(w way) {
		s.open(s.Laptop, w, "at the new address")
		s.shut(s.Stranger, w, "at the new address")
	})
	for _, w := range old {
		if c, err := s.call(s.Laptop, w, shortEnough); err == nil {
			_ = c.Close()
			t.Errorf("%v still answers at the old address", w)
		}
	}
	s.must(s.Shut(s.doors(s.Laptop, 0)...))
	s.every(func(w way) { s.shut(s.Laptop, w, "shut") })
}

// hostRoutes is what a router with two uplinks has of its own: connections remember where they came in, and answers go
// out there.
const hostRoutes = `table inet host {
	chain prerouting {
		type filter hook prerouting priority mangle
		iifname "up1" ct direction original ct mark set 102
		ct direction reply ct mark 102 meta mark set 102
	}
}`

// strictProvider drops what comes from a customer over another line than the address belongs to.
const strictProvider = `table inet strict {
	chain prerouting {
		type filter hook prerouting priority raw
		ip saddr { 203.0.113.1, 198.51.100.1 } fib saddr . iif oif 0 drop
		ip6 saddr { 2001:db8:1::1, 2001:db8:2::1 } fib saddr . iif oif 0 drop
	}
}`

// testTwoUplinks: a door holds for both, and what comes over one is answered over it.
func testTwoUplinks(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	s.requires("nft")
	second := s.AddUplink(s.Router, "198.51.100.1", "2001:db8:2::1")
	for _, load := range []struct {
		h     *Host
		rules string
	}{{s.Router, hostRoutes}, {s.Internet, strictProvider}} {
		cmd := load.h.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(load.rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft at %s: %v\n%s", load.h.Name, err, out)
		}
	}
	doors := s.doors(s.Laptop, time.Hour)
	for _, w := range s.ways {
		// A server that is bound to no address sends its UDP answers from whatever the route says.
		if own := w.proto == firewall.UDP && w.tag == tagRouter; !own && w.tag != tagHole {
			w.at = second.Addr(w.v6)
			s.ways = append(s.ways, w)
		}
	}
	s.every(func(w way) { s.shut(s.Laptop, w, "before") })
	s.must(s.Open(doors...))
	s.every(func(w way) {
		s.open(s.Laptop, w, "opened, to "+s.to(w))
		s.shut(s.Stranger, w, "opened for another, to "+s.to(w))
	})
}
