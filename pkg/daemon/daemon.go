// Package daemon wires the rooms together: one task per long-running thing, readiness, reload, an orderly stop.
//
//	reader (capture)  --admitted packets-->  workers (verify, policy)  -->  session table  -->  kernel
//	     drops and counts, never blocks           one answer each             one goroutine
//
// Stopping is not opening: however the daemon ends, guard and doors stay in the kernel, the doors until their time, and
// the next start takes both over.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/device"
	"spad/pkg/event"
	"spad/pkg/firewall"
	"spad/pkg/flood"
	"spad/pkg/replay"
	"spad/pkg/session"
	"spad/pkg/verify"
)

// saveEvery is how often the knock clock is saved.
const saveEvery = 10 * time.Minute

// Options say what to run.
type Options struct {
	Config       *config.Config
	StateDir     string
	Socket       string
	Version      string
	Log          *slog.Logger
	LogFormat    func(json bool) // changes the form of Log's lines; may be nil
	AllowLockout bool            // start even if the guard shuts out the ssh session we are started from
	Reload       <-chan struct{} // each value asks for a reload of the configuration
	Trial        time.Duration   // this run is reverted unless it is confirmed within that time; 0: it is not on trial
	Guard        Guard           // nil: none
	Ready        func()          // called when knocks are answered; may be nil
}

// Daemon is a running spad.
type Daemon struct {
	o       Options
	log     *slog.Logger
	bus     *event.Bus
	started time.Time

	store    *device.Store
	registry *Registry
	journal  *replay.Journal
	sinks    *sinks
	budget   *flood.Budget
	verifier *verify.Verifier
	backend  firewall.Backend
	filter   filter // what the backend is
	table    *session.Table
	udp      *ear
	remote   remoteControl

	// mu is held for reading while a decision is made and carried out, and for writing while rights change, so that no
	// door opens by a right that is gone.
	mu  sync.RWMutex
	cfg atomic.Pointer[config.Config]

	queue     chan job
	damaged   chan struct{} // what the packet filter holds is not what it should
	counters  counters
	past      *past
	trial     *trial // nil: none; guarded by mu
	reverting bool   // guarded by mu: take is called to go back
	stop      context.CancelFunc
}

// Run runs the daemon until ctx is done or a client of the control socket asks it to stop.
func Run(ctx context.Context, o Options) (err error) {
	d := &Daemon{o: o, log: o.Log, bus: event.NewBus(o.Log), started: time.Now(), queue: make(chan job, queueLength), damaged: make(chan struct{}, 1), past: newPast()}
	d.cfg.Store(o.Config)
	closers := &closers{}
	defer func() { err = errors.Join(err, closers.close(), d.flush()) }()
	if err := d.prepare(closers); err != nil {
		return err
	}
	listener, err := control.Listen(o.Socket)
	if err != nil {
		return err
	}
	ctx, d.stop = context.WithCancel(ctx)
	defer d.stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.watch(ctx) })
	d.mu.Lock()
	err = d.tryRun()
	d.mu.Unlock()
	defer func() { err = d.endRun(err) }()
	if err == nil {
		if err = d.takeOver(); err != nil {
			d.nothingTried()
		}
	}
	if err != nil {
		listener.Close()
		d.stop()
		return errors.Join(err, group.Wait())
	}
	server := &control.Server{
		Sessions: d, Devices: d, Daemon: d, Why: d, Services: d, Knocks: d, Remotes: d, Events: d.bus, Metrics: d.metrics, Log: d.log,
	}
	group.Go(func() error { return d.table.Run(ctx) })
	group.Go(func() error { return d.heal(ctx) })
	group.Go(func() error { return server.Serve(ctx, listener) })
	group.Go(func() error { return d.serveRemotes(ctx) })
	group.Go(func() error { return d.udp.Run(ctx, d.read) })
	group.Go(func() error { return d.housekeep(ctx) })
	group.Go(func() error { return d.attend(ctx) })
	for range workers() {
		group.Go(func() error { return d.work(ctx) })
	}
	d.bus.Publish(event.Event{Kind: event.Started})
	if o.Ready != nil {
		o.Ready()
	}
	d.ready("")
	err = group.Wait()
	d.bus.Publish(event.Event{Kind: event.Stopped})
	return errors.Join(err, d.sinks.close())
}

// flush waits until what happened is in the log, but not for a log that is stuck.
func (d *Daemon) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return d.bus.Flush(ctx)
}

// prepare makes everything that can fail before the firewall is touched.
func (d *Daemon) prepare(c *closers) (err error) {
	cfg := d.o.Config
	secret, err := keys.ReadRouterFile(cfg.KeyFile)
	if err != nil {
		return err
	}
	if d.store, err = device.Open(d.o.StateDir, d.nowMS); err != nil {
		return err
	}
	c.add(d.store.Close)
	roster, err := device.NewRoster(cfg.Devices, d.store.Devices())
	if err != nil {
		return err
	}
	d.journal, err = replay.Open(replay.Options{
		Path: filepath.Join(d.o.StateDir, "journal"), Window: cfg.Window, Known: roster.Keys(), Log: d.log,
	})
	if err != nil {
		return err
	}
	c.add(d.journal.Close)
	if d.registry, err = newRegistry(cfg, d.store, secret.Public(), d.journal.NowMS, d.bus); err != nil {
		return err
	}
	d.budget = flood.NewBudget(cfg.Limits)
	d.verifier = verify.New(verify.Options{
		Secret: secret, Budget: d.budget, Journal: d.journal, Tokens: d.store, Roster: roster, Loopback: cfg.TestLoopback,
	})
	d.registry.changed = d.verifier.SetRoster
	d.refreshOwn()
	if d.udp, err = listen(cfg.Listen, d.log); err != nil {
		return err
	}
	c.add(d.udp.Close)
	if err := d.prepareRemote(c); err != nil {
		return err
	}
	if !d.o.AllowLockout {
		if err := lockout(d.ruleset(cfg), SSHConnection()); err != nil {
			return err
		}
	}
	if d.backend, d.filter, err = filterOf(cfg).open(); err != nil {
		return err
	}
	c.add(d.backend.Close)
	d.table = session.New(session.Options{
		Backend: d.backend, Bus: d.bus, Log: d.log, File: SessionsFile(d.o.StateDir), BootID: bootID(), Now: bootTime,
	})
	// The last: a start that is refused tells nobody.
	if d.sinks, err = openSinks(cfg, d.o.StateDir, d.o.Version, d.bus); err != nil {
		return err
	}
	c.add(d.sinks.close)
	return nil
}

// takeOver puts the guard and the doors of the last run into the firewall, and takes out of others what they have of ours.
func (d *Daemon) takeOver() error {
	others, err := holdFilter(d.o.StateDir, d.filter)
	if err != nil {
		return err
	}
	if err := d.table.Start(d.ruleset(d.o.Config), d.limit(d.o.Config, d.registry.Roster())); err != nil {
		return err
	}
	d.dropFilters(d.filter, others)
	return nil
}

// nowMS is the knock clock for the state, which is opened before the journal.
func (d *Daemon) nowMS() int64 {
	if d.journal == nil {
		return time.Now().UnixMilli()
	}
	return d.journal.NowMS()
}

func (d *Daemon) ruleset(cfg *config.Config) firewall.Ruleset { return cfg.Ruleset(d.udp.Port()) }

// housekeep reloads when asked, saves the knock clock, and learns the router's own addresses.
func (d *Daemon) housekeep(ctx context.Context) error {
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	look := time.NewTicker(ownEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.o.Reload:
			// The reload itself has logged what is wrong.
			_ = d.Reload(ctx, control.ReloadRequest{})
		case <-save.C:
			if err := d.journal.Save(); err != nil {
				d.bus.Publish(event.Event{Kind: event.JournalFailed, Reason: err.Error()})
			}
		case <-look.C:
			d.refreshOwn()
			if err := d.retain("expiry"); err != nil {
				d.bus.Publish(event.Event{Kind: event.BackendFailed, Reason: err.Error()})
			}
		}
	}
}

// closers are closed in reverse order.
type closers struct{ list []func() error }

func (c *closers) add(f func() error) { c.list = append(c.list, f) }

func (c *closers) close() error {
	var err error
	for i := len(c.list) - 1; i >= 0; i-- {
		if e := c.list[i](); e != nil {
			err = errors.Join(err, fmt.Errorf("stopping: %w", e))
		}
	}
	return err
}
