package iptables

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"spad/pkg/firewall"
)

// The chains where packets come in, without the generation's prefix, and the places that lead there.
const (
	guardChain  = "guard"
	permitChain = "permit"
	natChain    = "nat"
	lanChain    = "hairpin"
	inputChain  = "input"
	rejectChain = "reject"
	refuseChain = "refuse" // the answer of a closed port
	astrayChain = "astray" // for a forwarded port, and not forwarded
	passChain   = "pass"
	cutChain    = "cut"
	namesChain  = "names" // never run: which set is whose
)

// hook is a place of the kernel's where a rule leads to one of our chains.
type hook struct{ table, builtin, chain string }

// hooks are in the order in which they are made, which is such that nothing is let in on the way: the guard, which lets
// forwards and rejects go on, comes last.
var hooks = []hook{
	{"filter", "INPUT", rejectChain},
	{"filter", "FORWARD", passChain},
	{"nat", "POSTROUTING", lanChain},
	{"nat", "PREROUTING", natChain},
	{"mangle", "INPUT", inputChain},
	{"mangle", "POSTROUTING", cutChain},
	{"mangle", "PREROUTING", guardChain},
}

var tableNames = []string{"filter", "nat", "mangle"}

// generation is a number in the names of one Apply's chains: each makes all of them anew beside the old ones. While both
// lead somewhere, what either refuses is refused.
type generation int

const chainPrefix = "spad."

func (g generation) of(chain string) string { return chainPrefix + strconv.Itoa(int(g)) + "-" + chain }

// parseChain is the reverse of of.
func parseChain(name string) (chain string, g generation, ok bool) {
	rest, ok := strings.CutPrefix(name, chainPrefix)
	number, chain, cut := strings.Cut(rest, "-")
	n, err := strconv.Atoi(number)
	return chain, generation(n), ok && cut && err == nil && n >= 0
}

// layout writes one family's chains for a ruleset.
type layout struct {
	firewall.Ruleset
	generation
	v6     bool
	chains map[string]*chains // by table
}

// chains are one table's, in the order in which they were made.
type chains struct {
	names []string
	rules map[string][]string
}

// write makes the rules of all tables that the ruleset needs.
func (g generation) write(r firewall.Ruleset, v6 bool) layout {
	l := layout{r, g, v6, map[string]*chains{}}
	l.guard()
	l.nat()
	l.hairpin()
	if slices.ContainsFunc(r.Services, func(s firewall.Service) bool { return s.Guard == firewall.GuardReject }) {
		l.refuse()
	}
	l.reject()
	l.pass()
	l.input()
	l.cut()
	for _, s := range r.Services {
		l.rule("mangle", namesChain, "-m comment --comment "+s.Name, l.fromSet(doorSet(s, v6)))
	}
	return l
}

// rule appends a rule, and makes its chain if it is the first.
func (l layout) rule(table, chain string, parts ...string) {
	t := l.chains[table]
	if t == nil {
		t = &chains{rules: map[string][]string{}}
		l.chains[table] = t
	}
	name := l.of(chain)
	if _, ok := t.rules[name]; !ok {
		t.names = append(t.names, name)
	}
	t.rules[name] = append(t.rules[name], strings.Join(parts, " "))
}

// hooks returns the places that must lead to this layout's chains.
func (l layout) hooks() []hook {
	var all []hook
	for _, h := range hooks {
		if t := l.chains[h.table]; t != nil && slices.Contains(t.names, l.of(h.chain)) {
			all = append(all, hook{h.table, h.builtin, l.of(h.chain)})
		}
	}
	return all
}

// restore returns the text for iptables-restore that makes the chains, with at most so many lines in each transaction.
// Nothing leads to the chains yet, so they need not come all at once.
func (l layout) restore(longest int) string {
	var b strings.Builder
	for _, table := range tableNames {
		t := l.chains[table]
		if t == nil {
			continue
		}
		var made, filled []string
		for _, name := range t.names {
			made = append(made, fmt.Sprintf(":%s - [0:0]", name))
			for _, rule := range t.rules[name] {
				filled = append(filled, fmt.Sprintf("-A %s %s", name, rule))
			}
		}
		transactions(&b, longest, table, append(made, filled...))
	}
	return b.String()
}

// How many lines a transaction has: as many as there are, since each costs time that grows with the table; but in a user
// namespace iptables-nft may not raise its socket's buffer, and some hundred rules are too long for one message.
const (
	unlimited  = 1 << 30
	fewRules   = 250
	fewRemoved = 1000
)

// transactions appends lines for one table to a text for iptables-restore.
func transactions(b *strings.Builder, longest int, table string, lines []string) {
	for some := range slices.Chunk(lines, longest) {
		fmt.Fprintf(b, "*%s\n%s\nCOMMIT\n", table, strings.Join(some, "\n"))
	}
}

// Parts of rules. xt_addrtype knows no class for "for another host" in IPv6, where unicast includes what is ours.
const (
	passing     = "-m addrtype --dst-type UNICAST -m addrtype ! --dst-type LOCAL,ANYCAST"
	notOurs     = "-m addrtype ! --dst-type LOCAL"
	fromOurs    = "-m addrtype --src-type LOCAL"
	fromOthers  = "-m addrtype ! --src-type LOCAL"
	isReply     = "-m conntrack --ctdir REPLY"
	isOriginal  = "-m conntrack --ctdir ORIGINAL"
	established = "-m conntrack --ctstate ESTABLISHED"
	translated  = "-m conntrack --ctstate DNAT"
	isReset     = "-p tcp --tcp-flags RST RST"
	addLabel    = "-m connlabel --label 127 --set"
	labelled    = "-m connlabel --label 127"
	goOn        = "-j RETURN"
	drop        = "-j DROP"
)

func (l layout) fromSet(name string) string { return "-m set --match-set " + name + " src" }
func (l layout) toSet(name string) string   { return "-m set --match-set " + name + " dst" }
func (l layout) to(chain string) string     { return "-g " + l.of(chain) }

// permitted returns the sets of all sources that may use a service.
func (l layout) permitted(s firewall.Service) []string {
	all := []string{doorSet(s, l.v6)}
	if len(alwaysOf(l.Ruleset, l.v6)) > 0 {
		all = append(all, alwaysSet(l.v6))
	}
	return all
}
