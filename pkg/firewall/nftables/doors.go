package nftables

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// Doors implements firewall.Backend.
func (b *Backend) Doors() ([]firewall.Door, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var doors []firewall.Door
	err := b.do("listing doors", func(k kernel) (err error) {
		doors, err = read(k)
		return err
	})
	slices.SortFunc(doors, func(a, b firewall.Door) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Source.Compare(b.Source))
	})
	return doors, err
}

// read lists the doors in one state of the ruleset: a list that others changed meanwhile may lack some.
func read(k kernel) ([]firewall.Door, error) {
	before, err := k.generation()
	for err == nil {
		var doors []firewall.Door
		var after uint32
		if doors, err = readSets(k); err != nil {
			break
		}
		if after, err = k.generation(); err == nil && after == before {
			return doors, nil
		}
		before = after
	}
	return nil, err
}

// readSets lists the doors of the newest generation. There is another one only if an Apply came no further than half.
func readSets(k kernel) ([]firewall.Door, error) {
	sets, err := k.sets()
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var doors []firewall.Door
	for _, set := range sets {
		_, newest := parseGeneration(sets[0])
		name, generation := parseGeneration(set)
		service, bits, ok := parseDoorSet(name)
		if !ok || generation != newest {
			continue
		}
		elements, err := readSet(k, set)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if d, ok := readDoor(service, bits, e); ok {
				doors = append(doors, d)
			}
		}
	}
	return doors, nil
}

// readSet lists a set twice or more, until two lists are the same. The kernel lists a hash table by position, so while
// it makes the table larger, for some milliseconds after a thousand new doors, one list has some twice and others not
// at all. If lists go on to differ because doors expire, it takes all that was ever listed.
func readSet(k kernel, set string) (map[string]element, error) {
	all := map[string]element{}
	var before map[string]element
	for range 10 {
		list, err := k.elements(set)
		if err != nil {
			return nil, err
		}
		now := map[string]element{}
		for _, e := range list {
			now[string(e.key)] = e
		}
		maps.Copy(all, now)
		same := func(a, b element) bool { return bytes.Equal(a.key, b.key) }
		if len(now) == len(list) && before != nil && maps.EqualFunc(now, before, same) {
			return now, nil
		}
		before = now
	}
	return all, nil
}
