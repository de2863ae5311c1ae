// Package firewall says what a packet filter must be able to do for spad.
//
// A service is guarded: its public ports answer nobody, except a source that has a door. A door is one service for one
// source for a time, and the kernel shuts it at that time by itself, whatever becomes of the process that opened it.
//
//	                        guard                     dnat
//	packet --> mark it? ----------------> source has a door? ----> router itself, or the LAN host
//	                          |  no door
//	                          +--> drop, reject, or off: somebody else decides
//
// The backends live in the folders beside this file; firewalltest holds the network lab, a strict fake, and the
// conformance suite that every backend passes with real traffic on a real kernel.
package firewall

import (
	"context"
	"net/netip"
	"time"
)

// Backend is a packet filter that holds spad's rules and doors.
//
// All methods are safe for concurrent use. Each of them either takes effect as a whole or returns an error and leaves
// nothing half open.
type Backend interface {
	// Apply replaces everything of ours by the ruleset and the doors, in one step: no packet meets a missing guard, and
	// a door that is in both the old and the new state is never shut in between. Foreign rules are not touched.
	Apply(Ruleset, []Door) error

	// Open opens doors, or renews in place those that are open: from now on each has its TTL left, more or less than
	// before. It names no door twice. It is an error before Apply, for a service that the ruleset lacks, and for a door that Check refuses.
	Open(...Door) error

	// Shut shuts doors at once; a door that is not open is no error. TTL is ignored. With Service.Cut the established
	// connections end too.
	Shut(...Door) error

	// Doors lists what the kernel holds, with the time left, also of doors that another process opened.
	Doors() ([]Door, error)

	// Down removes everything of ours, the guard included. It works without Apply, and when there is nothing.
	Down() error

	// Close gives the connection to the kernel back. Guard and doors stay as they are, until their time.
	Close() error
}

// Watcher is a Backend that notices when another program lays hands on what is ours: flushes the ruleset, reloads a
// firewall, takes one door out or puts one in.
type Watcher interface {
	// Watch calls damaged when something of ours is not as it was left, until ctx is done: within a second where the kernel
	// tells, within five where it must be asked. It may call it for what turns out to be whole. It does not mend: that is
	// for who knows the ruleset and the doors, by Apply, and may be done while Watch runs, also in damaged itself.
	Watch(ctx context.Context, damaged func()) error
}

// Guard says what happens to a packet for a service's public port from a source without a door.
type Guard uint8

// The guards. The zero value hides the port.
const (
	GuardDrop   Guard = iota // no answer, as if nothing were there
	GuardReject              // the answer of a closed port
	GuardOff                 // not our business: other rules decide
)

// String returns the guard's name in a configuration: "drop", "reject" or "off".
func (g Guard) String() string {
	switch g {
	case GuardDrop:
		return "drop"
	case GuardReject:
		return "reject"
	case GuardOff:
		return "off"
	}
	return "unknown"
}

// Forward leads to a host behind the router: by destination NAT from ports of the router, or over IPv6 at the host's own
// address and the same ports, where the router is in between and lets nobody through who has no door.
type Forward struct {
	Port Ports          // on the router, if there is a target; and on the host with the pinhole
	To4  netip.AddrPort // where the first port goes over IPv4, and the others behind it; the zero value: nowhere
	To6  netip.AddrPort // likewise over IPv6
	Hole Hole           // instead of To6; at least one of the three is set
}

// MaxShifted is how many ports a forward can have whose target has others: each is an entry in a table of nf_tables.
const MaxShifted = 1024

// At returns the ports of a target: as many as there are on the router.
func (f Forward) At(to netip.AddrPort) Ports {
	return Ports{f.Port.Proto, to.Port(), to.Port() + f.Port.Last - f.Port.First}
}

// Shifts reports whether the target's ports are others than the router's.
func (f Forward) Shifts(to netip.AddrPort) bool { return to.Port() != f.Port.First }

// Targets returns the targets that are set, IPv4 first.
func (f Forward) Targets() []netip.AddrPort {
	var all []netip.AddrPort
	for _, to := range []netip.AddrPort{f.To4, f.To6} {
		if to.IsValid() {
			all = append(all, to)
		}
	}
	return all
}

// Service is what doors are opened for. Open and Forward may both be set.
type Service struct {
	Name       string   // [a-z0-9][a-z0-9-]{0,31}
	Open       []Ports  // ports of the router itself
	Forward    *Forward // or of a host behind it
	Guard      Guard
	Cut        bool // established connections end with the door; otherwise they live on
	IPv6Prefix int  // how many bits of an IPv6 source a door covers: 1 to 128; 0 means 128
}

// Prefix returns the door's source for an address: the address itself for IPv4 (unmapped first), its prefix of
// IPv6Prefix bits for IPv6. The zone is dropped.
func (s Service) Prefix(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return netip.PrefixFrom(a, 32)
	}
	p, _ := a.Prefix(s.Bits6()) // only an invalid address or length fails, and its zero value is refused by Check
	return p
}

// Bits6 returns the length of an IPv6 source, 128 if the service leaves it out.
func (s Service) Bits6() int {
	if s.IPv6Prefix == 0 {
		return 128
	}
	return s.IPv6Prefix
}

// Ports returns the ports of the router that belong to the service: those it opens and those it forwards. A mere pinhole
// has none.
func (s Service) Ports() []Ports {
	all := append([]Ports(nil), s.Open...)
	if s.Forward != nil && len(s.Forward.Targets()) > 0 {
		all = append(all, s.Forward.Port)
	}
	return all
}

// Hole returns the service's pinhole, or the zero value.
func (s Service) Hole() Hole {
	if s.Forward == nil {
		return Hole{}
	}
	return s.Forward.Hole
}

// Door is one service for one source.
type Door struct {
	Service string
	Source  netip.Prefix  // masked; IPv4 is always a /32, IPv6 has the service's length
	TTL     time.Duration // from now on; kernels count in milliseconds, and a door never lasts longer than this
}

// Ruleset is the static part: it changes only with the configuration.
type Ruleset struct {
	Services  []Service
	KnockPort uint16 // UDP; its packets get the mark, and are guarded by nobody; 0: none
	Mark      uint32 // exactly one bit, set on permitted packets beside whatever else they carry

	// AlwaysAllow sources have every door open, always.
	AlwaysAllow []netip.Prefix

	// LAN is the networks behind the router; none: not known. Targets of forwards must be in them, and who comes from there
	// through a forward gets the router's address, so that answers come back by the router and are translated too, where
	// the target could send them on a way of its own.
	LAN []netip.Prefix
}

// Hairpins reports whether a service has a target that sources in the LAN may come to through the router.
func (r Ruleset) Hairpins(s Service) bool {
	return len(r.LAN) > 0 && s.Forward != nil && len(s.Forward.Targets()) > 0
}

// Service returns the service of that name.
func (r Ruleset) Service(name string) (Service, bool) {
	for _, s := range r.Services {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}

// Index is the services of a ruleset by name, for where many are looked up: Ruleset.Service goes through all of them.
type Index map[string]Service

// Index returns the services by name.
func (r Ruleset) Index() Index {
	x := make(Index, len(r.Services))
	for _, s := range r.Services {
		x[s.Name] = s
	}
	return x
}
