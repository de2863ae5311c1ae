package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/event"
	"spad/pkg/firewall"
	"spad/pkg/session"
)

// ErrUnconfirmed says that a run on trial was not confirmed, and that nothing of spad's is in the firewall any more.
var ErrUnconfirmed = errors.New("not confirmed with spad confirm: everything of spad's was taken out of the firewall again")

// Guard starts a process that reverts a trial if this one can't: because it was killed, or hangs. It outlives this one,
// and goes when released, or after it has done its work. run says which trial: of a run, else of a reload.
type Guard func(run bool, trial time.Duration) (release func(), err error)

// trial is what stays in force only if it is confirmed.
type trial struct {
	length  time.Duration
	ends    time.Time
	timer   *time.Timer
	release func()            // of the guard
	old     *config.Config    // what comes back; nil: the run ends
	ended   []session.Session // that the reload ended, as they were …
	cut     []session.Session // … or gave less time
}

// guard starts the process beside this one.
func (d *Daemon) guard(run bool, length time.Duration) (release func(), err error) {
	if d.o.Guard == nil {
		return func() {}, nil
	}
	return d.o.Guard(run, length)
}

// tryRun begins the trial of this run, before anything is in the firewall.
func (d *Daemon) tryRun() error {
	if d.o.Trial == 0 {
		return nil
	}
	release, err := d.guard(true, d.o.Trial)
	if err != nil {
		return err
	}
	d.trial = &trial{length: d.o.Trial, ends: time.Now().Add(d.o.Trial), release: release, timer: time.AfterFunc(d.o.Trial, d.stop)}
	d.log.Warn("this run is on trial: it ends, and all of it is reverted, unless you say: spad confirm", "within", d.o.Trial)
	return nil
}

// trialLeft returns how many seconds are left to confirm what is on trial; 0 if nothing is.
func (d *Daemon) trialLeft() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.trial == nil {
		return 0
	}
	return max(int(time.Until(d.trial.ends)/time.Second), 1)
}

// nothingTried ends the trial of a run that changed nothing: what an earlier one left in the firewall stays.
func (d *Daemon) nothingTried() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.trial; t != nil {
		t.timer.Stop()
		d.trial = nil
		t.release()
	}
}

// endRun reverts a run that was not confirmed, however it ended. The state is still held: no other daemon starts meanwhile.
func (d *Daemon) endRun(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.trial
	if t == nil || t.old != nil {
		return err
	}
	t.timer.Stop()
	if down := Down(d.o.StateDir, d.cfg.Load()); down != nil {
		return errors.Join(err, down) // the guard tries again
	}
	d.log.Error("not confirmed: everything of spad's was taken out of the firewall again", "trial", t.length)
	t.release()
	return errors.Join(err, ErrUnconfirmed)
}

// Confirm implements control.Daemon.
func (d *Daemon) Confirm(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.trial
	if t == nil {
		return &control.UsageError{Text: "nothing is on trial: neither this run nor a reload, or its time is over"}
	}
	if t.old != nil {
		if err := forgetTrial(d.o.StateDir); err != nil {
			return err
		}
	}
	t.timer.Stop()
	d.trial = nil
	t.release()
	d.log.Info("confirmed: what was on trial stays")
	return nil
}

// tryReload takes a configuration over for a time. The lock is held for writing.
func (d *Daemon) tryReload(cfg *config.Config, length time.Duration) error {
	old := d.cfg.Load()
	if err := recordTrial(d.o.StateDir, old, cfg); err != nil {
		return err
	}
	release, err := d.guard(false, length)
	if err != nil {
		return errors.Join(err, forgetTrial(d.o.StateDir))
	}
	t := &trial{length: length, ends: time.Now().Add(length), release: release, old: old}
	if err := d.takeNoting(cfg, t); err != nil {
		err = errors.Join(err, forgetTrial(d.o.StateDir))
		release()
		return err
	}
	t.timer = time.AfterFunc(length, func() { d.revert(t) })
	d.trial = t
	d.log.Warn("the new configuration is on trial: the old one comes back unless you say: spad confirm", "within", length)
	return nil
}

// takeNoting takes a configuration over and notes what that does to sessions.
func (d *Daemon) takeNoting(cfg *config.Config, t *trial) error {
	before, _, err := d.table.List()
	if err == nil {
		err = d.take(cfg, d.table.Reload)
	}
	if err != nil {
		return err
	}
	after, _, err := d.table.List()
	left := make(map[string]time.Duration, len(after))
	for _, s := range after {
		left[s.ID] = s.Until
	}
	for _, s := range before {
		switch until, open := left[s.ID]; {
		case !open:
			t.ended = append(t.ended, s)
		case until < s.Until:
			t.cut = append(t.cut, s)
		}
	}
	return err
}

// revert goes back to the configuration before a trial, with its doors.
func (d *Daemon) revert(t *trial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trial != t {
		return
	}
	d.trial = nil
	back := func(r firewall.Ruleset, l session.Limit) error { return d.table.Revert(r, l, t.ended, t.cut) }
	d.reverting = true // a webhook's file that is not as it was must keep nobody out
	defer func() { d.reverting = false }()
	if err := d.take(t.old, back); err != nil {
		if errors.Is(err, session.ErrStopped) {
			return // the guard does it, when this process has ended
		}
		d.bus.Publish(event.Event{Kind: event.ReloadFailed, Reason: fmt.Sprintf("not confirmed within %v, and the old configuration can't be put back: %v", t.length, err)})
		return
	}
	t.release()
	d.bus.Publish(event.Event{Kind: event.ReloadFailed, Reason: fmt.Sprintf("not confirmed within %v: the configuration before it is in force again; "+
		"%s is as you left it, spad reload takes it over", t.length, t.old.Path)})
}
