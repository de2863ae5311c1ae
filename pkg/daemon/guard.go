package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/event"
	"spad/pkg/policy"
	"spad/pkg/remote"
	"spad/pkg/wire"
)

// guard is the daemon as remotes meet it: the one place where what a remote has no right to is refused. Enter refuses
// whole operations, the methods what concerns services that are none of the remote's. Reload, Confirm and Stop it can't have.
//
// What changes something looks the remote up again with Daemon.mu held: once RemoveRemote has returned, a request that
// came in before does nothing.
type guard struct{ d *Daemon }

var (
	_ control.Sessions = guard{}
	_ control.Devices  = guard{}
	_ control.Daemon   = guard{}
	_ control.Services = guard{}
	_ control.Knocks   = guard{}
	_ control.Access   = guard{}
)

// need is what a remote needs for an operation besides a right to the service.
type need struct{ change, manage bool }

// needs are the operations that a remote can have at all.
var needs = map[string]need{
	"GET /v1/openapi.json":      {},
	"GET /v1/status":            {},
	"GET /v1/metrics":           {manage: true}, // of all devices and services
	"GET /v1/services":          {},
	"GET /v1/sessions":          {},
	"GET /v1/events":            {},
	"POST /v1/open":             {change: true},
	"POST /v1/close":            {change: true},
	"POST /v1/knock":            {change: true},
	"GET /v1/devices":           {manage: true},
	"POST /v1/devices":          {change: true, manage: true},
	"DELETE /v1/devices/{name}": {change: true, manage: true},
	"POST /v1/invites":          {change: true, manage: true},
}

const joining = "POST /v1/join"

// caller is a remote that makes a request. Its rights are looked up where they are needed.
type caller struct {
	pin  keys.RemotePin
	name string
}

func callerOf(ctx context.Context) (caller, netip.Addr, bool) {
	v, addr := control.CallerOf(ctx)
	c, ok := v.(caller)
	return c, addr, ok
}

// byOf names who makes a call, in events and sessions.
func byOf(ctx context.Context) string {
	if c, _, ok := callerOf(ctx); ok {
		return c.by()
	}
	return operator
}

func (c caller) by() string { return "remote " + c.name }

// Enter implements control.Access.
func (g guard) Enter(_ context.Context, p control.Peer, route string) (control.Entry, error) {
	r, ok := g.d.remote.store.ByPin(p.Pin)
	switch n, exists := needs[route]; {
	case route == joining:
		return control.Entry{}, nil
	case !ok:
		return control.Entry{}, errNoRemote
	case !exists:
		return control.Entry{}, control.Denied("only the router itself can do that; a remote can't")
	case n.manage && !r.Manage:
		return control.Entry{}, control.Denied(fmt.Sprintf("the remote %q may not manage devices; give it the right with: spad remote add --manage", r.Name))
	case n.change && r.ReadOnly:
		return control.Entry{}, control.Denied(fmt.Sprintf("the remote %q may look, and change nothing", r.Name))
	}
	return control.Entry{
		Caller: caller{r.Pin, r.Name}, Gone: r.Gone(), Shows: func(e event.Event) bool { return g.shows(r.Rights, e) },
	}, nil
}

var errNoRemote = control.Denied("this machine is no remote of this router any more; join again")

// Join implements control.Access.
func (g guard) Join(_ context.Context, p control.Peer, proof []byte) (string, error) {
	_, again := g.d.remote.store.ByPin(p.Pin)
	r, err := g.d.remote.store.Join(p.Pin, g.d.remote.key.Pin(), p.Binding, proof)
	if err == remote.ErrRefused {
		return "", control.Denied(err.Error())
	}
	if err == nil && !again {
		g.d.bus.Publish(event.Event{Kind: event.RemoteJoined, Remote: r.Name, Source: p.Addr.String()})
	}
	return r.Name, err
}

// rights looks up who makes a call.
func (g guard) rights(ctx context.Context) (remote.Remote, netip.Addr, error) {
	c, addr, ok := callerOf(ctx)
	if !ok {
		return remote.Remote{}, addr, errNoRemote
	}
	r, ok := g.d.remote.store.ByPin(c.pin)
	if !ok {
		return remote.Remote{}, addr, errNoRemote
	}
	return r, addr, nil
}

// grants reports whether rights are to a service, at some time and from somewhere.
func grants(rules *policy.Rules, allow []string, service string) bool {
	return rules.DecideClose(allow, wire.ServiceIDOf(service)).Allowed
}

// shows says which events a remote sees: those of its services; what happens to devices if it manages them; what happens
// to other remotes never; and how the daemon is, but not why something failed.
func (g guard) shows(rights remote.Rights, e event.Event) bool {
	switch {
	case e.Service != "":
		return grants(g.d.cfg.Load().Rules, rights.Allow, e.Service)
	case e.Remote != "":
		return false
	case e.Device != "":
		return rights.Manage
	}
	return e.Reason == "" // a reason may name what is in the configuration, and other services
}

// addressed says whether a remote may name an address that is not the one it connects from.
func addressed(r remote.Remote, here, named netip.Addr) error {
	if named.Unmap().WithZone("") == here || r.NameAddresses {
		return nil
	}
	return control.Denied(fmt.Sprintf("the remote %q may not name addresses, only open for its own, %s", r.Name, here))
}

// granted says whether a service is among a remote's, which is all that it hears of others.
func granted(cfg *config.Config, r remote.Remote, service string) error {
	if grants(cfg.Rules, r.Allow, service) {
		return nil
	}
	return control.Denied(fmt.Sprintf("the remote %q has no right to a service %q; it has %s", r.Name, service,
		strings.Join(cfg.Rules.Granted(r.Allow), ", ")))
}

// Status implements control.Daemon.
func (g guard) Status(ctx context.Context) (control.Status, error) { return g.d.Status(ctx) }

// Reload implements control.Daemon: it refuses.
func (g guard) Reload(context.Context, control.ReloadRequest) error { return errLocal }

// Confirm implements control.Daemon: it refuses.
func (g guard) Confirm(context.Context) error { return errLocal }

// Stop implements control.Daemon: it refuses.
func (g guard) Stop(context.Context) error { return errLocal }

var errLocal = control.Denied("only the router itself can do that; a remote can't")

// Services implements control.Services.
func (g guard) Services(ctx context.Context) ([]control.Service, error) {
	r, _, err := g.rights(ctx)
	if err != nil {
		return nil, err
	}
	all, err := g.d.Services(ctx)
	return slices.DeleteFunc(all, func(s control.Service) bool { return !grants(g.d.cfg.Load().Rules, r.Allow, s.Name) }), err
}

// Sessions implements control.Sessions.
func (g guard) Sessions(ctx context.Context) ([]control.Session, error) {
	r, _, err := g.rights(ctx)
	if err != nil {
		return nil, err
	}
	all, err := g.d.Sessions(ctx)
	mine := once(func(service string) bool { return grants(g.d.cfg.Load().Rules, r.Allow, service) })
	return slices.DeleteFunc(all, func(s control.Session) bool { return !mine(s.Service) }), err
}

// Open implements control.Sessions.
func (g guard) Open(ctx context.Context, q control.OpenRequest) (control.Session, error) {
	g.d.mu.RLock()
	defer g.d.mu.RUnlock()
	r, here, err := g.rights(ctx)
	if err == nil {
		err = granted(g.d.cfg.Load(), r, q.Service)
	}
	if err == nil {
		err = addressed(r, here, q.From)
	}
	if err != nil {
		return control.Session{}, err
	}
	return g.d.open(q, opener{by: byOf(ctx), remote: r})
}

// Close implements control.Sessions: it shuts doors of the remote's services, whoever opened them.
func (g guard) Close(ctx context.Context, q control.CloseRequest) ([]control.Session, error) {
	g.d.mu.RLock()
	defer g.d.mu.RUnlock()
	r, _, err := g.rights(ctx)
	if err != nil {
		return nil, err
	}
	cfg := g.d.cfg.Load()
	switch {
	case q.Service != "":
		if err := granted(cfg, r, q.Service); err != nil {
			return nil, err
		}
		return g.d.Close(ctx, q)
	case q.ID != "":
		all, err := g.Sessions(ctx)
		if err == nil && !slices.ContainsFunc(all, func(s control.Session) bool { return s.ID == q.ID }) {
			err = control.Unknown(fmt.Sprintf("no open session has the id %q; spad sessions shows them", q.ID))
		}
		if err != nil {
			return nil, err
		}
		return g.d.Close(ctx, q)
	}
	var closed []control.Session
	for _, service := range cfg.Rules.Granted(r.Allow) {
		some, err := g.d.closeOf(ctx, q.Device, service)
		closed = append(closed, some...)
		if err != nil {
			return closed, err
		}
	}
	if q.Device != "" && len(closed) == 0 {
		return nil, control.Unknown(fmt.Sprintf("no door that this remote may shut is open for a device called %q", q.Device))
	}
	return closed, nil
}

// Devices implements control.Devices.
func (g guard) Devices(ctx context.Context) ([]control.Device, error) {
	r, _, err := g.rights(ctx)
	if err != nil {
		return nil, err
	}
	all, err := g.d.Devices(ctx)
	return slices.DeleteFunc(all, func(d control.Device) bool { return !g.sees(r, d.Allow) }), err
}

// sees reports whether a device may open something of the remote's.
func (g guard) sees(r remote.Remote, allow []string) bool {
	rules := g.d.cfg.Load().Rules
	return slices.ContainsFunc(rules.Granted(allow), func(service string) bool { return grants(rules, r.Allow, service) })
}

// handsOn says whether a remote may give, or take away, some rights: those that it has itself.
func handsOn(r remote.Remote, allow []string) error {
	if len(allow) == 0 {
		return &control.UsageError{Text: "no service named; this remote has: " + strings.Join(r.Allow, ", ")}
	}
	if !r.Grants(allow) {
		return control.Denied(fmt.Sprintf("the remote %q manages devices that have no other rights than its own, which are: %s", r.Name, strings.Join(r.Allow, ", ")))
	}
	return nil
}

// longestInvite is how long a remote's invites are good at most: they outlive the remote.
const longestInvite = 24 * time.Hour

// mayReplace refuses what would kill an open invite of that name with rights that are not the remote's.
func (g guard) mayReplace(r remote.Remote, name string) error {
	if allow, open := g.d.store.Invited(name); open && handsOn(r, allow) != nil {
		return control.Conflict(fmt.Sprintf("there is an open invite for %q that is none of this remote's; use another name", name))
	}
	return nil
}

// AddDevice implements control.Devices.
func (g guard) AddDevice(ctx context.Context, dev control.Device) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	r, _, err := g.rights(ctx)
	if err == nil {
		err = handsOn(r, dev.Allow)
	}
	if err == nil {
		err = g.mayReplace(r, dev.Name)
	}
	if err == nil && dev.Delegate && !r.NameAddresses {
		err = control.Denied(fmt.Sprintf("the remote %q may not name addresses, so that it can't make a delegate", r.Name))
	}
	if err != nil {
		return err
	}
	return g.d.registry.AddDevice(ctx, dev)
}

// RemoveDevice implements control.Devices.
func (g guard) RemoveDevice(ctx context.Context, name string) (control.Device, error) {
	gone, err := g.forget(ctx, name)
	if err != nil {
		return gone, err
	}
	return gone, g.d.shutOf(ctx, name)
}

func (g guard) forget(ctx context.Context, name string) (control.Device, error) {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	r, _, err := g.rights(ctx)
	if err != nil {
		return control.Device{}, err
	}
	dev, ok := g.d.registry.Roster().ByName(name)
	if !ok || !g.sees(r, dev.Allow) {
		return control.Device{}, control.Unknown(fmt.Sprintf("no device is called %q; spad device list shows them", name))
	}
	if err := handsOn(r, dev.Allow); err != nil {
		return control.Device{}, err
	}
	return g.d.registry.RemoveDevice(ctx, name)
}

// Invite implements control.Devices.
func (g guard) Invite(ctx context.Context, q control.InviteRequest) (control.Invite, error) {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	r, _, err := g.rights(ctx)
	if err == nil {
		err = handsOn(r, q.Allow)
	}
	if err == nil {
		err = g.mayReplace(r, q.Name)
	}
	if err == nil && q.TTL > longestInvite {
		err = control.Denied(fmt.Sprintf("an invite of a remote's is good for %v at most", longestInvite))
	}
	if err != nil {
		return control.Invite{}, err
	}
	return g.d.registry.Invite(ctx, q)
}

// Knock implements control.Knocks.
func (g guard) Knock(ctx context.Context, k control.KnockRequest) ([]byte, error) {
	r, here, err := g.rights(ctx)
	if err == nil {
		err = addressed(r, here, k.From)
	}
	if err != nil {
		return nil, err
	}
	return g.d.handIn(k, &relay{by: byOf(ctx), may: func(service wire.ServiceID) bool {
		r, ok := g.d.remote.store.ByPin(r.Pin)
		return ok && (service == wire.ServiceID{} || g.d.cfg.Load().Rules.DecideClose(r.Allow, service).Allowed)
	}})
}
