package firewalltest

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TunnelUplink puts a point-to-point link without Ethernet in the place of the host's uplink, as PPPoE makes one: a pair
// of tun links, between which packets are copied here.
func (h *Host) TunnelUplink() error {
	const near, far = "wan0", "peer0"
	mine, err := h.tun(near)
	if err != nil {
		return err
	}
	theirs, err := h.via.tun(far)
	if err != nil {
		return err
	}
	for _, end := range []struct {
		host     *Host
		from, to string
	}{{h, h.up, near}, {h.via, h.down, far}} {
		if err := end.host.carry(end.from, end.to); err != nil {
			return err
		}
	}
	h.up, h.down = near, far
	go pump(mine, theirs)
	go pump(theirs, mine)
	return nil
}

// tun makes a tun link, which lasts until the test ends.
func (h *Host) tun(name string) (*os.File, error) {
	var fd int
	var err error
	h.Do(func() { fd, err = openTun(name) })
	if err != nil {
		return nil, fmt.Errorf("making the tun link %s of %s: %w", name, h.Name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	h.lab.tb.Cleanup(func() { _ = f.Close() })
	link, err := h.links.LinkByName(name)
	if err != nil {
		return nil, err
	}
	return f, h.links.LinkSetUp(link)
}

func openTun(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// pump copies packets until one of the links is gone.
func pump(from io.Reader, to io.Writer) {
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			_, err = to.Write(b[:n]) // one that the kernel does not take is lost, as on any line
		}
		if errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// uplinkTable is the routing table of a second uplink, and the mark of its connections.
const uplinkTable = 102

// AddUplink gives the host a second uplink with addresses of its own, which everybody can reach: what it sends from them
// takes that way, by a routing rule, and so does what has the mark uplinkTable in its lowest byte. The Host that it returns
// is the same one, as it is known by its second uplink.
func (l *Lab) AddUplink(h *Host, ip4, ip6 string) *Host {
	l.tb.Helper()
	second := &Host{Name: h.Name + "2", lab: l, via: h.via, ns: h.ns, links: h.links}
	l.check(second.connect("up1"))
	for _, a := range []netip.Addr{netip.MustParseAddr(ip4), netip.MustParseAddr(ip6)} {
		l.check(second.AddAddr(a))
		l.check(second.routeFrom(a))
	}
	return second
}

// routeFrom gives an address of the host a default route of its own.
func (h *Host) routeFrom(a netip.Addr) error {
	if a.Is6() && !h.HasIPv6() {
		return nil
	}
	link, err := h.links.LinkByName(h.up)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: everywhere(a), Gw: h.hops.up4.AsSlice(), Src: a.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		Table: uplinkTable,
	}
	family := unix.AF_INET
	if a.Is6() {
		route.Gw, h.IP6, family = h.hops.up6.AsSlice(), a, unix.AF_INET6
	} else {
		h.IP4 = a
	}
	if err := h.links.RouteReplace(route); err != nil {
		return fmt.Errorf("default route of %s from %v: %w", h.Name, a, err)
	}
	from, marked := netlink.NewRule(), netlink.NewRule()
	from.Src = ipNet(a)
	marked.Mark, marked.Mask = uplinkTable, new(uint32)
	*marked.Mask = 0xff
	for _, r := range []*netlink.Rule{from, marked} {
		r.Family, r.Table = family, uplinkTable
		if err := h.links.RuleAdd(r); err != nil {
			return fmt.Errorf("routing rule of %s for %v: %w", h.Name, a, err)
		}
	}
	return nil
}
