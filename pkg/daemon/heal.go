package daemon

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"spad/pkg/event"
	"spad/pkg/firewall"
	"spad/pkg/session"
)

// Rules and doors that another program took away are put back at once, a few times; a program that goes on doing it gets
// one answer a second and no more, and the log one line a minute.
const (
	healEvery = time.Second
	healBurst = 3
)

// watch tells heal of damage, if the packet filter can; it begins before the rules are made, so that none is missed.
func (d *Daemon) watch(ctx context.Context) error {
	watcher, ok := d.backend.(firewall.Watcher)
	for ok && ctx.Err() == nil {
		if err := watcher.Watch(ctx, d.damage); err != nil {
			d.bus.Publish(event.Event{Kind: event.BackendFailed, Reason: err.Error()})
			select {
			case <-time.After(healEvery):
				d.damage() // what happened meanwhile nobody knows
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// damage says that the packet filter does not hold what it should. What happens until it is mended is mended by the same
// stroke.
func (d *Daemon) damage() {
	select {
	case d.damaged <- struct{}{}:
	default:
	}
}

// heal puts back what should be there, whenever it is not. If that fails it tries again: nobody may tell of it twice.
func (d *Daemon) heal(ctx context.Context) error {
	pace := rate.NewLimiter(rate.Every(healEvery), healBurst)
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-d.damaged:
		}
		if pace.Wait(ctx) != nil {
			return nil
		}
		again = nil
		switch err := d.table.Heal(); {
		case errors.Is(err, session.ErrStopped):
			return nil
		case err != nil:
			d.bus.Publish(event.Event{Kind: event.BackendFailed, Reason: err.Error()})
			again = time.After(healEvery)
		default:
			d.bus.Publish(event.Event{Kind: event.BackendHealed, Reason: "another program had changed spad's rules or doors"})
		}
	}
}
