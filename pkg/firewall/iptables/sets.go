package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"spad/pkg/firewall"
)

// set is a set that there is, or should be.
type set struct {
	kind    setKind
	entries map[netip.Prefix]uint32 // seconds left; 0: for ever
}

// setKind is what can't be changed of a set.
type setKind struct {
	nets  bool // hash:net, not hash:ip
	v6    bool
	timed bool // entries have a time; those that say none get a second
}

func (k setKind) String() string {
	name, family, timed := "hash:ip", "inet", "without"
	if k.nets {
		name = "hash:net"
	}
	if k.v6 {
		family = "inet6"
	}
	if k.timed {
		timed = "with"
	}
	return fmt.Sprintf("%s family %s %s timeouts", name, family, timed)
}

// maxElements is how many entries a set takes; ipset's default is 65536. A set grows as it is filled, so this costs nothing.
const maxElements = 1 << 20

// Names of sets and chains are short: 31 and 28 bytes. A longer service name is cut and ends in a point, which no name
// has, and a part of its hash.
const (
	longestShort = 16
	hashDigits   = 6
)

func short(name string) string {
	if len(name) <= longestShort {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:longestShort-hashDigits-1] + "." + hex.EncodeToString(sum[:])[:hashDigits]
}

// checkNames finds services whose short names are the same.
func checkNames(r firewall.Ruleset) error {
	owner := map[string]string{}
	for _, s := range r.Services {
		if other, taken := owner[short(s.Name)]; taken {
			return fmt.Errorf("services %q and %q: the names are too much alike for iptables; rename one", other, s.Name)
		}
		owner[short(s.Name)] = s.Name
	}
	return nil
}

func familyPrefix(v6 bool) string {
	if v6 {
		return "spad6"
	}
	return "spad4"
}

// doorSet names the set of a service's doors: spad4-ssh, spad6-ssh, and spad6.64-ssh for doors of IPv6 prefixes.
func doorSet(s firewall.Service, v6 bool) string {
	if v6 && s.Bits6() < 128 {
		return fmt.Sprintf("spad6.%d-%s", s.Bits6(), short(s.Name))
	}
	return familyPrefix(v6) + "-" + short(s.Name)
}

// alwaysSet names the set of always_allow; no service's set is called so.
func alwaysSet(v6 bool) string { return familyPrefix(v6) + ".always" }

// ourSet reports whether a name is one that doorSet, alwaysSet or a probe gives, and of which family.
func ourSet(name string) (v6, ok bool) {
	for _, v6 := range []bool{false, true} {
		rest, ok := strings.CutPrefix(name, familyPrefix(v6))
		if !ok {
			continue
		}
		if rest == ".always" || rest == ".probe" {
			return v6, true
		}
		bits, _, ok := strings.Cut(rest, "-")
		if bits == "" {
			return v6, ok
		}
		n, err := strconv.Atoi(strings.TrimPrefix(bits, "."))
		return v6, ok && bits[0] == '.' && err == nil && 0 < n && n < 128
	}
	return false, false
}

// wantedSets returns all that a ruleset and its doors need, by name.
func wantedSets(r firewall.Ruleset, doors []firewall.Door, families []family) map[string]set {
	want := map[string]set{}
	services := map[string]firewall.Service{}
	for _, f := range families {
		for _, s := range r.Services {
			services[s.Name] = s
			kind := setKind{nets: f.v6 && s.Bits6() < 128, v6: f.v6, timed: true}
			want[doorSet(s, f.v6)] = set{kind, map[netip.Prefix]uint32{}}
		}
		if always := alwaysOf(r, f.v6); len(always) > 0 {
			want[alwaysSet(f.v6)] = set{setKind{nets: true, v6: f.v6}, always}
		}
	}
	for _, d := range doors {
		want[doorSet(services[d.Service], d.Source.Addr().Is6())].entries[d.Source] = entryOf(d).seconds
	}
	return want
}

func alwaysOf(r firewall.Ruleset, v6 bool) map[netip.Prefix]uint32 {
	all := map[netip.Prefix]uint32{}
	for _, p := range r.AlwaysAllow {
		if p.Addr().Is6() == v6 {
			all[p] = 0
		}
	}
	return all
}

// prepareSets makes the sets that are missing, and takes out the entries that nobody wants any more. What it did it
// returns as a function that undoes it; entries come back with the time that is left by then.
func (b *Backend) prepareSets(want map[string]set) (have map[string]set, undo func() error, err error) {
	begun := time.Now()
	var made []string
	taken := map[string][]entry{}
	undo = func() error {
		var errs error
		for _, name := range made {
			errs = errors.Join(errs, b.sets.destroy(name))
		}
		for name, entries := range taken {
			passed := uint32(time.Since(begun) / time.Second)
			for _, e := range entries {
				if e.seconds > 0 && e.seconds <= passed {
					continue
				}
				e.seconds -= min(e.seconds, passed)
				errs = errors.Join(errs, b.sets.put(name, e))
			}
		}
		return errs
	}
	have, err = b.ourSets()
	if err != nil {
		return nil, undo, err
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		there, ok := have[name]
		if ok && there.kind != want[name].kind {
			return nil, undo, fmt.Errorf("the set %s is %v, but must be %v: another program or version made it; remove it with: ipset destroy %s",
				name, there.kind, want[name].kind, name)
		}
		if !ok {
			if err := b.sets.create(name, want[name].kind); err != nil {
				return nil, undo, fmt.Errorf("making the set %s: %w", name, err)
			}
			made = append(made, name)
		}
	}
	for name, there := range have {
		for from, left := range there.entries {
			if _, stays := want[name].entries[from]; stays {
				continue
			}
			if err := b.sets.drop(name, entry{from: from}); err != nil {
				return nil, undo, err
			}
			taken[name] = append(taken[name], entry{from, left})
		}
	}
	return have, undo, nil
}

// fillSets adds what is wanted and not there, and renews what has not the time that it should have. The kernel tells
// whole seconds, so an entry that has the right one is left as it is. A door's time runs since begun.
func (b *Backend) fillSets(want, have map[string]set, doors []firewall.Door, begun time.Time) error {
	for _, d := range doors {
		d.TTL -= time.Since(begun)
		name, e := b.place(d), entryOf(d)
		if left, ok := have[name].entries[d.Source]; ok && left == e.seconds {
			continue
		}
		change := b.sets.put
		if d.TTL <= 0 {
			change = b.sets.drop
		}
		if err := change(name, e); err != nil {
			return err
		}
		delete(have[name].entries, d.Source)
	}
	for name, s := range want {
		for from := range s.entries {
			if _, ok := have[name].entries[from]; ok || s.kind.timed {
				continue
			}
			if err := b.sets.put(name, entry{from: from}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Backend) ourSets() (map[string]set, error) {
	names, err := b.sets.names()
	if err != nil {
		return nil, err
	}
	all := map[string]set{}
	for _, name := range names {
		if _, ok := ourSet(name); !ok {
			continue
		}
		if all[name], err = b.sets.read(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// destroySets removes our sets that are not wanted. One that rules refer to stays, with its entries until their time: they
// may be ours in the other variant of iptables, which takes over.
func (b *Backend) destroySets(want map[string]set) error {
	names, err := b.sets.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		_, ours := ourSet(name)
		if _, wanted := want[name]; !ours || wanted {
			continue
		}
		if err := b.sets.destroy(name); err != nil && !errors.Is(err, errInUse) {
			return fmt.Errorf("removing the set %s: %w", name, err)
		}
	}
	return nil
}
