package client

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"spad/keys"
)

// Router is one router at which this device is enrolled.
type Router struct {
	Name     string
	Addr     string // host:port
	Key      keys.RouterPublic
	Services []string // what the invite named: a hint, never a limit
}

// Host returns the host of the router's address, without brackets.
func (r Router) Host() string {
	host, _, _ := splitAddr(r.Addr)
	return host
}

// Routers returns the routers of the configuration, sorted by name. No configuration
// is no routers; a faulty one is a *ConfigError.
func (c *Client) Routers() ([]Router, error) { return loadRouters(c.folder.file("config.toml")) }

// Forget takes a router out of the configuration. What its clock said is kept: should
// the device enrol there again, the times in its packets must still increase.
func (c *Client) Forget(ctx context.Context, name string) (Router, error) {
	var gone Router
	err := c.change(ctx, func(routers []Router) ([]Router, error) {
		r, err := named(routers, name)
		gone = r
		return slices.DeleteFunc(routers, func(o Router) bool { return o.Name == r.Name }), err
	})
	return gone, err
}

// change reads, edits and writes the configuration, alone.
func (c *Client) change(ctx context.Context, edit func([]Router) ([]Router, error)) error {
	path := c.folder.file("config.toml")
	return c.folder.locked(ctx, func() error {
		routers, err := loadRouters(path)
		if err == nil {
			routers, err = edit(routers)
		}
		if err != nil {
			return err
		}
		return saveRouters(path, routers)
	})
}

// Pick returns the router to knock at for a service: the one called name (or, if no
// router is called that, the only one with this host or address), or the only router,
// or the only one that is known to have the service. Errors are *ConfigError.
func Pick(routers []Router, name, service string) (Router, error) {
	switch {
	case len(routers) == 0:
		return Router{}, configErrorf("no router is known yet; enrol with an invite: knock enroll INVITE")
	case name != "":
		return named(routers, name)
	case len(routers) == 1:
		return routers[0], nil
	}
	have := slices.DeleteFunc(slices.Clone(routers), func(r Router) bool { return !slices.Contains(r.Services, service) })
	switch len(have) {
	case 1:
		return have[0], nil
	case 0:
		return Router{}, configErrorf("which router has %q is not known; say it with --router (%s)", service, names(routers))
	}
	return Router{}, configErrorf("%q is a service of more than one router; say which with --router (%s)", service, names(have))
}

func named(routers []Router, name string) (Router, error) {
	for _, r := range routers {
		if r.Name == name {
			return r, nil
		}
	}
	var found []Router
	for _, r := range routers {
		if strings.EqualFold(r.Addr, name) || strings.EqualFold(r.Host(), name) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Router{}, configErrorf("%q is the host of more than one router; use a name (%s)", name, names(found))
	case len(routers) == 0:
		return Router{}, configErrorf("no router is known yet; enrol with an invite: knock enroll INVITE")
	}
	return Router{}, configErrorf("no router is called %q; there is: %s", name, names(routers))
}

func names(routers []Router) string {
	var n []string
	for _, r := range routers {
		n = append(n, r.Name)
	}
	return strings.Join(n, ", ")
}

// splitAddr returns the host and port of an address as a configuration or an invite
// has it: an IP address, with a zone if it is link-local, or a host name.
func splitAddr(addr string) (host string, port uint16, ok bool) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, uint16(n), true
	}
	return host, uint16(n), len(host) <= 253 && plain(host, ".-_") && host[0] != '-' && host[0] != '.'
}

// validRouterName accepts what a shell takes without quotes, host names and IP addresses among it.
func validRouterName(name string) bool {
	return len(name) <= 253 && plain(name, ".-_:%") && name[0] != '-'
}

// plain reports whether s is letters, digits and the given marks, and at least one of them.
func plain(s, marks string) bool {
	foreign := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(marks, c)
	}
	return s != "" && strings.IndexFunc(s, foreign) < 0
}
