package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/device"
	"spad/pkg/event"
	"spad/pkg/session"
	"spad/pkg/wire"
)

// ownEvery is how often the router's own addresses are looked at; they only keep it from opening doors to itself.
const ownEvery = 15 * time.Second

// Reload implements control.Daemon: it takes a changed configuration over as a whole, or keeps the old one as a whole. A
// configuration that can't be taken over is a control.UsageError.
func (d *Daemon) Reload(context.Context) error {
	err := d.reload()
	if err != nil {
		d.bus.Publish(event.Event{Kind: event.ReloadFailed, Reason: err.Error()})
		return err
	}
	d.bus.Publish(event.Event{Kind: event.Reloaded})
	return nil
}

func (d *Daemon) reload() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.cfg.Load()
	cfg, err := config.Load(old.Path)
	if err == nil {
		err = restartNeeded(old, cfg)
	}
	if err != nil {
		return &control.UsageError{Text: err.Error()}
	}
	roster, err := device.NewRoster(cfg.Devices, d.store.Devices())
	if err != nil {
		return &control.UsageError{Text: err.Error()}
	}
	if err := d.table.Reload(d.ruleset(cfg), d.stays(cfg, roster)); err != nil {
		return fmt.Errorf("the firewall refuses the new configuration, the old one stays: %w", err)
	}
	// Nothing below fails: the roster was just made of the same devices, and only this lock's holder changes rights.
	d.cfg.Store(cfg)
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
	changed("listen", old.Listen != cfg.Listen)
	changed("firewall", old.Firewall != cfg.Firewall)
	changed("key", old.KeyFile != cfg.KeyFile)
	changed("capture", old.Capture != cfg.Capture)
	changed("test_loopback", old.TestLoopback != cfg.TestLoopback)
	return errs
}

// rosterChanged gives the verifier the new devices and shuts the doors of those that lost their right.
func (d *Daemon) rosterChanged(r *device.Roster) {
	d.verifier.SetRoster(r)
	d.retain(r)
}

// retain shuts the doors of sessions whose device has no right to them any more: it was removed, disabled, or expired.
func (d *Daemon) retain(r *device.Roster) {
	if err := d.table.Retain(d.stays(d.cfg.Load(), r)); err != nil && !errors.Is(err, session.ErrStopped) {
		d.bus.Publish(event.Event{Kind: event.BackendFailed, Reason: err.Error()})
	}
}

// stays says of a session whether its device still has the right to it. An operator's needs none.
func (d *Daemon) stays(cfg *config.Config, roster *device.Roster) func(session.Session) bool {
	now := d.journal.NowMS()
	return func(s session.Session) bool {
		service, ok := cfg.Rules.Service(s.Service)
		if !ok {
			return false
		}
		if s.Device == "" {
			return true
		}
		dev, ok := roster.ByName(s.Device)
		return ok && dev.ID().String() == s.Key && dev.Active(now) && granted(cfg, dev.Allow, service.Name) && (!s.Delegated || dev.Delegate)
	}
}

// mayStay judges the sessions of an earlier run.
func (d *Daemon) mayStay(s session.Session) bool {
	return d.stays(d.cfg.Load(), d.registry.Roster())(s)
}

// granted says whether rights name a service, whatever the hour and the place.
func granted(cfg *config.Config, allow []string, service string) bool {
	return cfg.Rules.DecideClose(allow, wire.ServiceIDOf(service)).Allowed
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
