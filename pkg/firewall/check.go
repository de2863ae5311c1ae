package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// MaxTTL is the longest time that a door may be open.
const MaxTTL = 65535 * time.Second

// Errors of Ruleset.Door and of every backend's Open and Shut.
var (
	// ErrUnknownService says that the ruleset has no service of that name.
	ErrUnknownService = errors.New("unknown service")
	// ErrSource says that a door's source is not one that the service's doors can have.
	ErrSource = errors.New("bad source")
	// ErrTTL says that a door's time is not above zero and at most MaxTTL.
	ErrTTL = errors.New("bad time to live")
	// ErrNoRuleset says that a door was to be opened or shut before the first Apply.
	ErrNoRuleset = errors.New("no ruleset applied yet")
)

// Check returns everything that is wrong with the ruleset, joined, or nil. A backend's Apply calls it first.
func (r Ruleset) Check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if bits.OnesCount32(r.Mark) != 1 {
		fail("mark %#x: want exactly one bit, as 0x100000", r.Mark)
	}
	for _, p := range r.AlwaysAllow {
		if !canonical(p) || p.Bits() == 0 { // ipset has no /0, and nothing would be hidden
			fail("always_allow %v: want a network without host bits, and not everybody, as 192.168.1.0/24", p)
		}
	}
	for _, p := range r.LAN {
		if !canonical(p) {
			fail("lan %v: want a network without host bits, as 192.168.1.0/24", p)
		}
	}
	names := map[string]bool{}
	for _, s := range r.Services {
		if names[s.Name] {
			fail("service %q: the name is used twice", s.Name)
		}
		names[s.Name] = true
		for _, err := range append(s.check(), r.outside(s)...) {
			fail("service %q: %w", s.Name, err)
		}
	}
	errs = append(errs, r.overlaps()...)
	return errors.Join(append(errs, holeClashes(r.Services)...)...)
}

// outside returns an error for each target that is in no network behind the router.
func (r Ruleset) outside(s Service) []error {
	if !r.Hairpins(s) {
		return nil
	}
	var errs []error
	for _, to := range s.Forward.Targets() {
		if !slices.ContainsFunc(r.LAN, func(p netip.Prefix) bool { return p.Contains(to.Addr()) }) {
			errs = append(errs, fmt.Errorf("forward to %v: that is in none of the networks behind the router, %v", to, r.LAN))
		}
	}
	return errs
}

// claim is a range of ports and whose it is. The order is that of the ruleset.
type claim struct {
	Ports
	owner string
	order int
}

// overlaps returns an error for each claim of ports that begins where another one has not ended.
func (r Ruleset) overlaps() []error {
	var claims []claim
	if r.KnockPort != 0 {
		claims = append(claims, claim{Ports{UDP, r.KnockPort, r.KnockPort}, "the knock port", 0})
	}
	for _, s := range r.Services {
		for _, p := range s.Ports() {
			claims = append(claims, claim{p, fmt.Sprintf("service %q", s.Name), len(claims)})
		}
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First), cmp.Compare(a.order, b.order))
	})
	var errs []error
	for i, reach := 1, 0; i < len(claims); i++ { // reach is the one before i that ends last
		if claims[i].Overlaps(claims[reach].Ports) {
			errs = append(errs, clash(claims[i], claims[reach]))
		}
		if claims[i].Proto != claims[reach].Proto || claims[i].Last > claims[reach].Last {
			reach = i
		}
	}
	return errs
}

// clash blames the claim that comes later in the ruleset.
func clash(a, b claim) error {
	if a.order < b.order {
		a, b = b, a
	}
	return fmt.Errorf("%s: %v overlaps %v of %s", a.owner, a.Ports, b.Ports, b.owner)
}

func (s Service) check() []error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !validName(s.Name) {
		fail("a name is a-z, 0-9 and -, begins with a letter or digit, and has at most 32 characters")
	}
	if len(s.Open) == 0 && s.Forward == nil {
		fail("opens no port")
	}
	for _, p := range s.Open {
		if err := p.check(); err != nil {
			errs = append(errs, err)
		}
	}
	if s.Guard > GuardOff {
		fail("unknown guard %d", s.Guard)
	}
	if s.IPv6Prefix < 0 || s.IPv6Prefix > 128 {
		fail("IPv6 prefix length %d: want 1 to 128", s.IPv6Prefix)
	}
	if s.Forward != nil {
		errs = append(errs, s.Forward.check()...)
	}
	return errs
}

func (f Forward) check() []error {
	var errs []error
	if err := f.Port.check(); err != nil {
		errs = append(errs, err)
	}
	if f.To4 == (netip.AddrPort{}) && f.To6 == (netip.AddrPort{}) && !f.Hole.IsValid() {
		errs = append(errs, errors.New("forward without a target"))
	}
	if f.Hole.IsValid() {
		if err := f.Hole.check(); err != nil {
			errs = append(errs, err)
		}
		if f.To6 != (netip.AddrPort{}) {
			errs = append(errs, errTwoWays)
		}
	}
	if f.To4 != (netip.AddrPort{}) && (!f.To4.Addr().Is4() || f.To4.Port() == 0) {
		errs = append(errs, fmt.Errorf("forward to %v: want an IPv4 address and a port", f.To4))
	}
	if f.To6 != (netip.AddrPort{}) && (!f.To6.Addr().Is6() || f.To6.Addr().Is4In6() || f.To6.Addr().Zone() != "" || f.To6.Port() == 0) {
		errs = append(errs, fmt.Errorf("forward to %v: want an IPv6 address without zone and a port", f.To6))
	}
	for _, to := range f.Targets() {
		switch n := f.Port.Count(); {
		case n < 1: // said already
		case int(to.Port())+n-1 > 65535:
			errs = append(errs, fmt.Errorf("forward of %d ports to %v: they would end behind port 65535", n, to))
		case f.Shifts(to) && n > MaxShifted:
			errs = append(errs, fmt.Errorf("forward of %d ports to other ports, from %d: want the same ports, or at most %d", n, to.Port(), MaxShifted))
		}
	}
	return errs
}

// Door returns nil if the ruleset can have that door. The TTL is checked only if timed, since shutting needs none.
func (r Ruleset) Door(d Door, timed bool) error {
	s, ok := r.Service(d.Service)
	return s.door(d, ok, timed)
}

// Doors returns nil if there can be each of the doors, as Ruleset.Door says for one.
func (x Index) Doors(doors []Door, timed bool) error {
	for _, d := range doors {
		s, ok := x[d.Service]
		if err := s.door(d, ok, timed); err != nil {
			return err
		}
	}
	return nil
}

func (s Service) door(d Door, known, timed bool) error {
	if !known {
		return fmt.Errorf("door of %q for %v: %w", d.Service, d.Source, ErrUnknownService)
	}
	want := 32
	if d.Source.Addr().Is6() {
		want = s.Bits6()
	}
	if !canonical(d.Source) || d.Source.Bits() != want {
		return fmt.Errorf("door of %q for %v: %w: want a masked /%d", d.Service, d.Source, ErrSource, want)
	}
	if timed && (d.TTL <= 0 || d.TTL > MaxTTL) {
		return fmt.Errorf("door of %q for %v: %w: %v is not above 0 and at most %v", d.Service, d.Source, ErrTTL, d.TTL, MaxTTL)
	}
	return nil
}

// canonical reports whether p is valid, has no host bits, and is not IPv4 dressed up as IPv6.
func canonical(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6()
}

// validName is PROTOCOL.md's rule for names: what a packet's service id can be made of.
func validName(name string) bool {
	if len(name) < 1 || len(name) > 32 || name[0] == '-' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
