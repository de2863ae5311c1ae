package client

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"

	"spad/keys"
	"spad/pkg/wire"
)

// wish is one thing asked of the router; it goes out in a packet of its own for each
// address and try.
type wish struct {
	op      wire.Op
	service string     // for open and close
	ttl     uint16     // for open
	token   keys.Token // for enroll
}

// granted reports whether a status is what the wish was for. A hello is for the
// router's time, which clock off brings as well.
func (w wish) granted(s wire.Status) bool {
	switch w.op {
	case wire.OpOpen:
		return s == wire.Opened
	case wire.OpClose:
		return s == wire.Closed
	case wire.OpEnroll:
		return s == wire.Enrolled
	}
	return s == wire.Hello || s == wire.ClockOff
}

// errand is one call's business with one router.
type errand struct {
	net      Network
	system   System
	rand     io.Reader
	device   keys.DeviceSecret
	sealer   *wire.Sealer
	memory   *memory
	places   *places
	families []Family
	nat64    *translators

	noAnswer, noAddress bool
}

func (c *Client) errand(device keys.DeviceSecret, r Router, only Family) (*errand, error) {
	p, err := newPlaces(c.net, r.Addr)
	if err != nil {
		return nil, err
	}
	families, err := p.families(only)
	if err != nil {
		return nil, err
	}
	return &errand{
		net: c.net, system: c.system, rand: &lockedReader{r: c.rand}, device: device, sealer: wire.NewSealer(r.Key),
		memory: &memory{folder: c.folder, system: c.system, device: device.Public(), router: r.Key},
		places: p, families: families, nat64: newTranslators(c.net),
	}, nil
}

// lockedReader lets flights share a source of randomness that need not be safe for that.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// greet sends hello first if the device can't rely on its clock. No answer to it is no
// answer to what would follow. Who wants no answers is not helped by it.
func (e *errand) greet(ctx context.Context) error {
	if e.noAnswer {
		return nil
	}
	lost, err := e.memory.lost(ctx)
	if err != nil || !lost {
		return err
	}
	hello := *e
	hello.noAddress = true // nothing opens, so there is nothing to hold back
	return hello.run(ctx, []wish{{op: wire.OpHello}}, oneFamily)[0].Err()
}

// run sends all wishes in all families and returns their outcomes; nothing of it goes
// on when it returns.
func (e *errand) run(ctx context.Context, wishes []wish, p patience) []Outcome {
	if e.noAnswer {
		p = unanswered
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	reports := make(chan report, len(wishes)*len(e.families)) // so that nobody waits to report
	departed := make(chan Family, len(e.families))
	begin := beside(&wg, len(e.families) == 1)
	for _, f := range e.families {
		begin(func() { e.family(ctx, f, wishes, departed, reports) })
	}
	t := newTally(wishes, len(e.families))
	t.collect(p, departed, reports)
	return t.sorted()
}

// beside returns what begins one of the things that go on side by side: as a goroutine, or, if it is alone, here and now.
// For a program that runs three milliseconds, each goroutine that wakes another thread is a part of them.
func beside(wg *sync.WaitGroup, alone bool) func(func()) {
	if alone {
		return func(do func()) { do() }
	}
	return wg.Go
}

// family sends all wishes in one family and reports one result for each. It says when
// the first packets have left, or can't.
func (e *errand) family(ctx context.Context, f Family, wishes []wish, departed chan<- Family, reports chan<- report) {
	targets, err := e.places.in(ctx, f)
	if err != nil {
		for i, w := range wishes {
			reports <- report{i, Result{Service: w.service, Family: f, Err: err}}
		}
		departed <- f
		return
	}
	var leaving, wg sync.WaitGroup
	leaving.Add(len(wishes) * len(targets))
	// With another family beside this one, when the packets have left must be told before the answers are in.
	begin := beside(&wg, len(wishes) == 1 && len(e.families) == 1)
	for i, w := range wishes {
		begin(func() { reports <- report{i, e.approach(ctx, f, w, targets, leaving.Done)} })
	}
	leaving.Wait()
	departed <- f
	wg.Wait()
}

// approach sends a wish to the addresses of one family at once, and returns the first
// success or else the most telling result.
func (e *errand) approach(ctx context.Context, f Family, w wish, targets []target, left func()) Result {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	results := make(chan Result, len(targets))
	begin := beside(&wg, len(targets) == 1)
	for _, t := range targets {
		begin(func() { results <- e.fly(ctx, f, w, t, sync.OnceFunc(left)) })
	}
	best := <-results
	for range targets[1:] {
		if best.Err == nil && !e.noAnswer { // without answers, none is a success before it has left
			break
		}
		if r := <-results; r.rank() < best.rank() {
			best = r
		}
	}
	return best
}

// fly sends a wish to one address. It calls left when the first packet has, or never will.
func (e *errand) fly(ctx context.Context, f Family, w wish, t target, left func()) Result {
	defer left()
	r := Result{Service: w.service, Family: f, Router: t.addr}
	conn, err := e.net.Dial(ctx, t.addr)
	if err != nil {
		r.Err = unreachable(t.addr, err)
		return r
	}
	var address netip.Addr
	if !e.noAddress && w.op != wire.OpEnroll {
		address = e.nat64.declared(ctx, conn.LocalAddr(), t)
	}
	fl := &flight{errand: e, wish: w, conn: conn, address: address, left: left, result: r}
	return fl.run(ctx)
}

// seal makes one packet. The time is not looked at for an enrolment.
func (e *errand) seal(w wish, ms int64, address netip.Addr) ([wire.PacketSize]byte, wire.Waiter, error) {
	if w.op == wire.OpEnroll {
		return e.sealer.SealEnroll(e.device, w.token, !e.noAnswer, e.rand)
	}
	m := wire.Message{Op: w.op, WantAnswer: !e.noAnswer, TTL: w.ttl, TimeMS: ms, Address: address}
	if w.op != wire.OpHello {
		m.Service = wire.ServiceIDOf(w.service)
	}
	return e.sealer.Seal(m, e.device, e.rand)
}

// unreachableError is an address this device has no way to.
type unreachableError struct {
	to  netip.AddrPort
	err error
}

func (e *unreachableError) Error() string {
	return "no way to " + e.to.Addr().String() + ": " + cause(e.err)
}
func (e *unreachableError) Unwrap() error { return e.err }

func unreachable(to netip.AddrPort, err error) error { return &unreachableError{to, err} }

// cause returns the innermost text of a network error, without the addresses around it.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
