package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// portPatience is how long a port may take to answer: a door is open before the
	// answer leaves, so this is for the host behind it.
	portPatience = 10 * time.Second
	dialPatience = 2 * time.Second // a lost SYN is sent again after one second
	dialPause    = 200 * time.Millisecond
)

// dialer is what tries a port; net.Dialer is one.
type dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// awaitPorts waits until the port of every service answers, in one family at least.
func (k *knocker) awaitPorts(ctx context.Context, got answers) error {
	ctx, cancel := context.WithTimeout(ctx, portPatience)
	defer cancel()
	silent := make([]error, len(got))
	var wg sync.WaitGroup
	for i, a := range got {
		if a.port() == 0 {
			k.warn(a.Service + ": it has no single port that could be waited for; going on, since it is open")
			continue
		}
		wg.Go(func() { silent[i] = a.await(ctx) })
	}
	wg.Wait()
	var first error
	for _, err := range silent {
		if err != nil {
			k.warn(err.Error())
			first = exitError(codeNoPort)
		}
	}
	return first
}

func (a answer) await(ctx context.Context) error {
	var addrs []netip.AddrPort
	for _, r := range a.granted() {
		if r.Port != 0 { // otherwise it is not the router's
			addrs = append(addrs, netip.AddrPortFrom(r.Router.Addr(), r.Port))
		}
	}
	if answersAt(ctx, &net.Dialer{Timeout: dialPatience}, addrs) {
		return nil
	}
	return fmt.Errorf("%s: %w: it is open, but nothing accepts TCP connections at %s; is the service running?", a.Service, errNoPort, addrs[0])
}

// answersAt reports whether one of the addresses accepts a connection before ctx ends.
func answersAt(ctx context.Context, d dialer, addrs []netip.AddrPort) bool {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	yes := make(chan struct{}, len(addrs))
	for _, a := range addrs {
		wg.Go(func() {
			if dialUntil(ctx, d, a) {
				yes <- struct{}{}
			}
		})
	}
	select {
	case <-yes:
		return true
	case <-ctx.Done():
		return false
	}
}

func dialUntil(ctx context.Context, d dialer, a netip.AddrPort) bool {
	for ctx.Err() == nil {
		if c, err := d.DialContext(ctx, "tcp", a.String()); err == nil {
			_ = c.Close() // it was only asked for
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(dialPause):
		}
	}
	return false
}
