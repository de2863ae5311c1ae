// Package policy decides what a knock may open.
//
// It is pure: no I/O, no clock, no state. A request goes in with everything that the decision needs, the time
// included, and a verdict comes out; the zero verdict denies. The rules never change once they are made, so any number
// of goroutines may ask them at once.
//
// A device's rights are a list of names: a service, or group:NAME, which grants the services of that group, from the
// places and in the hours that the group says. One granting name suffices.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"spad/pkg/wire"
)

// Limits of the values in a Service.
const (
	MinTTL        = time.Second         // the shortest time to live; every time to live is whole seconds
	MaxTTL        = 65535 * time.Second // the longest: the packet has 16 bits for it
	MinIPv6Prefix = 48                  // the widest IPv6 source that a door may have, in bits
)

// GroupPrefix stands before the name of a group in a device's list of rights.
const GroupPrefix = "group:"

// Service is what policy has to know about something that can be opened.
type Service struct {
	Name       string
	TTL        time.Duration // for a request that names none; whole seconds
	MaxTTL     time.Duration // a longer request is cut to it; at least TTL
	IPv6Prefix int           // bits of an IPv6 source that are opened for, 48 to 128; 0 means 128
	IPv4, IPv6 bool          // the address families it can open for; at least one
	Roam       bool          // an opening follows its device to a new address; policy only carries it
	Port       uint16        // the one public port of the router, or 0; policy only carries it
	Pinhole    bool          // over IPv6 the port is not the router's, but that of a host behind it
}

// PortFor returns the port of the router that an address connects to, or 0 if there is not exactly one.
func (s Service) PortFor(a netip.Addr) uint16 {
	if s.Pinhole && a.Is6() {
		return 0
	}
	return s.Port
}

// prefix returns what is opened for an address: the address itself for IPv4, its masked prefix for IPv6.
func (s Service) prefix(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = s.IPv6Prefix
	}
	p, _ := a.Prefix(bits) // fails for a wrong length only, and NewRules has checked it
	return p
}

// opensFor reports whether the service has a door for the family of an unmapped address.
func (s Service) opensFor(a netip.Addr) bool {
	return a.Is4() && s.IPv4 || a.Is6() && s.IPv6
}

func (s Service) check() error {
	switch {
	case !wire.ValidName(s.Name):
		return fmt.Errorf("service %q: a name is a-z, 0-9 and -, starts with a letter or digit, at most 32 long", s.Name)
	case s.TTL < MinTTL || s.MaxTTL > MaxTTL || s.MaxTTL < s.TTL:
		return fmt.Errorf("service %q: ttl %v, max_ttl %v: want %v <= ttl <= max_ttl <= %v", s.Name, s.TTL, s.MaxTTL, MinTTL, MaxTTL)
	case s.TTL%time.Second != 0 || s.MaxTTL%time.Second != 0:
		return fmt.Errorf("service %q: ttl %v, max_ttl %v: want whole seconds", s.Name, s.TTL, s.MaxTTL)
	case s.IPv6Prefix < MinIPv6Prefix || s.IPv6Prefix > 128:
		return fmt.Errorf("service %q: IPv6 prefix %d: want %d to 128", s.Name, s.IPv6Prefix, MinIPv6Prefix)
	case !s.IPv4 && !s.IPv6:
		return fmt.Errorf("service %q: opens for neither IPv4 nor IPv6", s.Name)
	}
	return nil
}

// Group grants services to the devices that have it among their rights.
type Group struct {
	Name     string
	Services []string
	From     []netip.Prefix // the sources it grants for; none: all
	Hours    *Hours         // the time of day it grants in; nil: always
}

// contains reports whether all of a source is within the places of the group: a prefix that only overlaps one is not,
// since opening it would let in neighbours that the group leaves out.
func (g Group) contains(source netip.Prefix) bool {
	if len(g.From) == 0 {
		return true
	}
	return slices.ContainsFunc(g.From, func(p netip.Prefix) bool {
		return p.Bits() <= source.Bits() && p.Contains(source.Addr())
	})
}

func (g Group) check(r *Rules) error {
	if !wire.ValidName(g.Name) {
		return fmt.Errorf("group %q: a name is a-z, 0-9 and -, starts with a letter or digit, at most 32 long", g.Name)
	}
	for _, name := range g.Services {
		if _, ok := r.Service(name); !ok {
			return fmt.Errorf("group %q: unknown service %q", g.Name, name)
		}
	}
	for _, p := range g.From {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("group %q: from %v: want a network without host bits", g.Name, p)
		}
	}
	if g.Hours != nil {
		if err := g.Hours.check(); err != nil {
			return fmt.Errorf("group %q: %w", g.Name, err)
		}
	}
	return nil
}

// Rules are the services and groups of one configuration. They are immutable. The zero value knows no service and
// denies everything.
type Rules struct {
	byID    map[wire.ServiceID]Service
	groups  map[string]Group
	members map[member]bool
}

// member is a service that a group has.
type member struct{ group, service string }

// NewRules checks services and groups and copies them. Two services of one name or of equal id are an error, as are
// values outside their limits and groups of unknown services.
func NewRules(services []Service, groups []Group) (*Rules, error) {
	r := &Rules{
		byID: make(map[wire.ServiceID]Service, len(services)), groups: make(map[string]Group, len(groups)), members: map[member]bool{},
	}
	for _, s := range services {
		if s.IPv6Prefix == 0 {
			s.IPv6Prefix = 128
		}
		if err := s.check(); err != nil {
			return nil, err
		}
		id := wire.ServiceIDOf(s.Name)
		if other, taken := r.byID[id]; taken {
			return nil, fmt.Errorf("service %q: has the same id as service %q; rename one of them", s.Name, other.Name)
		}
		r.byID[id] = s
	}
	for _, g := range groups {
		if _, taken := r.groups[g.Name]; taken {
			return nil, fmt.Errorf("group %q: the name is used twice", g.Name)
		}
		if err := g.check(r); err != nil {
			return nil, err
		}
		r.groups[g.Name] = g.clone()
		for _, service := range g.Services {
			r.members[member{g.Name, service}] = true
		}
	}
	return r, nil
}

func (g Group) clone() Group {
	g.Services, g.From = slices.Clone(g.Services), slices.Clone(g.From)
	if g.Hours != nil {
		h := *g.Hours
		g.Hours = &h
	}
	return g
}

// Service returns the service of that name.
func (r *Rules) Service(name string) (Service, bool) {
	s, ok := r.byID[wire.ServiceIDOf(name)]
	return s, ok && s.Name == name
}

// ServiceByID returns the service that a packet means.
func (r *Rules) ServiceByID(id wire.ServiceID) (Service, bool) {
	s, ok := r.byID[id]
	return s, ok
}

// Services returns all services, by name.
func (r *Rules) Services() []Service {
	all := make([]Service, 0, len(r.byID))
	for _, s := range r.byID {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Groups returns all groups, by name. The caller may change what it gets.
func (r *Rules) Groups() []Group {
	all := make([]Group, 0, len(r.groups))
	for _, g := range r.groups {
		all = append(all, g.clone())
	}
	slices.SortFunc(all, func(a, b Group) int { return strings.Compare(a.Name, b.Name) })
	return all
}
