package firewalltest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddNeighbour adds a host to the network of another one, on a bridge of the router that both are connected to: they
// reach each other without the router. The networks say who else is there.
func (l *Lab) AddNeighbour(name string, of *Host, ip4, ip6 string, networks ...netip.Prefix) *Host {
	l.tb.Helper()
	n := l.AddHost(name, of.via, ip4, ip6)
	const bridge = "lan0"
	l.check(of.via.addBridge(bridge, of.down, n.down))
	for _, h := range []*Host{of, n} {
		h.down = bridge
		for _, p := range networks {
			l.check(h.onLink(p))
		}
	}
	for _, a := range []netip.Addr{RouterLAN4, RouterLAN6} {
		l.check(l.Router.move(a, l.Router.up, bridge))
	}
	return n
}

// BridgeUplink makes the host's uplink a port of a bridge, which has the addresses from then on.
func (h *Host) BridgeUplink() error {
	port := h.up
	h.up = "br0"
	return h.addBridge(h.up, port)
}

// addBridge makes a bridge of links, with their addresses and routes.
func (h *Host) addBridge(name string, ports ...string) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := h.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("making a bridge at %s: %w", h.Name, err)
	}
	if err := h.links.LinkSetUp(bridge); err != nil {
		return err
	}
	if err := h.FilterBridges(false); err != nil {
		return err
	}
	for _, p := range ports {
		link, err := h.links.LinkByName(p)
		if err != nil {
			return err
		}
		if err := h.links.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("making %s of %s a port of a bridge: %w", p, h.Name, err)
		}
		if err := h.ready(name); err != nil {
			return err
		}
		if err := h.carry(p, name); err != nil {
			return err
		}
	}
	return nil
}

// FilterBridges says whether what only passes a bridge goes by the rules of IP too, as it does at the start where the
// kernel can; a switch in front of the router knows no such thing, and sends answers past it.
func (h *Host) FilterBridges(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		if err := h.Sysctl("net/bridge/bridge-nf-call-"+family, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// carry moves addresses and routes from a link to another one.
func (h *Host) carry(from, to string) error {
	old, err := h.links.LinkByName(from)
	if err != nil {
		return err
	}
	next, err := h.links.LinkByName(to)
	if err != nil {
		return err
	}
	addrs, err := h.links.AddrList(old, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	var routes []netlink.Route
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		some, err := h.links.RouteList(old, family)
		if err != nil {
			return err
		}
		routes = append(routes, some...)
	}
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP)
		if err := h.move(addr.Unmap(), from, to); err != nil {
			return err
		}
	}
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue // comes with the address
		}
		r.LinkIndex = next.Attrs().Index
		if err := h.links.RouteReplace(&r); err != nil {
			return fmt.Errorf("moving the route %v of %s: %w", r, h.Name, err)
		}
	}
	return nil
}

// move moves one address from a link to another one.
func (h *Host) move(a netip.Addr, from, to string) error {
	if a.Is6() && !h.HasIPv6() {
		return nil
	}
	link, err := h.links.LinkByName(from)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(a)}
	if a.Is6() && a.IsLinkLocalUnicast() {
		addr.IPNet.Mask = net.CIDRMask(64, 128)
	}
	if err := h.links.AddrDel(link, addr); err != nil {
		return fmt.Errorf("taking %v from %s of %s: %w", a, from, h.Name, err)
	}
	return h.addOwn(to, a)
}

// onLink says that a network is reached without the router.
func (h *Host) onLink(p netip.Prefix) error {
	if p.Addr().Is6() && !h.HasIPv6() {
		return nil
	}
	link, err := h.links.LinkByName(h.up)
	if err != nil {
		return err
	}
	src := h.Addr(p.Addr().Is6())
	err = h.links.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Src: src.AsSlice(),
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
	})
	if err != nil {
		return fmt.Errorf("routing %v at %s: %w", p, h.Name, err)
	}
	return nil
}
