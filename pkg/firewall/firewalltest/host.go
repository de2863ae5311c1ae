package firewalltest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// hops are the addresses of a link's ends, which serve as next hops.
type hops struct{ up4, up6, down4, down6 netip.Addr }

// linkHops returns the hops of the link with that number, 1 to 255, in a lab.
func linkHops(n int) hops {
	b := byte(n)
	return hops{
		up4: netip.AddrFrom4([4]byte{169, 254, b, 1}), up6: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 14: b, 15: 1}),
		down4: netip.AddrFrom4([4]byte{169, 254, b, 2}), down6: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 14: b, 15: 2}),
	}
}

// Host is one network namespace of a Lab.
type Host struct {
	Name     string
	IP4, IP6 netip.Addr // what its packets come from, and where it is reached

	lab   *Lab
	via   *Host // nil for the internet
	ns    *os.File
	up    string // the link to via
	down  string // the other end of that link, in via
	hops  hops
	links *netlink.Handle
}

// host makes a namespace without links.
func (l *Lab) host(name string, via *Host) *Host {
	l.tb.Helper()
	h := &Host{Name: name, lab: l, via: via}
	ns, err := newNamespace()
	l.check(err)
	h.ns = ns
	h.links, err = netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	l.check(err)
	l.tb.Cleanup(func() {
		h.links.Close()
		_ = ns.Close()
	})
	l.check(h.Sysctl("net/ipv4/ip_forward", "1"))
	l.check(h.Sysctl("net/ipv4/conf/all/rp_filter", "0"))
	l.check(h.Sysctl("net/ipv4/icmp_ratelimit", "0"))
	if h.HasIPv6() {
		l.check(h.Sysctl("net/ipv6/conf/all/forwarding", "1"))
		l.check(h.Sysctl("net/ipv6/conf/default/accept_dad", "0"))
		l.check(h.Sysctl("net/ipv6/conf/default/addr_gen_mode", "1"))
		l.check(h.Sysctl("net/ipv6/icmp/ratelimit", "0"))
	}
	lo, err := h.links.LinkByName("lo")
	l.check(err)
	l.check(h.links.LinkSetUp(lo))
	return h
}

// newNamespace makes a network namespace. The thread goes back to where it was and lives on: commands that it has
// started would die with it.
func newNamespace() (*os.File, error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	made, err := os.Open("/proc/thread-self/ns/net")
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, fmt.Errorf("leaving a new network namespace: %w", back)
	}
	runtime.UnlockOSThread()
	return made, err
}

// connect makes the link between the host and its via.
func (h *Host) connect(up string) error {
	h.lab.links++
	h.up, h.down, h.hops = up, fmt.Sprintf("%.10s-%d", h.Name, h.lab.links), linkHops(h.lab.links)
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: h.down}, PeerName: h.up, PeerNamespace: netlink.NsFd(h.ns.Fd()),
	}
	if err := h.via.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("linking %s to %s: %w", h.Name, h.via.Name, err)
	}
	for _, end := range []struct {
		host   *Host
		link   string
		v4, v6 netip.Addr
	}{{h.via, h.down, h.hops.up4, h.hops.up6}, {h, h.up, h.hops.down4, h.hops.down6}} {
		link, err := end.host.links.LinkByName(end.link)
		if err != nil {
			return err
		}
		if err := end.host.links.LinkSetUp(link); err != nil {
			return err
		}
		if err := end.host.addOwn(end.link, end.v4); err != nil {
			return err
		}
		if err := end.host.addOwn(end.link, end.v6); err != nil {
			return err
		}
	}
	if err := h.via.ready(h.down); err != nil {
		return err
	}
	return h.ready(h.up)
}

// ready waits until a link sends. A kernel worker sees to that some time after both ends are up, and what is sent before
// is lost, the first neighbour solicitation included, which is repeated only after a second.
func (h *Host) ready(name string) error {
	return eventually(func() (bool, error) {
		link, err := h.links.LinkByName(name)
		return err == nil && link.Attrs().OperState == netlink.OperUp, err
	}, "link %s of %s does not come up", name, h.Name)
}

func eventually(done func() (bool, error), format string, args ...any) error {
	for until := time.Now().Add(longEnough); ; time.Sleep(time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf(format, args...)
		}
	}
}

// addOwn puts an address on a link, usable at once; IPv6 is left out where the kernel has none.
func (h *Host) addOwn(name string, a netip.Addr) error {
	if a.Is6() && !h.HasIPv6() {
		return nil
	}
	link, err := h.links.LinkByName(name)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(a)}
	switch {
	case a.Is6():
		addr.Flags = unix.IFA_F_NODAD
		if a.IsLinkLocalUnicast() {
			addr.IPNet.Mask = net.CIDRMask(64, 128) // without an on-link fe80::/64 there is no way to the next hop
		}
	case a.IsLinkLocalUnicast():
		addr.Scope = unix.RT_SCOPE_LINK // never a source for packets that go further
	}
	if err := h.links.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("giving %s the address %v: %w", h.Name, a, err)
	}
	if a.Is4() {
		return nil
	}
	// A kernel worker makes the host listen for neighbour solicitations, and then adds the local route.
	return eventually(func() (bool, error) {
		routes, err := h.links.RouteListFiltered(unix.AF_INET6, &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: ipNet(a)},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		return len(routes) > 0, err
	}, "address %v of %s does not get ready", a, h.Name)
}

// announce makes the address reachable from everywhere: a route to it on every host above.
func (h *Host) announce(a netip.Addr) error {
	if a.Is6() && !h.HasIPv6() {
		return nil
	}
	for low := h; low.via != nil; low = low.via {
		link, err := low.via.links.LinkByName(low.down)
		if err != nil {
			return err
		}
		hop := low.hops.down4
		if a.Is6() {
			hop = low.hops.down6
		}
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(a), Gw: hop.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		}
		if err := low.via.links.RouteReplace(route); err != nil {
			return fmt.Errorf("routing %v at %s: %w", a, low.via.Name, err)
		}
	}
	return nil
}

// AddAddr gives the host a further address, which everybody can reach. Dial from it with DialFrom.
func (h *Host) AddAddr(a netip.Addr) error {
	if err := h.addOwn(h.up, a); err != nil {
		return err
	}
	return h.announce(a)
}

// MoveTo gives the host a new address of its family and takes the old one away, as a phone does that leaves a Wi-Fi.
// What it sends from now on comes from there, and IP4 or IP6 says so.
func (h *Host) MoveTo(a netip.Addr) error {
	old := h.Addr(a.Is6())
	if err := h.AddAddr(a); err != nil {
		return err
	}
	if err := h.use(a); err != nil {
		return err
	}
	link, err := h.links.LinkByName(h.up)
	if err != nil {
		return err
	}
	return h.links.AddrDel(link, &netlink.Addr{IPNet: ipNet(old)})
}

// use makes the address the one that packets come from by default.
func (h *Host) use(a netip.Addr) error {
	if a.Is6() && !h.HasIPv6() {
		return nil
	}
	link, err := h.links.LinkByName(h.up)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: everywhere(a), Gw: h.hops.up4.AsSlice(), Src: a.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
	}
	if a.Is6() {
		route.Gw, h.IP6 = h.hops.up6.AsSlice(), a
	} else {
		h.IP4 = a
	}
	if err := h.links.RouteReplace(route); err != nil {
		return fmt.Errorf("default route of %s from %v: %w", h.Name, a, err)
	}
	return nil
}

// Addr returns IP6 or IP4.
func (h *Host) Addr(v6 bool) netip.Addr {
	if v6 {
		return h.IP6
	}
	return h.IP4
}

// Links returns the names of the host's link to the one it hangs from, and of the other end of it, there: a firewall
// names its own ends.
func (h *Host) Links() (up, down string) { return h.up, h.down }

// HasIPv6 reports whether the kernel speaks IPv6 at all.
func (h *Host) HasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// Sysctl writes a kernel setting of this host's network, named by its path under /proc/sys, as "net/ipv4/ip_forward".
func (h *Host) Sysctl(path, value string) error {
	var err error
	h.Do(func() { err = os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("setting %s of %s: %w", strings.ReplaceAll(path, "/", "."), h.Name, err)
	}
	return nil
}

// masquerade hides what is below this host behind its own IPv4 address.
func (h *Host) masquerade() error {
	c, err := nftables.New(nftables.WithNetNSFd(h.NetNS()))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "home", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "srcnat", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, h.up)
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Masq{},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("masquerading at %s: %w", h.Name, err)
	}
	return nil
}

func ipNet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func everywhere(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
}
