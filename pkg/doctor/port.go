package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"spad/pkg/firewall"
	"spad/pkg/firewall/foreign"
)

// runs is whether there is a daemon to knock at.
func runs(_ context.Context, c *chart) {
	switch {
	case c.DaemonErr != nil:
		c.untold("daemon", "whether spad runs", c.DaemonErr)
	case c.Daemon == nil:
		c.say("daemon", Fail, "spad run, or let the system start it (systemctl enable --now spad; OpenWrt: service spad start)",
			"spad is not running: nobody reads knocks")
	case c.Daemon.Listen != c.Config.Listen:
		c.say("daemon", Fail, "restart spad", "the running spad listens on %s, and the configuration says %s", c.Daemon.Listen, c.Config.Listen)
	default:
		c.ok("daemon", "spad runs since %s", c.Daemon.Started.UTC().Format("2006-01-02 15:04:05Z"))
	}
}

// held is whether the rules are where the configuration wants them.
func held(_ context.Context, c *chart) {
	is := func(name string) bool { return name == c.Filter || strings.HasPrefix(name, c.Filter+" ") }
	if c.HeldErr != nil {
		c.untold("filter", "which firewall has rules of spad's", c.HeldErr)
		return
	}
	if c.Daemon != nil && !is(c.Daemon.Firewall) {
		c.say("filter", Warn, "restart spad", "the running spad uses %s, and the configuration names %s", c.Daemon.Firewall, c.Filter)
	}
	var others []string
	for _, name := range c.Held {
		if !is(name) && (c.Daemon == nil || name != c.Daemon.Firewall) {
			others = append(others, name)
		}
	}
	switch {
	case len(others) == 0:
		c.ok("filter", "%s, and no rules of spad's in another", c.Filter)
	case c.Daemon == nil:
		c.say("filter", Warn, "start spad: it takes them out", "the state says that %s may have rules of spad's, and the configuration names %s",
			strings.Join(others, ", "), c.Filter)
	default:
		c.say("filter", Fail, "restart spad, and see in its log why it can't take them out; or: spad down, then start it",
			"rules of spad's are left in %s too, and keep out whom the doors in %s let in", strings.Join(others, ", "), c.Filter)
	}
}

// socket is a line of /proc/net/udp and the like.
type socket struct {
	port  uint16
	inode string
}

// sockets lists the bound ports; for TCP those that listen.
func (c *chart) sockets(proto string) (all []socket, err error) {
	const listening, unconnected = "0A", "07"
	for _, file := range []string{proto, proto + "6"} {
		text, bad := c.Files.Read("/proc/thread-self/net/" + file)
		if bad != nil && file == proto { // a kernel may lack IPv6
			return nil, bad
		}
		for i, line := range strings.Split(text, "\n") {
			words := strings.Fields(line)
			if i == 0 || len(words) < 10 || words[3] != listening && words[3] != unconnected {
				continue
			}
			_, hex, _ := strings.Cut(words[1], ":")
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
				all = append(all, socket{uint16(port), words[9]})
			}
		}
	}
	return all, nil
}

// port is whether knocks reach spad's socket and not another program's.
func port(_ context.Context, c *chart) {
	all, err := c.sockets("udp")
	if err != nil {
		c.untold("port", "who has udp ports", err)
		return
	}
	taken := false
	for _, s := range all {
		if s.port != c.Config.Port {
			continue
		}
		taken = true
		if owner := c.Files.Owner(s.inode); c.Daemon == nil && c.DaemonErr == nil {
			c.say("port", Fail, fmt.Sprintf("end it, or change listen in %s and tell the devices; find it with: ss -ulpn sport = %d", c.Config.Path, c.Config.Port),
				"udp/%d is taken by %s", c.Config.Port, orUnknown(owner))
			return
		}
	}
	switch {
	case taken && c.Daemon != nil:
		c.ok("port", "spad listens on udp/%d", c.Config.Port)
	case c.Daemon != nil && c.Daemon.Listen == c.Config.Listen:
		c.say("port", Fail, "see its log; is this the network namespace that it runs in?", "spad runs, and nobody listens on udp/%d here", c.Config.Port)
	case c.Daemon == nil:
		c.ok("port", "udp/%d is free", c.Config.Port)
	}
}

func orUnknown(owner string) string {
	if owner == "" {
		return "a program that can't be seen (run this as root)"
	}
	return owner
}

// listeners is whether somebody answers behind the doors to this machine.
func listeners(_ context.Context, c *chart) {
	for _, s := range c.Config.Doors {
		for _, p := range s.Open {
			if p.First != p.Last {
				continue
			}
			all, err := c.sockets(p.Proto.String())
			if err != nil {
				return
			}
			answered := c.published(p)
			for _, one := range all {
				answered = answered || one.port == p.First
			}
			if !answered {
				c.say("service", Warn, "start what should answer there", "%s: nobody listens on %v", s.Name, p)
			}
		}
	}
}

// published reports whether another program sends the port on, to a container.
func (c *chart) published(p firewall.Ports) bool {
	at, uplinks, err := c.own(false)
	if err != nil || len(at) == 0 || len(uplinks) == 0 {
		return false
	}
	coming := foreign.Packet{
		Hook: foreign.Prerouting, Proto: uint8(p.Proto), To: netip.AddrPortFrom(at[0], p.First), Local: true,
		In: uplinks[0].Name, InIndex: uplinks[0].Index,
	}
	return c.Rules().Follow(coming).Kind == foreign.Translates
}
