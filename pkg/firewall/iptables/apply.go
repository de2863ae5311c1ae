package iptables

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"spad/pkg/firewall"
)

// Apply implements firewall.Backend. Unwanted entries go out of the sets first. Then all chains are made beside the old
// ones, rules lead to them, and the old ones go: between, a packet passes both, and either can refuse it. New entries
// come last, less the time that the rules took: the lock of iptables may have been waited for.
func (b *Backend) Apply(r firewall.Ruleset, doors []firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.apply(r, doors); err != nil {
		return fmt.Errorf("applying the ruleset: %w", err)
	}
	return nil
}

func (b *Backend) apply(r firewall.Ruleset, doors []firewall.Door) error {
	begun := time.Now()
	if b.closed {
		return errors.New("the firewall backend is closed")
	}
	if err := errors.Join(r.Check(), checkNames(r)); err != nil {
		return err
	}
	if err := b.check(r, doors, true); err != nil {
		return err
	}
	r.Services, r.AlwaysAllow = slices.Clone(r.Services), slices.Clone(r.AlwaysAllow)
	old, next, err := b.survey()
	if err != nil {
		return explain(err)
	}
	want := wantedSets(r, doors, b.families)
	have, undo, err := b.prepareSets(want)
	if err == nil {
		err = b.hookAll(next, r)
	}
	if err != nil {
		return errors.Join(b.diagnose(err), undo())
	}
	for i, f := range b.families {
		if err := f.remove(old[i]); err != nil {
			return fmt.Errorf("the new rules hold, the old ones are not all gone: %w", explain(err))
		}
	}
	b.rules = &r
	if err := b.fillSets(want, have, doors, begun); err != nil {
		return explain(err)
	}
	b.remember(next, want)
	return explain(b.destroySets(want))
}

// found is what of ours is in one family's tables.
type found struct {
	chains map[string][]string // by table
	leads  map[hook][]string   // by table and builtin chain: the rules that lead to our chains
}

// survey looks at all families, and returns the first generation of which nothing is there.
func (b *Backend) survey() ([]found, generation, error) {
	var all []found
	taken := map[generation]bool{}
	for _, f := range b.families {
		old, err := f.survey()
		if err != nil {
			return nil, 0, err
		}
		for _, names := range old.chains {
			for _, name := range names {
				_, g, _ := parseChain(name)
				taken[g] = true
			}
		}
		all = append(all, old)
	}
	next := generation(0)
	for taken[next] {
		next++
	}
	return all, next, nil
}

func (f family) survey() (found, error) {
	all := found{map[string][]string{}, map[hook][]string{}}
	for _, table := range f.tables() {
		lines, err := f.table.list(table)
		if err != nil {
			return found{}, err
		}
		for _, line := range lines {
			words := strings.Fields(line)
			if len(words) < 2 {
				continue
			}
			_, _, ours := parseChain(words[1])
			leads := slices.Contains(all.chains[table], targetOf(line)) // chains are listed before rules
			switch at := (hook{table: table, builtin: words[1]}); {
			case words[0] == "-N" && ours:
				all.chains[table] = append(all.chains[table], words[1])
			case words[0] == "-A" && leads && !ours:
				all.leads[at] = append(all.leads[at], strings.TrimSpace(line))
			}
		}
	}
	return all, nil
}

// targetOf returns the chain that a rule, as iptables lists it, leads to. Nothing is behind it, and a comment that reads
// the same is in quotes.
func targetOf(rule string) string {
	words := strings.Fields(rule)
	if n := len(words); n > 2 && (words[n-2] == "-j" || words[n-2] == "-g") {
		return words[n-1]
	}
	return ""
}

// hookAll makes the chains of all families, and then the rules that lead to them. If that fails, all of it goes again.
func (b *Backend) hookAll(g generation, r firewall.Ruleset) error {
	for _, f := range b.families {
		if err := f.hook(f.layout(g, r)); err != nil {
			return errors.Join(err, b.unhookAll(g))
		}
	}
	return nil
}

// layout returns the family's chains for a ruleset, in the tables that there are.
func (f family) layout(g generation, r firewall.Ruleset) layout {
	l := g.write(r, f.v6)
	if f.noNAT != nil {
		delete(l.chains, "nat")
	}
	return l
}

func (f family) hook(l layout) error {
	if f.noNAT != nil && slices.ContainsFunc(l.Services, func(s firewall.Service) bool { return l.target(s) != "" }) {
		return fmt.Errorf("a forward needs the table nat of %s: %w", f.table, f.noNAT)
	}
	err := f.table.restore(l.restore(unlimited))
	if tooLong(err) {
		err = f.table.restore(l.restore(fewRules)) // a chain that the first try made is emptied
	}
	if err != nil {
		return err
	}
	for _, h := range l.hooks() {
		if err := f.table.insert(h); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) unhookAll(g generation) error {
	var errs error
	for _, f := range b.families {
		half, err := f.survey()
		if err == nil {
			err = f.remove(half.only(g))
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// tables returns those that this family has: without NAT there is nothing of anybody's in it.
func (f family) tables() []string {
	if f.noNAT != nil {
		return []string{"filter", "mangle"}
	}
	return tableNames
}

// only returns what of one generation was found.
func (f found) only(g generation) found {
	other := func(name string) bool { _, is, _ := parseChain(name); return is != g }
	for table, names := range f.chains {
		f.chains[table] = slices.DeleteFunc(names, other)
	}
	for at, rules := range f.leads {
		f.leads[at] = slices.DeleteFunc(rules, func(rule string) bool { return other(targetOf(rule)) })
	}
	return f
}

// remove takes away the rules that lead to chains, last made first gone, and then the chains.
func (f family) remove(old found) error {
	for _, h := range slices.Backward(hooks) {
		at := hook{table: h.table, builtin: h.builtin}
		for _, rule := range old.leads[at] {
			if err := f.table.remove(h.table, rule); err != nil {
				return err
			}
		}
		delete(old.leads, at)
	}
	for at, rules := range old.leads { // from elsewhere: somebody's own, which would keep the chains from going
		if len(rules) > 0 {
			return fmt.Errorf("a rule of another program leads to spad's chains, remove it: %s -t %s %s", f.table, at.table,
				strings.Replace(rules[0], "-A", "-D", 1))
		}
	}
	var b strings.Builder
	for _, table := range tableNames {
		var lines []string
		for _, option := range []string{"-F", "-X"} {
			for _, name := range old.chains[table] {
				lines = append(lines, option+" "+name)
			}
		}
		transactions(&b, fewRemoved, table, lines)
	}
	if b.Len() == 0 {
		return nil
	}
	return f.table.restore(b.String())
}

// owners returns whose the sets are, as the chain "names" says.
func (f family) owners() (map[string]string, error) {
	lines, err := f.table.list("mangle")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "-A" {
			continue
		}
		if chain, _, ours := parseChain(words[1]); !ours || chain != namesChain {
			continue
		}
		service, set := slices.Index(words, "--comment"), slices.Index(words, "--match-set")
		if service >= 0 && set >= 0 && max(service, set)+1 < len(words) {
			all[words[set+1]] = strings.Trim(words[service+1], `"`)
		}
	}
	return all, nil
}
