package client

import (
	"context"
	"slices"
	"strings"

	"spad/keys"
	"spad/pkg/wire"
)

// Enroll enrols this device at the router of an invite, and adds the router to the
// configuration once it has answered. It gets the given name, or that it had, or its
// host's. The device's key is made if there is none, and stored before a packet leaves.
//
// The same invite may be used again by the same device: a lost answer does no harm.
// The expiry in the invite is not looked at, since the router decides.
//
// A name that another router has, or is not valid, is a *ConfigError, and nothing was
// sent. Without a grant the outcome says what happened, and nothing was stored but the key.
func (c *Client) Enroll(ctx context.Context, v keys.Invite, name string, only Family) (Router, Outcome, error) {
	routers, err := c.Routers()
	if err != nil {
		return Router{}, Outcome{}, err
	}
	r := Router{Addr: v.Addr, Key: v.Router, Services: v.Services}
	if r.Name, err = r.choose(routers, name); err != nil {
		return Router{}, Outcome{}, err
	}
	device, _, err := c.Device()
	if err != nil {
		return Router{}, Outcome{}, err
	}
	e, err := c.errand(device, r, only)
	if err != nil {
		return Router{}, Outcome{}, err
	}
	out := e.run(ctx, []wish{{op: wire.OpEnroll, token: v.Token}}, oneFamily)[0]
	if out.Err() != nil {
		return r, out, nil
	}
	err = c.change(ctx, func(routers []Router) ([]Router, error) {
		if r.Name, err = r.choose(routers, name); err != nil { // another process may have enrolled meanwhile
			return nil, err
		}
		routers = slices.DeleteFunc(routers, func(o Router) bool { return o.Key == r.Key })
		return append(routers, r), nil
	})
	return r, out, err
}

// choose returns the name for a router among those that are known.
func (r Router) choose(routers []Router, wanted string) (string, error) {
	name := wanted
	if name == "" {
		name = strings.ToLower(r.Host())
		for _, o := range routers {
			if o.Key == r.Key {
				name = o.Name
			}
		}
	}
	if !validRouterName(name) {
		return "", configErrorf("%q can't name a router: letters, digits and .-_: only; choose another with --name", name)
	}
	for _, o := range routers {
		if o.Name == name && o.Key != r.Key {
			return "", configErrorf("another router is called %q; choose another name with --name, or first: knock forget %s", name, name)
		}
	}
	return name, nil
}
