// Package nftables is the firewall backend for nf_tables.
//
// All is in the table "inet spad", which nft list table inet spad shows with comments. A packet's way through it:
//
//	prerouting -110  guard   iif lo, replies: on; by port, in one map per protocol ----> guard_NAME
//	                           guard_NAME: for another host: on; source in from4_NAME, from6_NAME or always: permit;
//	                                       established (unless cut): permit; otherwise drop, reject or on
//	                           permit: set the mark bit, on
//	prerouting -101  dstnat  new connections, by port ---------------------------------> dstnat_NAME
//	postrouting -10  cut     replies, by the port that the client used ----------------> cut_NAME
//
// Doors are elements with a timeout in the sets from4_NAME and from6_NAME; the kernel ends them by itself. The cost per
// packet does not depend on the number of doors, and with the number of services grows by the depth of a map.
//
// It needs the capability CAP_NET_ADMIN, and a kernel from 5.9 on (reject in prerouting; 5.2 without).
package nftables

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// Options of New. The zero value is the network namespace of the process.
type Options struct {
	NetNS int // a file descriptor of the network namespace to work in, open as long as the Backend; 0: the caller's own
}

// Backend is a firewall.Backend on nf_tables, over one netlink connection that is made again when it is lost.
type Backend struct {
	dial func() (kernel, error)

	mu     sync.Mutex
	kernel kernel // nil: lost, or not made yet
	rules  *inForce
	closed bool
}

var _ firewall.Backend = (*Backend)(nil)

// New connects to nf_tables. An error says what is missing: the capability, or the kernel's support.
func New(o Options) (*Backend, error) {
	b := &Backend{dial: func() (kernel, error) { return dial(o.NetNS) }}
	err := b.do("connecting to nf_tables", func(k kernel) error {
		_, err := k.generation()
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Apply implements firewall.Backend. First it makes everything new beside the old, doors included, in as many
// transactions as that takes; then one exchanges the rules of the base chains, which is what packets see; and one
// removes the old, when no packet is on its way through it any more.
func (b *Backend) Apply(r firewall.Ruleset, doors []firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := r.Check(); err != nil {
		return fmt.Errorf("applying the ruleset: %w", err)
	}
	if err := checkDoors(r, doors, true); err != nil {
		return fmt.Errorf("applying the ruleset: %w", err)
	}
	r.Services, r.AlwaysAllow = slices.Clone(r.Services), slices.Clone(r.AlwaysAllow)
	return b.do("applying the ruleset", func(k kernel) error { return b.apply(k, r, doors) })
}

func (b *Backend) apply(k kernel, r firewall.Ruleset, doors []firewall.Door) error {
	old, err := survey(k)
	if err != nil {
		return err
	}
	in := inForce{r, next(slices.Concat(old.sets, old.chains))}
	static, hooked := &batch{}, &batch{}
	static.addTable()
	old.unhook(hooked)
	layout{static, hooked, r, in.generation, old.standing}.write()
	for _, part := range append(split(static, k.room(), in, doors, addDoors), hooked) {
		if err := send(k, part); err != nil {
			return err // what was made is seen by nobody, and goes with the next Apply
		}
	}
	b.rules = &in
	out := &batch{}
	old.remove(out, r)
	if len(out.messages) == 0 {
		return nil
	}
	settle()
	return send(k, out)
}

// found is what of ours is in the kernel.
type found struct {
	sets, chains []string        // but for base chains that stand where we want them
	standing     map[string]bool // those
}

func survey(k kernel) (found, error) {
	f := found{standing: map[string]bool{}}
	var err error
	if f.sets, err = k.sets(); errors.Is(err, unix.ENOENT) {
		return f, nil
	} else if err != nil {
		return f, err
	}
	chains, err := k.chains()
	if err != nil {
		return f, err
	}
	for _, c := range chains {
		if c.Table.Name != tableName {
			continue
		}
		if want, ok := bases[c.Name]; ok && want.stands(c) {
			f.standing[c.Name] = true
		} else {
			f.chains = append(f.chains, c.Name)
		}
	}
	return f, nil
}

// unhook takes the rules out of the base chains. Those that stand elsewhere than we want go at once.
func (f found) unhook(out *batch) {
	for _, name := range slices.Sorted(maps.Keys(f.standing)) {
		out.flushChain(name)
	}
	for _, name := range f.chains {
		if _, ok := bases[name]; ok {
			out.flushChain(name)
			out.delChain(name)
		}
	}
}

// remove deletes the sets and chains, and base chains that the ruleset has no use for.
func (f found) remove(out *batch, r firewall.Ruleset) {
	var chains []string
	for _, name := range f.chains {
		if _, ok := bases[name]; !ok {
			out.flushChain(name)
			chains = append(chains, name)
		}
	}
	for name := range f.standing {
		if !needs(r, name) {
			chains = append(chains, name)
		}
	}
	for _, name := range f.sets {
		out.delSet(name)
	}
	for _, name := range chains {
		out.delChain(name)
	}
}

func (h hook) stands(c *nftables.Chain) bool {
	return c.Hooknum != nil && c.Priority != nil && *c.Hooknum == h.number && *c.Priority == h.priority && c.Type == h.kind
}

// Open implements firewall.Backend. If it takes several transactions and a later one fails, all of the doors are shut:
// half of them open is what nobody asked for.
func (b *Backend) Open(doors ...firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	parts, err := b.change("opening doors", doors, true, renewDoors)
	if err != nil && parts > 0 {
		_, shutErr := b.change("shutting them again", doors, false, shutDoors)
		err = errors.Join(err, shutErr)
	}
	return err
}

// Shut implements firewall.Backend.
func (b *Backend) Shut(doors ...firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.change("shutting doors", doors, false, shutDoors)
	return err
}

// change returns how many transactions took effect.
func (b *Backend) change(doing string, doors []firewall.Door, timed bool, write writer) (int, error) {
	if b.rules == nil {
		return 0, fmt.Errorf("%s: %w", doing, firewall.ErrNoRuleset)
	}
	if err := checkDoors(b.rules.Ruleset, doors, timed); err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	done := 0
	err := b.do(doing, func(k kernel) error {
		for _, part := range split(&batch{}, k.room(), *b.rules, doors, write) {
			if err := send(k, part); err != nil {
				return err
			}
			done++
		}
		return nil
	})
	return done, err
}

func checkDoors(r firewall.Ruleset, doors []firewall.Door, timed bool) error {
	for _, d := range doors {
		if err := r.Door(d, timed); err != nil {
			return err
		}
	}
	return nil
}

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

// Down implements firewall.Backend.
func (b *Backend) Down() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &batch{}
	out.addTable() // deleting needs one
	out.delTable()
	if err := b.do("removing the table inet "+tableName, func(k kernel) error { return send(k, out) }); err != nil {
		return err
	}
	b.rules = nil
	return nil
}

// Close implements firewall.Backend. It may be called more than once.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.kernel == nil {
		return nil
	}
	err := b.kernel.close()
	b.kernel = nil
	return err
}

// attempts is how often something is tried that may work on a second try.
const attempts = 3

// do runs f on a connection, with the lock held.
func (b *Backend) do(doing string, f func(kernel) error) error {
	if b.closed {
		return fmt.Errorf("%s: the firewall backend is closed", doing)
	}
	var err error
	for range attempts {
		if err = b.try(f); err == nil || !again(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, explain(err, b.try))
	}
	return nil
}

// try runs f once. After an error the connection is given up: there may be more answers to what failed.
func (b *Backend) try(f func(kernel) error) error {
	if b.kernel == nil {
		k, err := b.dial()
		if err != nil {
			return err
		}
		b.kernel = k
	}
	err := f(b.kernel)
	if err != nil {
		_ = b.kernel.close()
		b.kernel = nil
	}
	return err
}

func send(k kernel, b *batch) error {
	if len(b.messages) == 0 && b.err == nil {
		return nil
	}
	messages, err := b.sealed()
	if err != nil {
		return err
	}
	return k.commit(messages)
}
