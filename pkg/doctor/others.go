package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"spad/pkg/firewall"
	"spad/pkg/firewall/foreign"
)

// guardAt is the priority of spad's guard in prerouting: packets carry the mark from there on.
func (c *chart) guardAt() int {
	if c.Config.Firewall == "iptables" {
		return -150 // the table mangle, before all others there
	}
	return -110
}

// trial is a packet that must get through, and what it is for.
type trial struct {
	what   string
	packet foreign.Packet
	open   *firewall.Service // whose door to this machine it is for, in prerouting
}

func (t trial) String() string {
	if t.packet.Reply {
		return "answers of " + t.what
	}
	return t.what
}

// obstacle is a rule that is in the way of packets, of one or more kinds.
type obstacle struct {
	fate foreign.Fate
	met  foreign.Packet // the first of them
	what []string
}

// others is whether a firewall of another program drops or hijacks what spad lets in.
func others(_ context.Context, c *chart) {
	rules := c.Rules()
	for _, what := range rules.Untold {
		c.say("firewall", Warn, "look there by hand for rules that drop what carries spad's mark", "could not look at %s", what)
	}
	var met []obstacle
	for _, v6 := range []bool{false, true} {
		for _, t := range c.trials(v6) {
			if f := rules.Follow(t.packet); f.Kind != foreign.Passes && !c.redirected(t, f) {
				met = add(met, t, f)
			}
		}
	}
	for _, o := range met {
		c.obstacle(o)
	}
	switch all := rules.Tables(); {
	case len(met) > 0 || len(rules.Untold) > 0:
	case len(all) == 0:
		c.ok("firewall", "no other program has rules")
	default:
		c.ok("firewall", "other rules let pass knocks, open doors and their answers (%s)", strings.Join(tables(all), ", "))
	}
}

func tables(all map[string]bool) (names []string) {
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func add(met []obstacle, t trial, f foreign.Fate) []obstacle {
	for i := range met {
		o := &met[i]
		if o.fate.String() != f.String() || o.fate.Kind != f.Kind || o.met.Hook != t.packet.Hook || o.met.Reply != t.packet.Reply {
			continue
		}
		if !slices.Contains(o.what, t.String()) {
			o.what = append(o.what, t.String())
		}
		return met
	}
	return append(met, obstacle{f, t.packet, []string{t.String()}})
}

// trials are the packets of one family: a knock, a first packet for each service, and the answers.
func (c *chart) trials(v6 bool) (all []trial) {
	at, uplinks, err := c.own(v6)
	if err != nil || v6 && len(at) == 0 {
		return nil
	}
	if len(uplinks) == 0 {
		uplinks = []Link{{}} // then what rules say of links can't be told
	}
	for _, up := range uplinks {
		own := netip.Addr{}
		if len(at) > 0 {
			own = at[0]
		}
		knock := firewall.Ports{Proto: firewall.UDP, First: c.Config.Port, Last: c.Config.Port}
		all = append(all, c.toRouter("knocks ("+knock.String()+")", v6, up, own, knock, nil)...)
		for _, s := range c.Config.Doors {
			for _, p := range s.Open {
				all = append(all, c.toRouter(fmt.Sprintf("%s (%v)", s.Name, p), v6, up, own, p, &s)...)
			}
			if s.Forward != nil {
				all = append(all, c.through(s, v6, up, own)...)
			}
		}
	}
	return all
}

// toRouter is the way of a packet to this machine, and of the answer.
func (c *chart) toRouter(what string, v6 bool, up Link, own netip.Addr, p firewall.Ports, s *firewall.Service) []trial {
	all := c.arrival(what, v6, up, own, p)
	all[1].open = s
	in := all[1].packet
	in.Hook, in.PrioritiesMatter = foreign.Input, false
	out := foreign.Packet{
		Hook: foreign.Output, Proto: uint8(p.Proto), V6: v6, Reply: true, Out: up.Name, OutIndex: up.Index,
		From: netip.AddrPortFrom(own, p.First),
	}
	return append(all, trial{what: what, packet: in}, trial{what: what, packet: out})
}

// arrival is a packet's way through prerouting, before and behind the guard.
func (c *chart) arrival(what string, v6 bool, up Link, own netip.Addr, p firewall.Ports) []trial {
	early := foreign.Packet{
		Hook: foreign.Prerouting, Proto: uint8(p.Proto), V6: v6, In: up.Name, InIndex: up.Index, Local: true,
		To: netip.AddrPortFrom(own, p.First), PrioritiesMatter: true, FromPriority: -1 << 31, BelowPriority: c.guardAt(),
	}
	late := early
	late.FromPriority, late.BelowPriority, late.Mark = c.guardAt(), 1<<31-1, c.Config.Mark
	return []trial{{what: what, packet: early}, {what: what, packet: late}}
}

// through is the way of a packet to a host behind, and of the answer.
func (c *chart) through(s firewall.Service, v6 bool, up Link, own netip.Addr) []trial {
	to, hole := s.Forward.To4, false
	if v6 {
		if to = s.Forward.To6; !to.IsValid() && s.Hole().IsValid() {
			to, hole = c.pinhole(s), true
		}
	}
	if !to.IsValid() && !hole {
		return nil
	}
	what := fmt.Sprintf("%s (%v)", s.Name, s.Forward.Port)
	var all []trial
	if !hole {
		all = c.arrival(what, v6, up, own, s.Forward.Port)[:1] // behind the guard spad's own translation comes before those of others
	}
	var lan Link // by which the host is; not known of an end of an address
	if to.Addr().IsValid() {
		lan, _ = c.Network.Toward(to.Addr())
	}
	proto := uint8(s.Forward.Port.Proto)
	return append(all, trial{what: what, packet: foreign.Packet{
		Hook: foreign.Forward, Proto: proto, V6: v6, Mark: c.Config.Mark, In: up.Name, InIndex: up.Index, Out: lan.Name, OutIndex: lan.Index,
		To: to, Translated: !hole,
	}}, trial{what: what, packet: foreign.Packet{
		Hook: foreign.Forward, Proto: proto, V6: v6, In: lan.Name, InIndex: lan.Index, Out: up.Name, OutIndex: up.Index,
		From: to, Translated: !hole, Reply: true,
	}})
}

// pinhole is where packets through one go: to a host's own address, if the whole of it is known.
func (c *chart) pinhole(s firewall.Service) netip.AddrPort {
	a := netip.Addr{}
	if h := s.Hole(); h.Bits == 128 {
		a = h.Addr
	}
	return netip.AddrPortFrom(a, s.Forward.Port.First)
}

// redirected reports whether a translation is of a port that Docker or the like published: spad guards it before that, so the
// door leads to the container.
func (c *chart) redirected(t trial, f foreign.Fate) bool {
	if f.Kind != foreign.Translates || t.open == nil || !container(f) {
		return false
	}
	if t.open.Guard == firewall.GuardOff {
		c.once("docker", Warn, `take guard = "off" from the service, or publish the port on 127.0.0.1 alone`,
			"%s: published by a container program (%v), and its guard is off: everybody reaches the container", t.what, f)
	} else {
		c.once("docker", OK, "", "%s: published by a container program (%v); spad guards it, and its door leads to the container", t.what, f)
	}
	to := t.packet
	to.Hook, to.PrioritiesMatter, to.To, to.Local, to.Translated = foreign.Forward, false, f.To, false, true
	if f.To.Addr().IsValid() {
		out, _ := c.Network.Toward(f.To.Addr())
		to.Out, to.OutIndex = out.Name, out.Index
		if f := c.Rules().Follow(to); f.Kind != foreign.Passes && !f.Unsure {
			c.obstacle(obstacle{f, to, []string{t.what}})
		}
	}
	return true
}

func container(f foreign.Fate) bool {
	name := strings.ToLower(f.Table + " " + f.Chain)
	return slices.ContainsFunc([]string{"docker", "netavark", "cni-", "kube-", "podman"}, func(word string) bool { return strings.Contains(name, word) })
}

// once says something that more than one packet shows.
func (c *chart) once(check string, l Level, remedy, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if !slices.ContainsFunc(c.findings, func(f Finding) bool { return f.Check == check && f.What == what }) {
		c.say(check, l, remedy, "%s", what)
	}
}

// obstacle says what is in the way, and how to take it out.
func (c *chart) obstacle(o obstacle) {
	level, doubt := Fail, ""
	if o.fate.Unsure {
		level, doubt = Warn, " (unless a rule before it lets them pass, which could not be told)"
	}
	c.say("firewall", level, c.remedy(o), "packets of %s %s%s: %v%s", strings.Join(o.what, ", "), passive(o.fate), over(o.fate), o.fate, doubt)
}

// over names the family if the table is for one.
func over(f foreign.Fate) string {
	switch f.Family {
	case "ip":
		return " over IPv4"
	case "ip6":
		return " over IPv6"
	}
	return ""
}

func passive(f foreign.Fate) string {
	switch f.Kind {
	case foreign.Drops:
		return "are dropped"
	case foreign.Rejects:
		return "are rejected"
	}
	if f.To.Addr().IsValid() {
		return "are redirected to " + f.To.String()
	}
	return "are redirected to another port"
}
