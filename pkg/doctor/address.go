package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// lookupPatience bounds the resolver, which by itself may take half a minute when its servers are gone.
const lookupPatience = 6 * time.Second

// reach is what kind of address one is, seen from the internet.
type reach uint8

const (
	public reach = iota
	private
	carrier // of a provider that has many customers share one address (RFC 6598)
)

var (
	sharedSpace = netip.MustParsePrefix("100.64.0.0/10")
	dsLite      = netip.MustParsePrefix("192.0.0.0/24") // DS-Lite and 464XLAT, RFC 7335
	globalSpace = netip.MustParsePrefix("2000::/3")
)

func reachOf(a netip.Addr) reach {
	switch {
	case sharedSpace.Contains(a) || dsLite.Contains(a):
		return carrier
	case a.Is4() && !a.IsPrivate() && !a.IsLinkLocalUnicast() && !a.IsLoopback(), globalSpace.Contains(a):
		return public
	}
	return private
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// record is the kind of DNS record of a family.
func record(v6 bool) string {
	if v6 {
		return "AAAA"
	}
	return "A"
}

// own returns the addresses of one family, those of the uplinks first.
func (c *chart) own(v6 bool) (at []netip.Addr, uplinks []Link, err error) {
	all, err := c.Network.Addresses()
	if err != nil {
		return nil, nil, err
	}
	uplinks, err = c.Network.Uplinks(v6)
	for _, up := range []bool{true, false} {
		for _, a := range all {
			if a.Addr.Is6() == v6 && !a.Addr.IsLinkLocalUnicast() && contains(uplinks, a.Link) == up {
				at = append(at, a.Addr)
			}
		}
	}
	return at, uplinks, err
}

// wide is whether the internet can reach this machine at all, in each family.
func wide(_ context.Context, c *chart) {
	reachable := map[bool]bool{}
	var unreachable []Finding
	for _, v6 := range []bool{false, true} {
		at, uplinks, err := c.own(v6)
		family := familyName(v6)
		if err != nil {
			c.untold("address", "the addresses and routes of "+family, err)
			continue
		}
		if i := slices.IndexFunc(at, func(a netip.Addr) bool { return reachOf(a) == public }); i >= 0 && len(uplinks) > 0 {
			reachable[v6] = true
			c.ok("address", "%s: %v is public", family, at[i])
			continue
		}
		unreachable = append(unreachable, c.shut(v6, at, uplinks))
	}
	for _, f := range unreachable {
		if f.Level == Fail && len(reachable) > 0 { // the other family does
			f.Level = Warn
		}
		c.findings = append(c.findings, f)
	}
}

// shut says why the internet does not reach this machine by itself.
func (c *chart) shut(v6 bool, at []netip.Addr, uplinks []Link) Finding {
	f := Finding{Check: "address", Level: Fail}
	family := familyName(v6)
	switch {
	case len(uplinks) == 0:
		f.What = family + ": there is no way to the internet (no default route)"
		f.Remedy = "connect the WAN, or knock from within the LAN alone"
		if v6 {
			f.Level, f.Remedy = Warn, "no knock comes over IPv6; nothing to do if your provider has none"
		}
	case len(at) == 0:
		f.What, f.Remedy = family+": the uplink has no address", "see why it gets none from the provider"
	case reachOf(at[0]) == carrier:
		f.What = fmt.Sprintf("%s: %v is an address that your provider shares among customers: nothing from outside gets here over %s", family, at[0], family)
		f.Remedy = "ask the provider for a public address, or knock over IPv6"
	case v6:
		f.Level = Warn
		f.What = fmt.Sprintf("IPv6: %v is for this site alone (ULA)", at[0])
		f.Remedy = "no knock comes over IPv6 from outside; nothing to do if your provider has none"
	default:
		f.Level = Warn
		f.What = fmt.Sprintf("%s: %v is private, so that another router stands before this one", family, at[0])
		f.Remedy = fmt.Sprintf("forward udp/%d and the ports of the services there to %v", c.Config.Port, at[0])
	}
	return f
}

// named is whether devices find this machine by its name.
func named(ctx context.Context, c *chart) {
	addr, err := c.Config.InviteAddr()
	if err != nil {
		c.say("hostname", Warn, `write hostname = "home.example.net" into `+c.Config.Path, "no hostname is set: an invite can't say where to knock")
		return
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		c.untold("hostname", addr, err)
		return
	}
	if a, err := netip.ParseAddr(host); err == nil {
		c.points(host, a.Is6(), []netip.Addr{a})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	found := 0
	var without []bool // the families
	for _, v6 := range []bool{false, true} {
		at, err := c.Network.Lookup(ctx, v6, host)
		var dns *net.DNSError
		switch {
		case err == nil && len(at) > 0:
			found++
			c.points(host, v6, at)
		case err != nil && (!errors.As(err, &dns) || !dns.IsNotFound):
			found++
			c.say("hostname", Warn, "check the resolver of this machine (/etc/resolv.conf); devices ask their own",
				"%s could not be looked up for %s here: %s", host, familyName(v6), short(err))
		default:
			without = append(without, v6)
		}
	}
	if found == 0 {
		c.say("hostname", Fail, "give it an A or AAAA record, or correct hostname in "+c.Config.Path, "%s has no address: no device finds the way here", host)
		return
	}
	for _, v6 := range without {
		c.nameless(host, v6)
	}
}

// nameless says that a family goes unused.
func (c *chart) nameless(host string, v6 bool) {
	at, _, err := c.own(v6)
	if err != nil || !slices.ContainsFunc(at, func(a netip.Addr) bool { return reachOf(a) == public }) {
		return
	}
	c.say("hostname", Warn, fmt.Sprintf("give %s an %s record with %v, if devices should knock over %s too", host, record(v6), at[0], familyName(v6)),
		"%s has no %s address, and this machine has one", host, familyName(v6))
}

func short(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Err
	}
	return err.Error()
}

// points compares where the name leads with what this machine is.
func (c *chart) points(host string, v6 bool, to []netip.Addr) {
	at, _, err := c.own(v6)
	if err != nil {
		c.untold("hostname", "this machine's addresses", err)
		return
	}
	var here, elsewhere []string
	for _, a := range to {
		if a = a.Unmap(); slices.Contains(at, a) {
			here = append(here, a.String())
		} else {
			elsewhere = append(elsewhere, a.String())
		}
	}
	isPublic := slices.ContainsFunc(at, func(a netip.Addr) bool { return reachOf(a) == public })
	remedy := fmt.Sprintf("set its %s address to %s, by the DNS provider or a dynamic DNS client", familyName(v6), list(at))
	switch {
	case len(elsewhere) == 0:
		c.ok("hostname", "%s points here: %s", host, strings.Join(here, ", "))
	case len(here) > 0:
		c.say("hostname", Warn, remedy, "%s points here (%s), and elsewhere (%s): a device that goes there loses time",
			host, strings.Join(here, ", "), strings.Join(elsewhere, ", "))
	case isPublic:
		c.say("hostname", Fail, remedy, "%s points elsewhere over %s: to %s, and this machine is %s",
			host, familyName(v6), strings.Join(elsewhere, ", "), list(at))
	case len(at) == 0:
		c.say("hostname", Fail, fmt.Sprintf("take its %s record away, or give this machine such an address", record(v6)),
			"%s points to %s, and this machine has no %s address", host, strings.Join(elsewhere, ", "), familyName(v6))
	default:
		c.say("hostname", Warn, "see that it is the public address of the router before this one",
			"%s points to %s, which is not this machine (%s)", host, strings.Join(elsewhere, ", "), list(at))
	}
}

func list(at []netip.Addr) string {
	var text []string
	for _, a := range at {
		if reachOf(a) == public || len(at) == 1 {
			text = append(text, a.String())
		}
	}
	if len(text) == 0 {
		return "none that is public"
	}
	return strings.Join(text, ", ")
}
