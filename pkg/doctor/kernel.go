package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"spad/pkg/firewall"
)

// clock is whether this machine knows what time it is.
func clock(_ context.Context, c *chart) {
	const firstYear, lastYear = 2025, 2100
	now, synchronised, err := c.Clock()
	year := now.UTC().Year()
	switch {
	case year < firstYear || year > lastYear:
		c.say("clock", Fail, "set it, and run a time daemon (OpenWrt: service sysntpd enable; systemd: timedatectl set-ntp true)",
			"it is the year %d here: expiry and hours are judged wrongly", year)
	case err != nil:
		c.untold("clock", "whether the clock follows a time source", err)
	case !synchronised:
		c.say("clock", Warn, "run a time daemon (OpenWrt: service sysntpd enable; systemd: timedatectl set-ntp true)",
			"the clock follows no time source; devices correct theirs by it, expiry and hours may be off")
	default:
		c.ok("clock", "synchronised")
	}
}

// queue is whether a burst of packets has room.
func queue(_ context.Context, c *chart) {
	switch wanted, got, err := c.Queue(); {
	case err != nil:
		c.untold("queue", "the socket's buffer", err)
	case got < wanted:
		c.say("queue", Warn, fmt.Sprintf("sysctl -w net.core.rmem_max=%d, or start spad with CAP_NET_ADMIN, which it needs anyway", wanted),
			"the queue of packets gets %d KiB and not %d: a flood may push knocks out (as this user)", got>>10, wanted>>10)
	default:
		c.ok("queue", "%d KiB for packets", got>>10)
	}
}

// kernel is whether the packet filter can do what is asked of it.
func kernel(_ context.Context, c *chart) {
	missing, untold, err := c.Lacking()
	switch {
	case err != nil && errors.Is(err, fs.ErrPermission):
		c.untold("kernel", "what "+c.Config.Firewall+" can do", err)
	case err != nil:
		what, remedy := apart(err)
		c.say("kernel", Fail, remedy, "%s can't be used: %s", c.Config.Firewall, what)
	case len(missing) > 0:
		c.say("kernel", Fail, "load or install what is missing, or choose another firewall in "+c.Config.Path,
			"%s or the kernel has no %s", c.Config.Firewall, strings.Join(missing, ", no "))
	case len(untold) > 0:
		c.say("kernel", Warn, "start spad: it says what is missing", "could not look for the modules %s here", strings.Join(untold, ", "))
	default:
		c.ok("kernel", "has all that %s needs", c.Config.Firewall)
	}
}

// number reads a setting of the kernel.
func (c *chart) number(path string) (int, bool) {
	text, err := c.Files.Read(path)
	n, bad := strconv.Atoi(text)
	return n, err == nil && bad == nil
}

// tracked is whether the kernel has room for connections.
func tracked(_ context.Context, c *chart) {
	const sys = "/proc/sys/net/netfilter/nf_conntrack_"
	count, ok := c.number(sys + "count")
	limit, ok2 := c.number(sys + "max")
	if !ok || !ok2 || limit == 0 {
		c.ok("conntrack", "not loaded yet; spad's rules load it")
		return
	}
	remedy := fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, and see who fills it (conntrack -L)", 2*limit)
	switch percent := count * 100 / limit; {
	case percent >= 95:
		c.say("conntrack", Fail, remedy, "the table of connections is full (%d of %d): new ones are dropped", count, limit)
	case percent >= 75:
		c.say("conntrack", Warn, remedy, "the table of connections is nearly full (%d of %d)", count, limit)
	default:
		c.ok("conntrack", "%d of %d connections", count, limit)
	}
	if loose, ok := c.number(sys + "tcp_loose"); ok && loose == 0 {
		c.say("conntrack", Warn, "sysctl -w net.netfilter.nf_conntrack_tcp_loose=1, unless you want it so",
			"tcp_loose is off: a connection that the kernel forgot does not go on, even with an open door")
	}
}

// forwards is whether the kernel sends packets on, and whether the hosts behind are where they should be.
func forwards(_ context.Context, c *chart) {
	for _, v6 := range []bool{false, true} {
		path, key := "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"
		if v6 {
			path, key = "/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"
		}
		var names []string
		for _, s := range c.Config.Doors {
			if s.Forward != nil && (v6 && (s.Forward.To6.IsValid() || s.Hole().IsValid()) || !v6 && s.Forward.To4.IsValid()) {
				names = append(names, s.Name)
			}
		}
		if on, ok := c.number(path); ok && on == 0 && len(names) > 0 {
			c.say("forward", Fail, "sysctl -w "+key+"=1, and write it into /etc/sysctl.d/",
				"the kernel forwards no %s: no door to a host behind opens (%s)", familyName(v6), strings.Join(names, ", "))
		}
		c.targets(v6)
	}
}

// targets says which hosts behind have no way of their own.
func (c *chart) targets(v6 bool) {
	uplinks, err := c.Network.Uplinks(v6)
	if err != nil {
		return // said before
	}
	for _, s := range c.Config.Doors {
		if s.Forward == nil {
			continue
		}
		for _, to := range s.Forward.Targets() {
			if to.Addr().Is6() != v6 {
				continue
			}
			switch by, err := c.Network.Toward(to.Addr()); {
			case err != nil:
				c.say("forward", Fail, "connect the LAN, or correct the address in "+c.Config.Path, "%s: there is no route to %v", s.Name, to)
			case contains(uplinks, by) && to.Addr().IsPrivate():
				c.say("forward", Warn, "correct the address in "+c.Config.Path+", or the routes", "%s: packets to %v would leave by the uplink %s", s.Name, to, by.Name)
			}
		}
	}
}

// returnPath is whether packets may come in by one uplink that would be answered by another.
func returnPath(_ context.Context, c *chart) {
	uplinks, err := c.Network.Uplinks(false)
	if err != nil || len(uplinks) < 2 {
		return
	}
	all, _ := c.number("/proc/sys/net/ipv4/conf/all/rp_filter")
	var strict []string
	for _, l := range uplinks {
		own, ok := c.number(filepath.Join("/proc/sys/net/ipv4/conf", l.Name, "rp_filter"))
		if ok && max(all, own) == 1 { // the kernel takes the higher (ip-sysctl.rst)
			strict = append(strict, l.Name)
		}
	}
	if len(strict) == 0 {
		c.ok("rp_filter", "is loose on %d uplinks", len(uplinks))
		return
	}
	remedy := ""
	for _, l := range strict {
		remedy += fmt.Sprintf("; sysctl -w net.ipv4.conf.%s.rp_filter=2", l)
	}
	level := Fail
	if more, err := c.Network.PolicyRules(); err == nil && more {
		level = Warn // routes by policy may lead answers back where the packets came in
	}
	c.say("rp_filter", level, strings.TrimPrefix(remedy, "; "),
		"%d uplinks, and rp_filter is strict on %s: the kernel drops what comes in by one and would be answered by another",
		len(uplinks), strings.Join(strict, ", "))
}

// offloaded is whether connections take a short cut that the filter does not see.
func offloaded(_ context.Context, c *chart) {
	i := slices.IndexFunc(c.Config.Doors, func(s firewall.Service) bool { return s.Cut })
	if flows := c.Rules().Flowtables; i >= 0 && len(flows) > 0 {
		c.say("offload", Warn, "keep spad running, or switch flow offloading off (OpenWrt: flow_offloading in /etc/config/firewall)",
			`with flow offload (%s) the kernel alone does not cut connections of on_expire = "cut" (%s): that needs the daemon`,
			strings.Join(flows, ", "), c.Config.Doors[i].Name)
	}
}
