package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// links is the network of this machine.
type links struct{}

func (links) Addresses() ([]Address, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var found []Address
	for _, a := range all {
		addr, ok := netip.AddrFromSlice(a.IP)
		if !ok || addr.IsLoopback() {
			continue
		}
		l, err := linkOf(a.LinkIndex)
		if err == nil {
			found = append(found, Address{l, addr.Unmap()})
		}
	}
	return found, nil
}

func linkOf(index int) (Link, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return Link{}, err
	}
	return Link{l.Attrs().Name, index}, nil
}

func familyOf(v6 bool) int {
	if v6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

func (links) Uplinks(v6 bool) ([]Link, error) {
	routes, err := netlink.RouteListFiltered(familyOf(v6), &netlink.Route{}, 0)
	if err != nil {
		return nil, err
	}
	var found []Link
	for _, r := range routes {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 {
				continue
			}
		}
		if r.Type != 0 && r.Type != unix.RTN_UNICAST {
			continue
		}
		indexes := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			indexes = append(indexes, hop.LinkIndex)
		}
		for _, i := range indexes {
			if l, err := linkOf(i); err == nil && !contains(found, l) {
				found = append(found, l)
			}
		}
	}
	return found, nil
}

func contains(list []Link, l Link) bool {
	for _, have := range list {
		if have == l {
			return true
		}
	}
	return false
}

func (links) Toward(a netip.Addr) (Link, error) {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil {
		return Link{}, err
	}
	if len(routes) == 0 {
		return Link{}, fmt.Errorf("no route to %v", a)
	}
	return linkOf(routes[0].LinkIndex)
}

// PolicyRules knows that every machine has three: local, main, default; the last is missing for IPv6.
func (links) PolicyRules() (bool, error) {
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	return len(rules) > 3, err
}

func (links) Lookup(ctx context.Context, v6 bool, host string) ([]netip.Addr, error) {
	network := "ip4"
	if v6 {
		network = "ip6"
	}
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}
