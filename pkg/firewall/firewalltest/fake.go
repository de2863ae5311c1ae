package firewalltest

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"spad/pkg/firewall"
)

// ErrMisuse is in every error that a Fake returns because its caller broke the rules of firewall.Backend, or did what
// makes no sense: a second Down, a call after Close.
var ErrMisuse = errors.New("misuse of the firewall")

// Fake is a strict firewall.Backend in memory: what a real one might let pass, it refuses and remembers.
// It is safe for concurrent use.
type Fake struct {
	mu     sync.Mutex
	now    func() time.Time
	rules  *firewall.Ruleset
	doors  map[place]time.Time // until when
	fails  []error
	misuse []error
	calls  []string
	downs  int // since the last Apply
	closed bool
}

var _ firewall.Backend = (*Fake)(nil)

// place is what a door is open for.
type place struct {
	service string
	source  netip.Prefix
}

// NewFake returns a Fake whose doors expire on the clock now; nil stands for time.Now.
func NewFake(now func() time.Time) *Fake {
	if now == nil {
		now = time.Now
	}
	return &Fake{now: now, doors: map[place]time.Time{}}
}

// FailNext lets the next calls (of any method but Close) fail with these errors, one each, and change nothing.
// A nil in between lets that call through.
func (f *Fake) FailNext(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = append(f.fails, errs...)
}

// Misuse returns every breach of the interface's rules until now, joined, or nil. Tests check it at their end.
func (f *Fake) Misuse() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.misuse...)
}

// Calls returns the calls until now, failed ones included, as "apply 2 services 1 doors", "open ssh 192.0.2.1/32 15m0s",
// "shut ssh 192.0.2.1/32", "doors", "down" and "close". An open or shut of several doors is one line per door.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// IsOpen reports whether a packet from the address would find the service's door open now, by door or by AlwaysAllow.
func (f *Fake) IsOpen(service string, from netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rules == nil {
		return false
	}
	if _, known := f.rules.Service(service); !known {
		return false
	}
	for _, p := range f.rules.AlwaysAllow {
		if p.Contains(from) {
			return true
		}
	}
	f.expire()
	for p := range f.doors {
		if p.service == service && p.source.Contains(from) {
			return true
		}
	}
	return false
}

// Ruleset returns what was applied last; false before Apply and after Down.
func (f *Fake) Ruleset() (firewall.Ruleset, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rules == nil {
		return firewall.Ruleset{}, false
	}
	return *f.rules, true
}

// Apply implements firewall.Backend.
func (f *Fake) Apply(r firewall.Ruleset, doors []firewall.Door) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called(fmt.Sprintf("apply %d services %d doors", len(r.Services), len(doors))); err != nil {
		return err
	}
	if err := r.Check(); err != nil {
		return f.misused("apply: %w", err)
	}
	if err := checkDoors(r, doors); err != nil {
		return f.misused("apply: %w", err)
	}
	r.Services = slices.Clone(r.Services)
	f.rules, f.downs = &r, 0
	clear(f.doors)
	f.set(doors)
	return nil
}

// Open implements firewall.Backend.
func (f *Fake) Open(doors ...firewall.Door) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, d := range doors {
		lines = append(lines, fmt.Sprintf("open %s %v %v", d.Service, d.Source, d.TTL))
	}
	if err := f.called(lines...); err != nil {
		return err
	}
	if f.rules == nil {
		return f.misused("open: %w", firewall.ErrNoRuleset)
	}
	if err := checkDoors(*f.rules, doors); err != nil {
		return f.misused("open: %w", err)
	}
	f.set(doors)
	return nil
}

// Shut implements firewall.Backend.
func (f *Fake) Shut(doors ...firewall.Door) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, d := range doors {
		lines = append(lines, fmt.Sprintf("shut %s %v", d.Service, d.Source))
	}
	if err := f.called(lines...); err != nil {
		return err
	}
	if f.rules == nil {
		return f.misused("shut: %w", firewall.ErrNoRuleset)
	}
	for _, d := range doors {
		if err := f.rules.Door(d, false); err != nil {
			return f.misused("shut: %w", err)
		}
	}
	for _, d := range doors {
		delete(f.doors, place{d.Service, d.Source})
	}
	return nil
}

// Doors implements firewall.Backend. The order is that of service and source.
func (f *Fake) Doors() ([]firewall.Door, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("doors"); err != nil {
		return nil, err
	}
	f.expire()
	now := f.now()
	var doors []firewall.Door
	for p, until := range f.doors {
		doors = append(doors, firewall.Door{Service: p.service, Source: p.source, TTL: until.Sub(now)})
	}
	slices.SortFunc(doors, func(a, b firewall.Door) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Source.Compare(b.Source))
	})
	return doors, nil
}

// Down implements firewall.Backend, but a second one without an Apply in between is misuse.
func (f *Fake) Down() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("down"); err != nil {
		return err
	}
	if f.downs++; f.downs > 1 {
		return f.misused("down: it is down already")
	}
	f.rules = nil
	clear(f.doors)
	return nil
}

// Close implements firewall.Backend. Doors go on until their time, for IsOpen to see.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "close")
	if f.closed {
		return f.misused("close: it is closed already")
	}
	f.closed = true
	return nil
}

// Reopen gives a Fake like this one after a restart of its process: what the kernel holds is there, the rest forgotten.
func (f *Fake) Reopen() *Fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := NewFake(f.now)
	for p, until := range f.doors {
		next.doors[p] = until
	}
	return next
}

func (f *Fake) called(lines ...string) error {
	f.calls = append(f.calls, lines...)
	if f.closed {
		return f.misused("%v: it is closed", lines)
	}
	if len(f.fails) == 0 {
		return nil
	}
	err := f.fails[0]
	f.fails = f.fails[1:]
	return err
}

func (f *Fake) misused(format string, args ...any) error {
	err := fmt.Errorf("%w: %w", ErrMisuse, fmt.Errorf(format, args...))
	f.misuse = append(f.misuse, err)
	return err
}

func (f *Fake) set(doors []firewall.Door) {
	now := f.now()
	for _, d := range doors {
		f.doors[place{d.Service, d.Source}] = now.Add(d.TTL)
	}
}

func (f *Fake) expire() {
	now := f.now()
	for p, until := range f.doors {
		if !until.After(now) {
			delete(f.doors, p)
		}
	}
}

// checkDoors refuses what Ruleset.Door refuses, and a door that is named twice in one call.
func checkDoors(r firewall.Ruleset, doors []firewall.Door) error {
	seen := map[place]bool{}
	for _, d := range doors {
		if err := r.Door(d, true); err != nil {
			return err
		}
		p := place{d.Service, d.Source}
		if seen[p] {
			return fmt.Errorf("door of %q for %v is named twice in one call", d.Service, d.Source)
		}
		seen[p] = true
	}
	return nil
}
