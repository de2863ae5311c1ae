package foreign

import (
	"cmp"
	"net/netip"
	"slices"
)

// tri is whether a packet is what a rule asks for.
type tri int8

const (
	no      tri = -1
	unknown tri = 0
	yes     tri = 1
)

func is(b bool) tri {
	if b {
		return yes
	}
	return no
}

func (t tri) and(u tri) tri { return min(t, u) }

// not turns it round if the rule does.
func (t tri) not(invert bool) tri {
	if invert {
		return -t
	}
	return t
}

// effect is what a rule does with a packet that it matches.
type effect uint8

const (
	nothing effect = iota
	accepts
	drops
	rejects
	translates
	jumps
	goes
	returns
	looksUp // by something unknown, so that it may do anything
)

// deed is a rule's effect, and where it leads.
type deed struct {
	effect
	chain string
	to    netip.AddrPort
}

// rule is one rule of either kind.
type rule interface {
	meet(p *Packet) (tri, deed)
}

// chain is one chain.
type chain struct {
	family, table, name string
	legacy              bool
	based               bool // a base chain, at a hook
	hook                Hook
	priority            int
	nat                 bool
	policy              effect
	rules               []rule
}

// sees reports whether packets of that kind come to the base chain at all.
func (c *chain) sees(p *Packet) bool {
	if !c.based || c.hook != p.Hook || c.nat && p.Reply {
		return false
	}
	if p.PrioritiesMatter && (c.priority < p.FromPriority || c.priority >= p.BelowPriority) {
		return false
	}
	return c.family == "inet" || c.family == "ip6" == p.V6
}

// Follow returns what becomes of a packet at its hook.
func (r *Rules) Follow(p Packet) Fate {
	bases := slices.DeleteFunc(slices.Clone(r.chains), func(c *chain) bool { return !c.sees(&p) })
	slices.SortStableFunc(bases, func(a, b *chain) int { return cmp.Compare(a.priority, b.priority) })
	for _, b := range bases {
		w := walk{rules: r, packet: &p, base: b}
		if f := w.whole(); f.Kind != Passes {
			return f
		}
	}
	return Fate{}
}

// walk is a packet's way through one base chain and the chains that it leads to.
type walk struct {
	rules  *Rules
	packet *Packet
	base   *chain
	unsure bool
}

// deepest is as far as the kernel lets chains lead to each other.
const deepest = 16

func (w *walk) whole() Fate {
	if f, ended := w.through(w.base, 0); ended {
		return f
	}
	return w.fate(w.base, 0, deed{effect: w.base.policy})
}

func (w *walk) fate(c *chain, rule int, d deed) Fate {
	kinds := map[effect]Kind{drops: Drops, rejects: Rejects, translates: Translates}
	return Fate{
		Kind: kinds[d.effect], Family: c.family, Table: c.table, Legacy: c.legacy, Base: w.base.name, Chain: c.name, Rule: rule,
		To: d.to, Unsure: w.unsure,
	}
}

// through reports whether the packet's fate is sealed in a chain.
func (w *walk) through(c *chain, depth int) (Fate, bool) {
	for i, r := range c.rules {
		sure, d := r.meet(w.packet)
		if sure == no {
			continue
		}
		switch d.effect {
		case accepts, drops, rejects, translates:
			if sure == yes {
				return w.fate(c, i+1, d), true
			}
			w.unsure = w.unsure || d.effect == accepts
		case jumps, goes:
			if f, ended := w.down(c, d.chain, sure, depth); ended {
				return f, true
			}
			if sure == yes && d.effect == goes {
				return Fate{}, false
			}
		case returns:
			if sure == yes {
				return Fate{}, false
			}
		case looksUp:
			w.unsure = true
		}
	}
	return Fate{}, false
}

// down follows a jump. One that may not be taken seals nothing.
func (w *walk) down(from *chain, name string, sure tri, depth int) (Fate, bool) {
	to := w.rules.find(from, name)
	if to == nil || depth == deepest {
		return Fate{}, false
	}
	f, ended := w.through(to, depth+1)
	if ended && sure != yes {
		w.unsure = w.unsure || f.Kind == Passes
		return Fate{}, false
	}
	return f, ended
}

func (r *Rules) find(beside *chain, name string) *chain {
	for _, c := range r.chains {
		if c.name == name && c.table == beside.table && c.family == beside.family && c.legacy == beside.legacy {
			return c
		}
	}
	return nil
}
