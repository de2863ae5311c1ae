package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"spad/keys"
	"spad/pkg/capture"
	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/device"
	"spad/pkg/event"
	"spad/pkg/firewall"
	"spad/pkg/policy"
	"spad/pkg/remote"
	"spad/pkg/session"
	"spad/pkg/wire"
)

// ownEvery is how often the router's own addresses are looked at; they only keep it from opening doors to itself.
const ownEvery = 15 * time.Second

// Reload implements control.Daemon: it takes a changed configuration over as a whole, or keeps the old one as a whole. A
// configuration that can't be taken over is a control.UsageError.
func (d *Daemon) Reload(_ context.Context, r control.ReloadRequest) error {
	d.reloading()
	d.refreshOwn() // who asks may know of an address that has just come
	err := d.reload(r)
	if err != nil {
		d.ready("the old configuration is kept (" + err.Error() + "); ")
		d.bus.Publish(event.Event{Kind: event.ReloadFailed, Reason: err.Error()})
		return err
	}
	d.ready("")
	d.bus.Publish(event.Event{Kind: event.Reloaded})
	return nil
}

func (d *Daemon) reload(r control.ReloadRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trial != nil && (d.trial.old != nil || r.Trial > 0) {
		return &control.UsageError{Text: "a configuration is on trial: say spad confirm, or wait until the one before is in force again"}
	}
	old := d.cfg.Load()
	cfg, err := config.Load(old.Path)
	if err == nil {
		err = restartNeeded(old, cfg)
	}
	if err == nil && !r.AllowLockout {
		err = d.newLockout(old, cfg, r.SSH)
	}
	if err != nil {
		return &control.UsageError{Text: err.Error()}
	}
	if r.Trial > 0 {
		return d.tryReload(cfg, r.Trial)
	}
	if err := d.take(cfg, d.table.Reload); err != nil {
		return err
	}
	return forgetTrial(d.o.StateDir)
}

// newLockout returns an error if a configuration would shut out an ssh session that the one before lets be. One that
// would be shut out already has come through a door, or was meant to be.
func (d *Daemon) newLockout(old, cfg *config.Config, ssh string) error {
	if lockout(d.ruleset(old), ssh) != nil {
		return nil
	}
	return lockout(d.ruleset(cfg), ssh)
}

// take puts a configuration in force, by a method of the table, or leaves everything as it is. The lock is held for writing.
func (d *Daemon) take(cfg *config.Config, reload func(firewall.Ruleset, session.Limit) error) error {
	old := d.cfg.Load()
	roster, err := device.NewRoster(cfg.Devices, d.store.Devices())
	if err != nil {
		return &control.UsageError{Text: err.Error()}
	}
	sinks, unready := d.sinks.plan(cfg)
	if unready != nil && !d.reverting {
		return &control.UsageError{Text: unready.Error()}
	}
	next, port := (*capture.UDP)(nil), d.udp.Port()
	if cfg.Listen != old.Listen {
		if next, err = d.udp.another(cfg.Listen); err != nil {
			sinks.drop()
			return &control.UsageError{Text: fmt.Sprintf("%s: listen: %v", cfg.Path, err)}
		}
		port = next.Port()
	}
	if err := reload(cfg.Ruleset(port), d.limit(cfg, roster)); err != nil {
		if next != nil {
			next.Close()
		}
		sinks.drop()
		return fmt.Errorf("the firewall refuses the new configuration, the old one stays: %w", err)
	}
	// Nothing below fails: the roster was just made of the same devices, and all who add to them hold this lock.
	d.cfg.Store(cfg)
	if next != nil {
		d.udp.move(next)
	}
	if d.o.LogFormat != nil {
		d.o.LogFormat(cfg.LogJSON)
	}
	d.verifier.SetLoopback(cfg.TestLoopback)
	if unready == nil {
		d.sinks.apply(sinks)
	} else {
		d.log.Error("who is told of events stays as on trial", "err", unready)
	}
	d.journal.SetWindow(cfg.Window)
	d.budget.SetLimits(cfg.Limits)
	return d.registry.setConfig(cfg)
}

// restartNeeded lists the keys that changed and can't while the daemon runs.
func restartNeeded(old, cfg *config.Config) error {
	var errs error
	changed := func(key string, differs bool) {
		if differs {
			errs = errors.Join(errs, fmt.Errorf("%s: %s can't change while spad runs; restart it, or put the old value back", cfg.Path, key))
		}
	}
	changed("firewall", old.Firewall != cfg.Firewall)
	changed("iptables", old.IPTables != cfg.IPTables)
	changed("key", old.KeyFile != cfg.KeyFile)
	changed("remote", old.Remote != cfg.Remote)
	changed("capture", old.Capture != cfg.Capture)
	return errs
}

// retain shuts the doors of sessions whose device has no right to them any more. No knock is under way meanwhile.
func (d *Daemon) retain(by string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.table.Retain(d.limit(d.cfg.Load(), d.registry.Roster()), by)
	if errors.Is(err, session.ErrStopped) {
		return nil
	}
	return err
}

// limit returns how long a session may stay open under a configuration and its devices: as long as a knock would get
// now. An operator's is bound by the service alone. It is asked about all sessions one after the other, which may be
// many, so what it finds out about a service or a device it keeps.
func (d *Daemon) limit(cfg *config.Config, roster *device.Roster) session.Limit {
	return limitOf(cfg, roster, d.remote.store.ByPin, time.UnixMilli(d.journal.NowMS()))
}

// remotes looks a remote up.
type remotes func(keys.RemotePin) (remote.Remote, bool)

// noRemotes is for who does not know them: what they opened ends.
func noRemotes(keys.RemotePin) (remote.Remote, bool) { return remote.Remote{}, false }

func limitOf(cfg *config.Config, roster *device.Roster, remotes remotes, now time.Time) session.Limit {
	serviceOf := once(func(name string) known[policy.Service, wire.ServiceID] {
		service, ok := cfg.Rules.Service(name)
		return known[policy.Service, wire.ServiceID]{service, wire.ServiceIDOf(name), ok}
	})
	deviceOf := once(func(name string) known[device.Device, string] {
		dev, ok := roster.ByName(name)
		if !ok {
			return known[device.Device, string]{}
		}
		return known[device.Device, string]{dev, dev.ID().String(), dev.Active(now.UnixMilli())}
	})
	return func(s session.Session) time.Duration {
		service := serviceOf(s.Service)
		if !service.ok || s.Source.Addr().IsLoopback() && !cfg.TestLoopback {
			return 0
		}
		if s.Device == "" {
			return remotes.limit(cfg, s, service.id, service.is.MaxTTL, now)
		}
		dev := deviceOf(s.Device)
		if !dev.ok || dev.id != s.Key || s.Delegated && !dev.is.Delegate {
			return 0
		}
		verdict := cfg.Rules.Decide(policy.Request{
			Allow: dev.is.Allow, Service: service.id, TTL: math.MaxUint16, Source: s.Source.Addr(), At: now,
		})
		return untilExpiry(dev.is, verdict.TTL, now)
	}
}

// limit is for what no device opened: a remote's is bound by its rights as well, and ends with it.
func (f remotes) limit(cfg *config.Config, s session.Session, service wire.ServiceID, most time.Duration, now time.Time) time.Duration {
	if s.Key == "" {
		return most
	}
	pin, _ := keys.ParseRemotePin(s.Key) // of what is none, nobody is the remote
	r, ok := f(pin)
	if !ok {
		return 0
	}
	return cfg.Rules.Decide(policy.Request{Allow: r.Allow, Service: service, TTL: math.MaxUint16, Source: s.Source.Addr(), At: now}).TTL
}

// known is what is known about a name.
type known[T, ID any] struct {
	is T
	id ID
	ok bool
}

// once returns f, called once for each name.
func once[T any](f func(string) T) func(string) T {
	all := map[string]T{}
	return func(name string) T {
		v, ok := all[name]
		if !ok {
			v = f(name)
			all[name] = v
		}
		return v
	}
}

// untilExpiry cuts a time to live to the device's own end: no door outlives the right to it.
func untilExpiry(dev device.Device, ttl time.Duration, now time.Time) time.Duration {
	if dev.Expires.IsZero() {
		return ttl
	}
	return min(ttl, dev.Expires.Sub(now))
}

// refreshOwn learns the router's own addresses.
func (d *Daemon) refreshOwn() {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		d.log.Warn("the router's own addresses can't be read", "err", err)
		return
	}
	own := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr())
		}
	}
	d.verifier.SetOwn(own)
}
