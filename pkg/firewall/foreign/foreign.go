// Package foreign follows a packet through the rules of other programs, on paper: nothing is sent and nothing is changed.
//
//	kernel --nft.go, netlink--> chains --+
//	iptables-legacy -S --text.go-------> +--walk.go--> Fate: passes, dropped or translated, and by which rule
//
// What a rule asks is known (the port, spad's mark, the link it comes in by), or not (a list of addresses that is not
// read, a rate). The packet is anybody's: an address or port that a rule wants of its sender is not the one it has. A rule
// of which it can't be told is passed over, and the fate is Unsure if that rule would have accepted the packet.
package foreign

import (
	"fmt"
	"net/netip"
)

// Hook is a place in a packet's way where rules are.
type Hook uint8

// The hooks, by their numbers in the kernel.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

// String returns the hook's name in nft's language.
func (h Hook) String() string {
	return [...]string{"prerouting", "input", "forward", "output", "postrouting"}[h]
}

// Transport protocols, by their IP protocol numbers.
const (
	tcp = 6
	udp = 17
)

// Packet is what is known of a packet.
type Packet struct {
	Hook             Hook
	Proto            uint8          // 6 or 17
	From             netip.AddrPort // the zero value: anybody, from any port
	To               netip.AddrPort // an invalid address: whoever it is, the port counts
	V6               bool
	Mark             uint32
	In, Out          string // links; empty: not known
	InIndex          int
	OutIndex         int
	Reply            bool // an answer in an established connection; otherwise the first packet of one
	Translated       bool // its destination was changed on the way
	Local            bool // To is an address of this machine
	BelowPriority    int  // only chains of a priority below this; 0 with AtLeastPriority 0: all
	FromPriority     int  // and at least this
	PrioritiesMatter bool // the two above count
}

// Kind is how a packet fares.
type Kind uint8

// The kinds. Passes is the zero value.
const (
	Passes Kind = iota
	Drops
	Rejects
	Translates // its destination is changed
)

// String returns what the rule does.
func (k Kind) String() string { return [...]string{"accepts", "drops", "rejects", "redirects"}[k] }

// Fate is what becomes of a packet in the base chains of one hook: the first that does not let it pass decides.
type Fate struct {
	Kind   Kind
	Family string // of the table: "inet", "ip", "ip6"; of legacy tables too
	Table  string
	Base   string         // the base chain
	Chain  string         // where it was decided
	Rule   int            // which rule there, from 1; 0: the policy
	To     netip.AddrPort // of Translates; an invalid address: this machine
	Unsure bool           // a rule that could not be told might have accepted it before
	Legacy bool           // a table of iptables-legacy
}

// String says where, as "policy of chain input in table inet filter".
func (f Fate) String() string {
	where := fmt.Sprintf("table %s %s", f.Family, f.Table)
	if f.Legacy {
		where = "iptables-legacy, table " + f.Table
	}
	if f.Rule == 0 {
		return fmt.Sprintf("policy of chain %s in %s", f.Chain, where)
	}
	return fmt.Sprintf("rule %d of chain %s in %s", f.Rule, f.Chain, where)
}

// Rules are all rules that are in force, but spad's own.
type Rules struct {
	chains     []*chain
	Flowtables []string // "inet fw4 ft": what packets of established connections take a short cut by
	Untold     []string // what could not be looked at, and why
}

// Has reports whether there is a base chain at a hook.
func (r *Rules) Has(h Hook) bool {
	for _, c := range r.chains {
		if c.based && c.hook == h {
			return true
		}
	}
	return false
}

// Tables returns the tables that there are, as "inet filter".
func (r *Rules) Tables() map[string]bool {
	all := map[string]bool{}
	for _, c := range r.chains {
		all[c.family+" "+c.table] = true
	}
	return all
}

// Chains returns the names of the chains of one table, by its family and name.
func (r *Rules) Chains(family, table string) map[string]bool {
	all := map[string]bool{}
	for _, c := range r.chains {
		if c.family == family && c.table == table {
			all[c.name] = true
		}
	}
	return all
}
