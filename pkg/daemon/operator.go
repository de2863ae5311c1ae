package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/policy"
	"spad/pkg/remote"
	"spad/pkg/session"
	"spad/pkg/wire"
)

// operator is who opens and closes through the control socket.
const operator = "operator"

// Sessions implements control.Sessions.
func (d *Daemon) Sessions(context.Context) ([]control.Session, error) {
	all, now, err := d.table.List()
	if err != nil {
		return nil, err
	}
	return describe(all, now), nil
}

// Open implements control.Sessions: an operator opens for any address a device could.
func (d *Daemon) Open(_ context.Context, r control.OpenRequest) (control.Session, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.open(r, opener{by: operator})
}

// opener is who opens a door without a knock. A remote, unlike an operator, opens what its rights give where and when.
type opener struct {
	by     string
	remote remote.Remote
}

// key tells the sessions of one remote from those of others; an operator's have none.
func (o opener) key() string { return o.remote.Pin.String() }

// openerLimit cuts a time to live to what the opener's rights give.
func (d *Daemon) openerLimit(o opener, service string, from netip.Addr, ttl time.Duration) (time.Duration, error) {
	if !o.remote.Joined() {
		return ttl, nil
	}
	verdict := d.cfg.Load().Rules.Decide(policy.Request{
		Allow: o.remote.Allow, Service: wire.ServiceIDOf(service), TTL: uint16(ttl / time.Second), Source: from,
		At: time.UnixMilli(d.journal.NowMS()),
	})
	if !verdict.Allowed {
		return 0, control.Denied(fmt.Sprintf("the remote %q may not open %q for %s: %s", o.remote.Name, service, from, verdict.Reason))
	}
	return verdict.TTL, nil
}

// open opens a door. The caller holds mu.
func (d *Daemon) open(r control.OpenRequest, o opener) (control.Session, error) {
	cfg := d.cfg.Load()
	service, ok := cfg.Rules.Service(r.Service)
	if !ok {
		return control.Session{}, control.Unknown(fmt.Sprintf("no service is called %q; the configuration has %s", r.Service, serviceNames(cfg)))
	}
	from := r.From.Unmap().WithZone("")
	if !d.verifier.Usable(from) {
		return control.Session{}, &control.UsageError{Text: fmt.Sprintf("no door can be opened for %s: it is unspecified, multicast, loopback, IPv6 link-local, or the router's own", from)}
	}
	if from.Is4() && !service.IPv4 || from.Is6() && !service.IPv6 {
		return control.Session{}, &control.UsageError{Text: fmt.Sprintf("%q has no target for the address family of %s", r.Service, from)}
	}
	ttl := r.TTL
	if ttl == 0 {
		ttl = service.TTL
	}
	if ttl < time.Second || ttl > service.MaxTTL {
		return control.Session{}, &control.UsageError{Text: fmt.Sprintf("ttl %v: %q opens for 1s to %v", ttl, r.Service, service.MaxTTL)}
	}
	ttl, err := d.openerLimit(o, r.Service, from, ttl)
	if err != nil {
		return control.Session{}, err
	}
	s, err := d.table.Open(session.Opening{
		Service: r.Service, Source: d.sourceOf(r.Service, from), TTL: ttl, By: o.by, Key: o.key(),
	})
	if err != nil {
		return control.Session{}, err
	}
	return describe([]session.Session{s}, bootTime())[0], nil
}

// Close implements control.Sessions.
func (d *Daemon) Close(ctx context.Context, r control.CloseRequest) ([]control.Session, error) {
	if err := d.known(r); err != nil {
		return nil, err
	}
	closed, err := d.table.Close(session.Selection{ID: r.ID, Device: r.Device, Service: r.Service, All: r.All}, byOf(ctx))
	if err == nil && r.ID != "" && len(closed) == 0 {
		err = control.Unknown(fmt.Sprintf("no open session has the id %q; spad sessions shows them", r.ID))
	}
	return describe(closed, bootTime()), err
}

// closeOf shuts the doors of a service, those of one device or, without a name, all.
func (d *Daemon) closeOf(ctx context.Context, device, service string) ([]control.Session, error) {
	closed, err := d.table.Close(session.Selection{Device: device, Service: service}, byOf(ctx))
	return describe(closed, bootTime()), err
}

// known refuses names of devices and services that do not exist: a slip would look like a closed door.
func (d *Daemon) known(r control.CloseRequest) error {
	if _, ok := d.cfg.Load().Rules.Service(r.Service); r.Service != "" && !ok {
		return control.Unknown(fmt.Sprintf("no service is called %q; the configuration has %s", r.Service, serviceNames(d.cfg.Load())))
	}
	if _, ok := d.registry.Roster().ByName(r.Device); r.Device != "" && !ok {
		return control.Unknown(fmt.Sprintf("no device is called %q; spad device list shows them", r.Device))
	}
	return nil
}

func describe(all []session.Session, now time.Duration) []control.Session {
	out := make([]control.Session, 0, len(all))
	wall := time.Now()
	for _, s := range all {
		left := max(s.Until-now, 0)
		out = append(out, control.Session{
			ID: s.ID, Device: s.Device, Service: s.Service, Source: s.SourceText(), By: s.By,
			Opened: wall.Add(s.Since - now).Round(time.Second), Until: wall.Add(left).Round(time.Second),
			TTLLeft: int((left + time.Second - 1) / time.Second),
		})
	}
	return out
}

// Status implements control.Daemon.
func (d *Daemon) Status(context.Context) (control.Status, error) {
	sessions, err := d.table.Count()
	if err != nil && !errors.Is(err, session.ErrStopped) {
		return control.Status{}, err
	}
	cfg := d.cfg.Load()
	return control.Status{
		Version: d.o.Version, Listen: cfg.Listen, Firewall: string(d.filter),
		Started: d.started, Uptime: int(time.Since(d.started) / time.Second),
		KnockClock: time.UnixMilli(d.journal.NowMS()).UTC(),
		Devices:    len(d.registry.Roster().All()), Services: len(cfg.Doors), Sessions: sessions, Invites: d.store.Invites(),
		Trial: d.trialLeft(), Counters: d.counts(),
	}, nil
}

// Stop implements control.Daemon.
func (d *Daemon) Stop(context.Context) error {
	d.stop()
	return nil
}

// Devices implements control.Devices.
func (d *Daemon) Devices(ctx context.Context) ([]control.Device, error) {
	return d.registry.Devices(ctx)
}

// AddDevice implements control.Devices.
func (d *Daemon) AddDevice(ctx context.Context, dev control.Device) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registry.AddDevice(ctx, dev)
}

// RemoveDevice implements control.Devices. It waits for the knocks under way: none of them opens a door afterwards.
func (d *Daemon) RemoveDevice(ctx context.Context, name string) (control.Device, error) {
	gone, err := d.registry.RemoveDevice(ctx, name)
	if err != nil {
		return gone, err
	}
	return gone, d.shutOf(ctx, name)
}

// shutOf shuts the doors of somebody who was removed. It waits for what is under way.
func (d *Daemon) shutOf(ctx context.Context, name string) error {
	if err := d.retain(byOf(ctx)); err != nil {
		return fmt.Errorf("%q is removed, but a door of it could not be shut yet, which is tried again: %w", name, err)
	}
	return nil
}

// Invite implements control.Devices.
func (d *Daemon) Invite(ctx context.Context, r control.InviteRequest) (control.Invite, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registry.Invite(ctx, r)
}

func serviceNames(cfg *config.Config) string {
	var names []string
	for _, s := range cfg.Rules.Services() {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}
