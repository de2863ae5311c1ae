package firewalltest

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
)

// Lab is a small internet with a router and what is behind it, each host a network namespace:
//
//	laptop   203.0.113.10   2001:db8:10::10 ---+
//	stranger 203.0.113.66   2001:db8:66::66 ---+--- internet --- router 203.0.113.1 2001:db8:1::1
//	(AddHost, AddHome)                      ---+                   |    192.168.1.1 fd00:1::1
//	                                                            lanhost 192.168.1.50 fd00:1::50
//
// Everybody reaches everybody by routes alone; there is no filter and, but for AddHome, no NAT. Links are veth pairs,
// so what a LAN host sends always passes the router, until AddNeighbour puts a bridge there. The router's uplink can become
// another kind of link, and have a second one beside it. There are no names and no default firewall rules.
type Lab struct {
	Internet *Host // the provider in between; tests rarely need it
	Laptop   *Host
	Stranger *Host
	Router   *Host // its Addr is the public one
	LANHost  *Host

	tb    testing.TB
	links int
}

// The router's addresses on its LAN.
var (
	RouterLAN4 = netip.MustParseAddr("192.168.1.1")
	RouterLAN6 = netip.MustParseAddr("fd00:1::1")
)

// NewLab makes a lab and takes it down when the test ends. Where labs can't be had it skips the test with the reason,
// or fails it with CI=true.
func NewLab(tb testing.TB) *Lab {
	tb.Helper()
	if missing != "" {
		if os.Getenv("CI") == "true" {
			tb.Fatal(missing)
		}
		tb.Skip(missing)
	}
	l := &Lab{tb: tb}
	l.Internet = l.host("internet", nil)
	l.Laptop = l.AddHost("laptop", l.Internet, "203.0.113.10", "2001:db8:10::10")
	l.Stranger = l.AddHost("stranger", l.Internet, "203.0.113.66", "2001:db8:66::66")
	l.Router = l.AddHost("router", l.Internet, "203.0.113.1", "2001:db8:1::1")
	l.LANHost = l.AddHost("lanhost", l.Router, "192.168.1.50", "fd00:1::50")
	l.check(l.Router.addOwn(l.Router.up, RouterLAN4))
	l.check(l.Router.addOwn(l.Router.up, RouterLAN6))
	for _, a := range []netip.Addr{RouterLAN4, RouterLAN6} {
		l.check(l.Router.announce(a))
	}
	return l
}

// AddHost adds a host that is connected to via, with these addresses; an empty one leaves that family out.
func (l *Lab) AddHost(name string, via *Host, ip4, ip6 string) *Host {
	l.tb.Helper()
	h := l.host(name, via)
	l.check(h.connect("up0"))
	for _, text := range []string{ip4, ip6} {
		if text != "" {
			a := netip.MustParseAddr(text)
			l.check(h.AddAddr(a))
			l.check(h.use(a))
		}
	}
	return h
}

// AddHome adds a home that hides its hosts behind one IPv4 address (masquerading); IPv6 addresses stay what they are.
// The number makes addresses of several homes differ: the gateway has 203.0.113.(100+n), laptops behind it are added
// with AddHost(name, home, "10.n.0.x", "2001:db8:1nn::x").
func (l *Lab) AddHome(n int) *Host {
	l.tb.Helper()
	home := l.AddHost(fmt.Sprintf("home%d", n), l.Internet,
		fmt.Sprintf("203.0.113.%d", 100+n), fmt.Sprintf("2001:db8:%d::1", 100+n))
	l.check(home.masquerade())
	return home
}

func (l *Lab) check(err error) {
	if err != nil {
		l.tb.Helper()
		l.tb.Fatalf("lab: %v", err)
	}
}
