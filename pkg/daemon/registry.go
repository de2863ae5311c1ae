package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/device"
	"spad/pkg/event"
	"spad/pkg/wire"
)

// defaultInvite is how long an invite lives unless told otherwise.
const defaultInvite = 15 * time.Minute

// Registry is who is enrolled: the devices of the configuration and those of the state, kept as one. It is what
// `spad device` and `spad invite` work on, through the daemon if it runs, else by themselves.
type Registry struct {
	mu      sync.Mutex
	cfg     *config.Config
	store   *device.Store
	router  keys.RouterPublic
	nowMS   func() int64
	roster  *device.Roster
	changed func(*device.Roster) // called with each new roster
	bus     *event.Bus
}

var _ control.Devices = (*Registry)(nil)

// OpenRegistry takes the state's lock and reads it, for a command that works without a daemon. Expiry is judged by the
// system clock, since no knock clock runs. device.ErrLocked says that somebody else holds the state.
func OpenRegistry(cfg *config.Config, stateDir string) (*Registry, error) {
	secret, err := keys.ReadRouterFile(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	nowMS := func() int64 { return time.Now().UnixMilli() }
	store, err := device.Open(stateDir, nowMS)
	if err != nil {
		return nil, err
	}
	r, err := newRegistry(cfg, store, secret.Public(), nowMS, nil)
	if err != nil {
		store.Close()
	}
	return r, err
}

func newRegistry(cfg *config.Config, store *device.Store, router keys.RouterPublic, nowMS func() int64, bus *event.Bus) (*Registry, error) {
	roster, err := device.NewRoster(cfg.Devices, store.Devices())
	if err != nil {
		return nil, err
	}
	store.SetConfigured(cfg.Devices)
	return &Registry{cfg: cfg, store: store, router: router, nowMS: nowMS, roster: roster, bus: bus, changed: func(*device.Roster) {}}, nil
}

// Close gives the state back.
func (r *Registry) Close() error { return r.store.Close() }

// Roster returns who is enrolled now.
func (r *Registry) Roster() *device.Roster {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.roster
}

// renew makes the roster anew after a change of the state.
func (r *Registry) renew() error {
	roster, err := device.NewRoster(r.cfg.Devices, r.store.Devices())
	if err != nil {
		return err
	}
	r.roster = roster
	r.changed(roster)
	return nil
}

// Devices implements control.Devices.
func (r *Registry) Devices(context.Context) ([]control.Device, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []control.Device
	for _, d := range r.roster.All() {
		all = append(all, r.describe(d))
	}
	slices.SortFunc(all, func(a, b control.Device) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// AddDevice implements control.Devices.
func (r *Registry) AddDevice(ctx context.Context, d control.Device) error {
	key, err := keys.ParseDevicePublic(d.Key)
	if err != nil {
		return &control.UsageError{Text: fmt.Sprintf("the key of %q: %v", d.Name, err)}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := possible(r.cfg, d.Name, d.Allow); err != nil {
		return err
	}
	added := device.Device{
		Name: d.Name, Key: key, Allow: d.Allow, Disabled: d.Disabled, Delegate: d.Delegate,
		Enrolled: time.UnixMilli(r.nowMS()).UTC(),
	}
	if d.Expires != nil {
		added.Expires = *d.Expires
	}
	if err := r.store.Add(added); err != nil {
		return conflict(err)
	}
	r.bus.Publish(event.Event{Kind: event.DeviceAdded, Device: d.Name, By: byOf(ctx)})
	return r.renew()
}

// RemoveDevice implements control.Devices.
func (r *Registry) RemoveDevice(ctx context.Context, name string) (control.Device, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.configured(name) {
		return control.Device{}, control.Conflict(fmt.Sprintf("%q is in the configuration; take [device.%s] out of %s and run: spad reload", name, name, r.cfg.Path))
	}
	gone, err := r.store.Remove(name)
	if errors.Is(err, device.ErrUnknown) {
		return control.Device{}, control.Unknown(fmt.Sprintf("no device is called %q; spad device list shows them", name))
	}
	if err != nil {
		return control.Device{}, err
	}
	r.bus.Publish(event.Event{Kind: event.DeviceRemoved, Device: name, By: byOf(ctx)})
	return r.describe(gone), r.renew()
}

// Invite implements control.Devices.
func (r *Registry) Invite(ctx context.Context, q control.InviteRequest) (control.Invite, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := possible(r.cfg, q.Name, q.Allow); err != nil {
		return control.Invite{}, err
	}
	addr, err := r.cfg.InviteAddr()
	if err != nil {
		return control.Invite{}, &control.UsageError{Text: err.Error()}
	}
	ttl := q.TTL
	if ttl == 0 {
		ttl = defaultInvite
	}
	expires := r.nowMS() + ttl.Milliseconds()
	token, err := r.store.Invite(q.Name, q.Allow, expires)
	if err != nil {
		return control.Invite{}, conflict(err)
	}
	line, err := keys.Invite{
		Router: r.router, Token: token, ExpiresMS: expires, Addr: addr, Device: q.Name, Services: r.cfg.Rules.Granted(q.Allow),
	}.Text()
	if err != nil {
		return control.Invite{}, &control.UsageError{Text: err.Error()}
	}
	r.bus.Publish(event.Event{Kind: event.InviteCreated, Device: q.Name, By: byOf(ctx), TTL: ttl})
	return control.Invite{Name: q.Name, Line: line, Expires: time.UnixMilli(expires)}, nil
}

// enroll uses an invite for a key whose signature was checked.
func (r *Registry) enroll(token keys.TokenID, key keys.DevicePublic) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, fresh, err := r.store.Enroll(token, key, r.nowMS())
	if err != nil || !fresh {
		return err
	}
	r.bus.Publish(event.Event{Kind: event.DeviceEnrolled, Device: d.Name})
	return r.renew()
}

// setConfig takes the devices and services of a new configuration over, unless they clash with the state.
func (r *Registry) setConfig(cfg *config.Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.cfg
	r.cfg = cfg
	if err := r.renew(); err != nil {
		r.cfg = old
		return err
	}
	r.store.SetConfigured(cfg.Devices)
	return nil
}

// possible says whether a device can have this name and these rights.
func possible(cfg *config.Config, name string, allow []string) error {
	if !wire.ValidName(name) {
		return &control.UsageError{Text: fmt.Sprintf("the name %q is not possible; use a-z, 0-9 and -, at most 32, beginning with a letter or digit", name)}
	}
	if err := config.CheckAllow(cfg.Rules, allow); err != nil {
		return &control.UsageError{Text: err.Error()}
	}
	return nil
}

func (r *Registry) configured(name string) bool {
	return slices.ContainsFunc(r.cfg.Devices, func(d device.Device) bool { return d.Name == name })
}

func (r *Registry) describe(d device.Device) control.Device {
	c := control.Device{
		Name: d.Name, Key: d.Key.String(), Allow: d.Allow, Disabled: d.Disabled, Delegate: d.Delegate, Origin: "state",
	}
	if r.configured(d.Name) {
		c.Origin = "config"
	}
	if !d.Expires.IsZero() {
		c.Expires = &d.Expires
	}
	if !d.Enrolled.IsZero() {
		c.Enrolled = &d.Enrolled
	}
	return c
}

// conflict maps what is taken to a conflict, in the store's words.
func conflict(err error) error {
	if errors.Is(err, device.ErrExists) {
		return control.Conflict(err.Error())
	}
	return err
}

// SessionsFile returns where the open sessions are kept in a state directory.
func SessionsFile(stateDir string) string { return filepath.Join(stateDir, "sessions.jsonl") }
