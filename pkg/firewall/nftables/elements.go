package nftables

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// target is where a map sends packets for some ports.
type target struct {
	ports firewall.Ports
	chain string
	jump  bool // and back, if the chain says nothing
}

func appendTargets(all []target, chain string, ports ...firewall.Ports) []target {
	for _, p := range ports {
		all = append(all, target{p, chain, false})
	}
	return all
}

// portElements returns one protocol's single ports, and the intervals of its ranges; none of them overlap.
func portElements(p firewall.Proto, targets []target) (single, ranges []element) {
	for _, t := range targets {
		first := element{key: binary.BigEndian.AppendUint16(nil, t.ports.First), chain: t.chain, jump: t.jump}
		switch {
		case t.ports.Proto != p:
		case t.ports.First == t.ports.Last:
			single = append(single, first)
		default:
			ranges = append(ranges, first)
			if t.ports.Last < 65535 { // otherwise the interval has no end
				ranges = append(ranges, element{key: binary.BigEndian.AppendUint16(nil, t.ports.Last+1), end: true})
			}
		}
	}
	return single, ascending(ranges)
}

// shiftElements returns the port of the target for each port of the router.
func shiftElements(ports firewall.Ports, to uint16) []element {
	all := make([]element, ports.Count())
	for i := range all {
		all[i].key = binary.BigEndian.AppendUint16(nil, ports.First+uint16(i))
		all[i].value = binary.BigEndian.AppendUint16(nil, to+uint16(i))
	}
	return all
}

func alwaysSet(v6 bool) string {
	if v6 {
		return "always6"
	}
	return "always4"
}

func lanSet(v6 bool) string {
	if v6 {
		return "lan6"
	}
	return "lan4"
}

// networks makes a set of networks for each family that has some.
func (l layout) networks(name func(v6 bool) string, networks []netip.Prefix, comment string) {
	for _, v6 := range families {
		elements := intervals(networks, v6)
		if len(elements) == 0 {
			continue
		}
		key := nftables.TypeIPAddr
		if v6 {
			key = nftables.TypeIP6Addr
		}
		l.addSet(set{name: l.of(name(v6)), key: key, flags: unix.NFT_SET_INTERVAL, comment: comment})
		l.elements(unix.NFT_MSG_NEWSETELEM, l.of(name(v6)), elements)
	}
}

// intervals returns the intervals of one family's networks. Networks are nested or apart; nested ones are left
// out, since intervals must not overlap.
func intervals(networks []netip.Prefix, v6 bool) []element {
	var all []element
	for i, p := range networks {
		if p.Addr().Is6() != v6 || nested(networks, i) {
			continue
		}
		all = append(all, element{key: p.Addr().AsSlice()})
		if next := last(p).Next(); next.IsValid() {
			all = append(all, element{key: next.AsSlice(), end: true})
		}
	}
	return ascending(all)
}

// nested reports whether network i is within another one; of equal ones the first counts.
func nested(networks []netip.Prefix, i int) bool {
	p := networks[i]
	return slices.ContainsFunc(networks[:i], func(q netip.Prefix) bool {
		return q.Bits() <= p.Bits() && q.Contains(p.Addr())
	}) || slices.ContainsFunc(networks[i+1:], func(q netip.Prefix) bool {
		return q.Bits() < p.Bits() && q.Contains(p.Addr())
	})
}

// last returns the highest address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// ascending sorts by key, an end before a beginning at the same place.
func ascending(all []element) []element {
	slices.SortStableFunc(all, func(a, b element) int {
		if c := bytes.Compare(a.key, b.key); c != 0 || a.end == b.end {
			return c
		} else if a.end {
			return -1
		}
		return 1
	})
	return all
}

// doorElements returns the doors as elements, by the set they belong to. A door lasts whole milliseconds, cut off; the
// shortest is one, since none would mean for ever.
func doorElements(in inForce, doors []firewall.Door) map[string][]element {
	all := map[string][]element{}
	for _, d := range doors {
		name := in.of(doorSet(in.services[d.Service], d.Source.Addr().Is6()))
		all[name] = append(all[name], element{key: d.Source.Addr().AsSlice(), timeout: uint64(max(1, d.TTL.Milliseconds()))})
	}
	return all
}

// readDoor is the reverse for an element that the kernel listed.
func readDoor(service string, bits int, e element) (firewall.Door, bool) {
	a, ok := netip.AddrFromSlice(e.key)
	if !ok || e.timeout == 0 {
		return firewall.Door{}, false
	}
	return firewall.Door{
		Service: service, Source: netip.PrefixFrom(a, bits), TTL: time.Duration(e.timeout) * time.Millisecond,
	}, true
}

// inForce is what of the applied ruleset doors have to do with, and its generation.
type inForce struct {
	services firewall.Index
	generation
}

// writer appends what is to be done with some doors.
type writer func(*batch, inForce, []firewall.Door)

func addDoors(b *batch, in inForce, doors []firewall.Door) {
	b.each(unix.NFT_MSG_NEWSETELEM, doorElements(in, doors))
}

// renewDoors adds the elements in case they are not there, deletes them, and adds them, in one transaction, in which no
// packet finds them missing: kernels before 6.12 do not renew the timeout of an element that is added again.
func renewDoors(b *batch, in inForce, doors []firewall.Door) {
	shutDoors(b, in, doors)
	addDoors(b, in, doors)
}

// shutDoors adds the elements in case they are not there, since one that is missing would make the deletion fail.
func shutDoors(b *batch, in inForce, doors []firewall.Door) {
	elements := doorElements(in, doors)
	b.each(unix.NFT_MSG_NEWSETELEM, elements)
	for _, list := range elements {
		for i := range list {
			list[i].timeout = 0
		}
	}
	b.each(unix.NFT_MSG_DELSETELEM, elements)
}

func (b *batch) each(kind uint16, sets map[string][]element) {
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		b.elements(kind, name, sets[name])
	}
}

// split returns the batches that do something with all the doors, the first of them beginning with what is there, none
// longer than room unless it can't be helped. It goes service by service, so that one message has many elements: for
// each message the kernel looks through the list of all sets for its name.
func split(first *batch, room int, in inForce, doors []firewall.Door, write writer) []*batch {
	all := []*batch{first}
	doors = slices.SortedFunc(slices.Values(doors), func(a, b firewall.Door) int { return cmp.Compare(a.Service, b.Service) })
	for some := range slices.Chunk(doors, doorsPerStep) {
		step := &batch{}
		write(step, in, some)
		if now := all[len(all)-1]; len(now.messages) == 0 || now.bytes+step.bytes <= room {
			now.join(step)
		} else {
			all = append(all, step)
		}
	}
	return all
}

const doorsPerStep = 200

func (b *batch) join(more *batch) {
	b.messages = append(b.messages, more.messages...)
	b.bytes += more.bytes
	b.err = cmp.Or(b.err, more.err)
}
