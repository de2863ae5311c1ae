package iptables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"spad/pkg/firewall"
)

// kernel is a fake of both interfaces to the kernel, strict about what the real ones refuse. Its nth call fails if
// failAt is n; all later ones too if the process is dead by then.
type kernel struct {
	calls, failAt int
	fail          error
	dead          bool
	boxes         map[string]set
	families      map[bool]*rulebook
}

func newKernel() *kernel {
	k := &kernel{boxes: map[string]set{}, families: map[bool]*rulebook{}}
	for _, v6 := range []bool{false, true} {
		k.families[v6] = &rulebook{k, v6, map[string]map[string][]string{}}
		for _, h := range hooks {
			if k.families[v6].rule[h.table] == nil {
				k.families[v6].rule[h.table] = map[string][]string{}
			}
			k.families[v6].rule[h.table][h.builtin] = []string{"-A " + h.builtin + " -j foreign"}
		}
	}
	return k
}

func (k *kernel) backend() *Backend {
	b := &Backend{variant: "nft", sets: k}
	for _, v6 := range []bool{false, true} {
		b.families = append(b.families, family{v6: v6, table: k.families[v6]})
	}
	return b
}

func (k *kernel) called() error {
	if k.calls++; k.calls == k.failAt || k.dead && k.calls > k.failAt {
		return k.fail
	}
	return nil
}

// String is all that the kernel holds.
func (k *kernel) String() string {
	var b strings.Builder
	for _, v6 := range []bool{false, true} {
		for _, table := range tableNames {
			chains := k.families[v6].rule[table]
			for _, name := range slices.Sorted(maps.Keys(chains)) {
				fmt.Fprintf(&b, "%v %s %s\n", v6, table, name)
				for _, rule := range chains[name] {
					fmt.Fprintf(&b, "  %s\n", rule)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.boxes)) {
		fmt.Fprintf(&b, "set %s %v", name, k.boxes[name].kind)
		entries := k.boxes[name].entries
		for _, p := range slices.SortedFunc(maps.Keys(entries), netip.Prefix.Compare) {
			fmt.Fprintf(&b, " %v/%ds", p, entries[p])
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (k *kernel) names() ([]string, error) { return slices.Sorted(maps.Keys(k.boxes)), k.called() }

func (k *kernel) read(name string) (set, error) {
	s, ok := k.boxes[name]
	if !ok {
		return set{}, fmt.Errorf("no set %s", name)
	}
	return set{s.kind, maps.Clone(s.entries)}, k.called()
}

func (k *kernel) create(name string, kind setKind) error {
	if _, there := k.boxes[name]; there || len(name) > 31 {
		return fmt.Errorf("can't make the set %s", name)
	}
	if err := k.called(); err != nil {
		return err
	}
	k.boxes[name] = set{kind, map[netip.Prefix]uint32{}}
	return nil
}

func (k *kernel) destroy(name string) error {
	for _, f := range k.families {
		if strings.Contains(fmt.Sprint(f.rule), "--match-set "+name+" ") {
			return errInUse
		}
	}
	if err := k.called(); err != nil {
		return err
	}
	delete(k.boxes, name)
	return nil
}

func (k *kernel) put(name string, e entry) error {
	s, ok := k.boxes[name]
	if !ok || s.kind.timed != (e.seconds > 0) || s.kind.v6 != e.from.Addr().Is6() || !s.kind.nets && !e.from.IsSingleIP() {
		return fmt.Errorf("set %s takes no %v for %d s", name, e.from, e.seconds)
	}
	if err := k.called(); err != nil {
		return err
	}
	s.entries[e.from] = e.seconds
	return nil
}

func (k *kernel) drop(name string, e entry) error {
	if err := k.called(); err != nil {
		return err
	}
	delete(k.boxes[name].entries, e.from)
	return nil
}

func (k *kernel) close() {}

// rulebook is one family's tables.
type rulebook struct {
	k    *kernel
	v6   bool
	rule map[string]map[string][]string // table, chain
}

func (r *rulebook) String() string { return "iptables" }

func (r *rulebook) list(table string) ([]string, error) {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(r.rule[table])) {
		lines = append(lines, "-N "+name+"\n")
	}
	for _, name := range slices.Sorted(maps.Keys(r.rule[table])) {
		for _, rule := range r.rule[table][name] {
			lines = append(lines, rule+"\n")
		}
	}
	return lines, r.k.called()
}

func (r *rulebook) info(string) (string, error) { return "", r.k.called() }

func (r *rulebook) insert(h hook) error {
	if _, ok := r.rule[h.table][h.chain]; !ok {
		return fmt.Errorf("no chain %s to lead to", h.chain)
	}
	if err := r.k.called(); err != nil {
		return err
	}
	rule := fmt.Sprintf("-A %s -m comment --comment spad -j %s", h.builtin, h.chain)
	r.rule[h.table][h.builtin] = slices.Insert(slices.Clone(r.rule[h.table][h.builtin]), 0, rule)
	return nil
}

func (r *rulebook) remove(table, rule string) error {
	chain := strings.Fields(rule)[1]
	i := slices.Index(r.rule[table][chain], rule)
	if i < 0 {
		return fmt.Errorf("no rule %s", rule)
	}
	if err := r.k.called(); err != nil {
		return err
	}
	r.rule[table][chain] = slices.Delete(slices.Clone(r.rule[table][chain]), i, i+1)
	return nil
}

// restore does what iptables-restore --noflush does, each table as a whole.
func (r *rulebook) restore(text string) error {
	if err := r.k.called(); err != nil {
		return err
	}
	var table string
	next := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)
		switch {
		case line[0] == '*':
			table = line[1:]
			next = maps.Clone(r.rule[table])
		case line[0] == ':':
			if len(words[0]) > 29 || next[words[0][1:]] != nil {
				return fmt.Errorf("can't make the chain %s", words[0])
			}
			next[words[0][1:]] = []string{}
		case words[0] == "-A":
			if next[words[1]] == nil {
				return fmt.Errorf("no chain %s", words[1])
			}
			next[words[1]] = append(next[words[1]], line)
		case words[0] == "-F":
			next[words[1]] = []string{}
		case words[0] == "-X":
			if len(next[words[1]]) > 0 {
				return fmt.Errorf("chain %s is not empty", words[1])
			}
			delete(next, words[1])
		case line == "COMMIT":
			if err := r.whole(next); err != nil {
				return fmt.Errorf("table %s: %w", table, err)
			}
			r.rule[table] = next
		default:
			return fmt.Errorf("line %q", line)
		}
	}
	return nil
}

// whole finds what rules refer to and is not there.
func (r *rulebook) whole(chains map[string][]string) error {
	for _, rules := range chains {
		for _, rule := range rules {
			words := strings.Fields(rule)
			for i, w := range words[:len(words)-1] {
				to := words[i+1]
				if _, ok := chains[to]; (w == "-g" || w == "-j") && strings.HasPrefix(to, chainPrefix) && !ok {
					return fmt.Errorf("rule %q leads nowhere", rule)
				}
				if _, ok := r.k.boxes[to]; w == "--match-set" && !ok {
					return fmt.Errorf("rule %q has no set", rule)
				}
			}
		}
	}
	return nil
}

func door(service, from string, seconds int) firewall.Door {
	return firewall.Door{Service: service, Source: netip.MustParsePrefix(from), TTL: secondsOf(seconds)}
}
