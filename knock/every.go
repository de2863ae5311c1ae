package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// keeper keeps doors open: it knocks again and again.
type keeper struct {
	every time.Duration
	// round knocks once; ttl is how long the doors are open then, 0 if that is not known.
	round     func(context.Context) (ttl time.Duration, err error)
	addresses func() string // a text that is another when the device's network is
	warn      func(string)
}

const (
	// slice is how often a sleeping keeper looks whether the device was asleep or
	// changed its network. Timers stand still in suspend; the system clock does not.
	slice    = 15 * time.Second
	firstTry = 5 * time.Second // after a failure; doubled with each further one
	lastTry  = 5 * time.Minute
)

// run knocks until ctx ends, or until a person must mend something first.
func (k keeper) run(ctx context.Context) error {
	warned := false
	for failures := 0; ctx.Err() == nil; {
		ttl, err := k.round(ctx)
		pause := k.every
		switch {
		case exitCode(err) == codeUsage:
			return err
		case err != nil:
			pause = min(k.every, lastTry, firstTry<<min(failures, 10))
			failures++
		case ttl > 0 && ttl <= k.every: // it would shut before the next knock
			pause = max(ttl/2, time.Second)
			if !warned {
				k.warn(fmt.Sprintf("the router opens for %s only; knocking every %s", short(ttl), short(pause)))
			}
			warned, failures = true, 0
		default:
			failures = 0
		}
		k.sleep(ctx, pause)
	}
	return nil
}

// sleep waits for the time d on whichever clock is first to say that it is over, or
// until the network changes.
func (k keeper) sleep(ctx context.Context, d time.Duration) {
	end, before := time.Now().Add(d), k.addresses()
	for ctx.Err() == nil {
		left := min(time.Until(end), end.Round(0).Sub(time.Now().Round(0))) // Round(0) leaves the system clock
		if left <= 0 || k.addresses() != before {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(left, slice)):
		}
	}
}

// addresses returns the addresses of this device that can reach beyond its links.
func addresses() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "" // then only time counts
	}
	var list []string
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			list = append(list, p.String())
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// untilStopped ends the context at Ctrl-C or when the program is told to terminate.
func untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}
