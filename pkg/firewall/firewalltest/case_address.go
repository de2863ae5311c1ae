package firewalltest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// testAddresses: a port is guarded at every address of the router's, also those that no configuration names: the one that
// is only good on a link, and the anycast address of a network's routers (RFC 4291, section 2.6.1).
func testAddresses(t *testing.T, f Factory) {
	const guarded, unguarded = 2900, 2901
	s := newScene(t, f, nil)
	s.rules.Services = []firewall.Service{{Name: "any", Open: []firewall.Ports{{Proto: firewall.UDP, First: guarded, Last: guarded}}}}
	s.must(s.Apply(s.rules, nil))
	hidden := s.Router.serve(t, "udp", guarded, tagRouter)
	public := s.Router.serve(t, "udp", unguarded, tagRouter)
	for _, c := range []struct {
		name string
		from *Host
		to   netip.Addr
	}{
		{"address on the LAN", s.Stranger, RouterLAN4},
		{"IPv6 address on the LAN", s.Stranger, RouterLAN6},
		{"link-local address", s.Internet, s.Router.hops.down6},
		{"anycast address", s.Stranger, s.Router.anycast(t)},
	} {
		if c.to.Is6() && !s.hasIPv6() {
			continue
		}
		from := c.from.Addr(c.to.Is6())
		if c.to.IsLinkLocalUnicast() {
			from = s.Router.hops.up6
		}
		before := public.Seen(from)
		for until := time.Now().Add(longEnough); public.Seen(from) == before && time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
			s.must(c.from.send(s.Router.down, c.to, guarded))
			s.must(c.from.send(s.Router.down, c.to, unguarded))
		}
		if public.Seen(from) == before {
			t.Errorf("%s: the test's packet does not even arrive at a port that is not guarded", c.name)
		}
		if n := hidden.Seen(from); n != 0 {
			t.Errorf("%s: %d packets got past the guard", c.name, n)
		}
	}
}

// anycast gives a router an IPv6 network, and returns the address that all routers of a network have.
func (h *Host) anycast(t *testing.T) netip.Addr {
	t.Helper()
	all := netip.MustParseAddr("2001:db8:77::")
	if !h.HasIPv6() {
		return all
	}
	link, err := h.links.LinkByName(h.up)
	if err == nil {
		own := &net.IPNet{IP: all.Next().AsSlice(), Mask: net.CIDRMask(64, 128)}
		err = h.links.AddrAdd(link, &netlink.Addr{IPNet: own, Flags: unix.IFA_F_NODAD})
	}
	if err == nil {
		err = h.announce(all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// send sends one ping by UDP; a link-local address is on the link of that name.
func (h *Host) send(name string, to netip.Addr, port uint16) error {
	at := &net.UDPAddr{IP: to.AsSlice(), Port: int(port)}
	if to.IsLinkLocalUnicast() {
		link, err := h.links.LinkByName(name)
		if err != nil {
			return err
		}
		at.Zone = strconv.Itoa(link.Attrs().Index) // by name it would be looked up in another namespace
	}
	c, err := h.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.WriteTo(binary.BigEndian.AppendUint64(nil, pings.Add(1)), at)
	return err
}
