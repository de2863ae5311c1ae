package nftables

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// Apply implements firewall.Backend. First it makes everything new beside the old, doors included, in as many
// transactions as that takes; then one exchanges the rules of the base chains, which is what packets see; and one
// removes the old, when no packet is on its way through it any more.
func (b *Backend) Apply(r firewall.Ruleset, doors []firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := r.Check(); err != nil {
		return fmt.Errorf("applying the ruleset: %w", err)
	}
	services := r.Index()
	if err := services.Doors(doors, true); err != nil {
		return fmt.Errorf("applying the ruleset: %w", err)
	}
	return b.do("applying the ruleset", func(k kernel) error { return b.apply(k, r, services, doors) })
}

func (b *Backend) apply(k kernel, r firewall.Ruleset, services firewall.Index, doors []firewall.Door) error {
	old, err := survey(k)
	if err != nil {
		return err
	}
	in := inForce{services, next(slices.Concat(old.sets, old.chains))}
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
	if send(k, out) != nil {
		// The new rules hold, and what is left of the old is seen by nobody; it goes with the next Apply.
		_ = k.close()
		b.kernel = nil
	}
	return nil
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
