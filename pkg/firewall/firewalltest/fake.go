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
// makes no sense: a second Down (see Lenient), a call after Close.
var ErrMisuse = errors.New("misuse of the firewall")

// Fake is a strict firewall.Backend in memory: what a real one might let pass, it refuses and remembers.
// It is safe for concurrent use.
type Fake struct {
	*memory
	now     func() time.Time
	applied bool // by this process
	fails   []error
	misuse  []error
	calls   []string
	downs   int // since the last Apply
	lenient bool
	closed  bool
}

// memory is what a kernel would hold: it outlives the process, and another one finds it.
type memory struct {
	mu    sync.Mutex // also of the Fakes that share it
	rules *firewall.Ruleset
	doors map[place]time.Time // until when
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
	return &Fake{now: now, memory: &memory{doors: map[place]time.Time{}}}
}

// Lenient makes the Fake accept what firewall.Backend allows though a program has no reason for it: a second Down. It
// returns the Fake; those that Reopen makes of it are lenient too.
func (f *Fake) Lenient() *Fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lenient = true
	return f
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
	if s, known := f.rules.Service(service); !known || !leads(s, from) {
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

// leads reports whether the service's doors lead anywhere: those of a mere forward may lack a target of the family.
func leads(s firewall.Service, from netip.Addr) bool {
	return len(s.Open) > 0 || s.Forward != nil && target(*s.Forward, from).IsValid() || s.Hole().IsValid() && from.Is6()
}

// target is where a forward takes packets from the address to; invalid if nowhere.
func target(f firewall.Forward, from netip.Addr) netip.AddrPort {
	if from.Is4() {
		return f.To4
	}
	return f.To6
}

// Ruleset returns what was applied last, also by another process; false before Apply and after Down.
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
	f.rules, f.applied, f.downs = &r, true, 0
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
	if !f.ready() {
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
	if !f.ready() {
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

// Down implements firewall.Backend, but a second one without an Apply in between is misuse, unless the Fake is Lenient.
func (f *Fake) Down() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("down"); err != nil {
		return err
	}
	if f.downs++; f.downs > 1 && !f.lenient {
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

// Reopen gives a Fake like this one to another process, as after a restart: what the kernel holds is there, and both
// see what the other does to it; the rest is forgotten.
func (f *Fake) Reopen() *Fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Fake{now: f.now, memory: f.memory, lenient: f.lenient}
}

// ready reports whether this process has applied a ruleset that is still there.
func (f *Fake) ready() bool { return f.applied && f.rules != nil }

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
