// Package iptables is the firewall backend for iptables with ipset, on routers whose firewall is not nftables.
//
// Rules are static and doors are not in them: a door is an entry with a timeout in an ipset, which the kernel ends by
// itself. Rules are in chains of our own whose names begin with "spad." and a generation, sets in names that begin with
// "spad4" and "spad6". A packet's way, the same for IPv4 and IPv6:
//
//	mangle PREROUTING   guard    iif lo, replies: on; by port ----> g-NAME
//	                      g-NAME:  for another host: on; source in the set or always: permit; established (unless cut):
//	                               permit; otherwise drop, or on for reject and off
//	                      permit:  set the mark bit, on
//	nat PREROUTING      nat      by port -------------------------> n-NAME: set the mark bit again
//	                                                                f-NAME: the same, and DNAT
//	mangle INPUT        input    a port that is forwarded, by what was not: drop
//	filter INPUT        reject   by port -------------------------> r-NAME: no door: the answer of a closed port
//	mangle POSTROUTING  cut      replies, by the port that the client used -----> c-NAME: no door any more: drop
//
// Packets for a pinhole, a host's own IPv6 address, take the same way by chains of their own, which stand before those of
// the router's ports: guard leads to h-NAME, nat to m-NAME, which only sets the mark, and cut to o-NAME. What reject is
// for the router, pass in filter FORWARD is for them, with p-NAME.
//
// Where networks behind the router are known, nat POSTROUTING leads to hairpin, and that to s-NAME by the port that the
// client used: who came from them by a door gets the router's address.
//
// The guard drops in mangle, where no ACCEPT of anybody else's rules in the filter table can undo it, and before a
// connection is remembered, so a UDP client that was too early leaves nothing behind. Rejecting is possible in filter
// only, so an ACCEPT there, or a DNAT, that others insert before ours while we run undoes it until the next Apply. The mark is set twice, since rules in mangle behind ours may set whole marks.
//
// It needs the capabilities CAP_NET_ADMIN and CAP_NET_RAW, the programs iptables and ip6tables with their -restore, and
// the kernel's ip_set, ip_set_hash_ip, ip_set_hash_net, xt_set, xt_conntrack, xt_addrtype, xt_comment and xt_mark.
package iptables

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"spad/pkg/firewall"
)

// Options of New. The zero value chooses by itself, in the network namespace of the process.
type Options struct {
	Variant string // "nft" or "legacy"; empty: what the program iptables is, or else the one that works
	NetNS   int    // a file descriptor of the network namespace to work in, open as long as the Backend; 0: the caller's own
}

// Backend is a firewall.Backend on iptables and ipset. The time of a door is counted in seconds, rounded down but for
// the last: so it ends up to a second early, or less than a second late if it had less than one.
type Backend struct {
	variant  string
	families []family
	sets     ipsets
	netns    int

	mu     sync.Mutex
	rules  *firewall.Ruleset // nil before Apply
	closed bool

	// What Watch holds against what is there.
	held  holdings
	image image
	heard atomic.Uint64 // how often nf_tables told of a change
}

var _ firewall.Backend = (*Backend)(nil)

// family is one of IPv4 and IPv6.
type family struct {
	v6    bool
	table tables
	noNAT error // why there is no table nat; IPv6 can do without, if nothing is forwarded
}

// New finds the programs and asks the kernel for what it has. An error says what is missing.
func New(o Options) (*Backend, error) {
	variant, families, err := choose(o)
	if err != nil {
		return nil, fmt.Errorf("looking for iptables: %w", err)
	}
	sets, err := dialSets(o.NetNS)
	if err != nil {
		return nil, fmt.Errorf("connecting to ipset: %w", explain(err))
	}
	return &Backend{variant: variant, families: families, sets: sets, netns: o.NetNS}, nil
}

// Variant returns which iptables is used: "nft" or "legacy".
func (b *Backend) Variant() string { return b.variant }

// Open implements firewall.Backend. Adding an entry that is there renews it in place. If one of several fails, all of
// them are shut: half of them open is what nobody asked for.
func (b *Backend) Open(doors ...firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready("opening doors", doors, true); err != nil {
		return err
	}
	for _, d := range doors {
		set, e := b.place(d), entryOf(d)
		if err := b.sets.put(set, e); err != nil {
			return errors.Join(fmt.Errorf("opening doors: %w", explain(err)), b.shut(doors))
		}
		b.held.put(set, e)
	}
	return nil
}

// Shut implements firewall.Backend.
func (b *Backend) Shut(doors ...firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.ready("shutting doors", doors, false); err != nil {
		return err
	}
	return b.shut(doors)
}

// shut goes on after an error, to shut as much as it can.
func (b *Backend) shut(doors []firewall.Door) error {
	var errs error
	for _, d := range doors {
		set, e := b.place(d), entryOf(d)
		if err := b.sets.drop(set, e); err != nil {
			errs = errors.Join(errs, fmt.Errorf("shutting the door of %q for %v: %w", d.Service, d.Source, explain(err)))
			continue
		}
		delete(b.held[set], e.from)
	}
	return errs
}

func (b *Backend) ready(doing string, doors []firewall.Door, timed bool) error {
	switch {
	case b.closed:
		return fmt.Errorf("%s: the firewall backend is closed", doing)
	case b.rules == nil:
		return fmt.Errorf("%s: %w", doing, firewall.ErrNoRuleset)
	}
	if err := b.check(*b.rules, doors, timed); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

func (b *Backend) check(r firewall.Ruleset, doors []firewall.Door, timed bool) error {
	for _, d := range doors {
		if err := r.Door(d, timed); err != nil {
			return err
		}
		if !slices.ContainsFunc(b.families, func(f family) bool { return f.v6 == d.Source.Addr().Is6() }) {
			return fmt.Errorf("door of %q for %v: this kernel has no IPv6", d.Service, d.Source)
		}
	}
	return nil
}

// place returns the set that holds a door, of a service that the ruleset has.
func (b *Backend) place(d firewall.Door) string {
	s, _ := b.rules.Service(d.Service)
	return doorSet(s, d.Source.Addr().Is6())
}

// Doors implements firewall.Backend. Whose a set is, the chain "names" says.
func (b *Backend) Doors() ([]firewall.Door, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("listing doors: the firewall backend is closed")
	}
	var doors []firewall.Door
	for _, f := range b.families {
		owners, err := f.owners()
		if err != nil {
			return nil, fmt.Errorf("listing doors: %w", explain(err))
		}
		for set, service := range owners {
			in, err := b.sets.read(set)
			if err != nil {
				return nil, fmt.Errorf("listing doors: %w", explain(err))
			}
			for from, left := range in.entries {
				doors = append(doors, firewall.Door{Service: service, Source: from, TTL: time.Duration(left) * time.Second})
			}
		}
	}
	slices.SortFunc(doors, func(a, b firewall.Door) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Source.Compare(b.Source))
	})
	return doors, nil
}

// Down implements firewall.Backend.
func (b *Backend) Down() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("taking spad out of iptables: the firewall backend is closed")
	}
	for _, f := range b.families {
		old, err := f.survey()
		if err == nil {
			err = f.remove(old)
		}
		if err != nil {
			return fmt.Errorf("taking spad out of %s: %w", f.table, explain(err))
		}
	}
	b.rules = nil
	if err := b.destroySets(nil); err != nil {
		return fmt.Errorf("taking spad out of ipset: %w", explain(err))
	}
	return nil
}

// Close implements firewall.Backend. It may be called more than once.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.sets.close()
	}
	b.closed = true
	return nil
}

// entryOf returns a door as an entry of a set. None may have a time of nothing, which would be for ever.
func entryOf(d firewall.Door) entry {
	return entry{d.Source, uint32(max(1, d.TTL/time.Second))}
}

// entry is an address or network in a set, and how many seconds it stays there; 0: for ever.
type entry struct {
	from    netip.Prefix
	seconds uint32
}
