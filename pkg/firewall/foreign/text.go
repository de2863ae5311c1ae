package foreign

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"spad/pkg/firewall/iptables"
)

// hooks are where the builtin chains are, and each table's priority there (linux/netfilter_ipv4.h).
var (
	hooks = map[string]Hook{
		"PREROUTING": Prerouting, "INPUT": Input, "FORWARD": Forward, "OUTPUT": Output, "POSTROUTING": Postrouting,
	}
	priorities = map[string]int{"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
)

// readLegacy adds the tables of iptables-legacy, which nf_tables does not show. It only lists tables that there are:
// listing another would make it.
func (r *Rules) readLegacy(netns int) {
	for _, v6 := range []bool{false, true} {
		tables, err := iptables.LegacyTables(netns, v6)
		if err != nil {
			r.Untold = append(r.Untold, fmt.Sprintf("the rules of iptables-legacy: %v", err))
			continue
		}
		for _, t := range tables {
			r.addText(v6, t.Name, t.Lines)
		}
	}
}

// addText adds one table as iptables -S lists it.
func (r *Rules) addText(v6 bool, table string, lines []string) {
	family := "ip"
	if v6 {
		family = "ip6"
	}
	byName := map[string]*chain{}
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch name := words[1]; words[0] {
		case "-P", "-N":
			c := &chain{family: family, table: table, name: name, legacy: true, policy: accepts}
			if hook, ok := hooks[name]; ok && words[0] == "-P" {
				c.based, c.hook, c.priority, c.nat = true, hook, priorities[table], table == "nat"
				if len(words) > 2 && words[2] == "DROP" {
					c.policy = drops
				}
			}
			byName[name] = c
			r.chains = append(r.chains, c)
		case "-A":
			if c := byName[name]; c != nil && !strings.Contains(line, "-j "+ownPrefix) {
				c.rules = append(c.rules, textRule(words[2:]))
			}
		}
	}
	r.chains = slices.DeleteFunc(r.chains, func(c *chain) bool { return c.legacy && strings.HasPrefix(c.name, ownPrefix) })
}

// textRule is the words of a rule behind the chain's name.
type textRule []string

func (t textRule) meet(p *Packet) (tri, deed) {
	sure, invert := yes, false
	var d deed
	for i := 0; i < len(t) && sure != no; i++ {
		word, next := t[i], ""
		if i+1 < len(t) {
			next = t[i+1]
		}
		switch word {
		case "!":
			invert = true
			continue
		case "-m", "--comment":
			i = t.skip(i)
		case "-j", "-g":
			d = t.target(word, next, p.V6)
			return sure, d
		default:
			m, taken := p.asks(word, next)
			sure = sure.and(m.not(invert))
			i += taken
		}
		invert = false
	}
	return sure, d
}

// skip returns the place of the last word of an option's value, which may be in quotes.
func (t textRule) skip(i int) int {
	if i+1 >= len(t) || !strings.HasPrefix(t[i+1], `"`) {
		return i + 1
	}
	for i++; i < len(t); i++ {
		if strings.HasSuffix(t[i], `"`) && (len(t[i]) > 1) {
			break
		}
	}
	return i
}

// asks is one question of a rule, and how many words belong to it beside the first.
func (p *Packet) asks(word, next string) (tri, int) {
	switch word {
	case "-p":
		return is(next == "all" || next == "tcp" && p.Proto == tcp || next == "udp" && p.Proto == udp), 1
	case "-i":
		return link(next, p.In), 1
	case "-o":
		return link(next, p.Out), 1
	case "-s":
		return from(next, p.From.Addr(), no), 1
	case "-d":
		return from(next, p.To.Addr(), unknown), 1
	case "--dport", "--dports":
		return is(inPorts(next, p.To.Port())), 1
	case "--sport", "--sports":
		return is(p.From.Port() != 0 && inPorts(next, p.From.Port())), 1
	case "--ports":
		return is(inPorts(next, p.To.Port())), 1
	case "--ctstate", "--state":
		return p.inState(next), 1
	case "--mark":
		return p.carries(next), 1
	case "--dst-type":
		return is(p.Local == (next == "LOCAL")), 1
	case "--syn":
		return is(p.Proto == tcp && !p.Reply), 0
	case "--limit", "--limit-burst":
		return yes, 1
	}
	if strings.HasPrefix(next, "-") || next == "" || next == "!" {
		return unknown, 0
	}
	return unknown, 1
}

func (p *Packet) inState(list string) tri {
	state := "NEW"
	if p.Reply {
		state = "ESTABLISHED"
	}
	states := strings.Split(list, ",")
	return is(slices.Contains(states, state) || p.Translated && slices.Contains(states, "DNAT"))
}

// carries compares the mark with VALUE/MASK, or with a whole value.
func (p *Packet) carries(want string) tri {
	value, mask, masked := strings.Cut(want, "/")
	v, err := strconv.ParseUint(value, 0, 32)
	m := uint64(0xffffffff)
	if masked && err == nil {
		m, err = strconv.ParseUint(mask, 0, 32)
	}
	if err != nil {
		return unknown
	}
	return is(p.Mark&uint32(m) == uint32(v))
}

// from reports whether an address is in a network; what it is if the address is not known, the caller says.
func from(network string, a netip.Addr, otherwise tri) tri {
	n, err := netip.ParsePrefix(network)
	switch {
	case err != nil:
		return unknown
	case !a.IsValid() && n.Bits() > 0:
		return otherwise
	}
	return is(n.Bits() == 0 || n.Contains(a))
}

// inPorts reads 80, 80:90 and lists of both.
func inPorts(list string, port uint16) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(one string) bool {
		first, last, ranged := strings.Cut(one, ":")
		if !ranged {
			last = first
		}
		low, err := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		return err == nil && err2 == nil && low <= int(port) && int(port) <= high
	})
}

// target is what the rule does, from its -j or -g on.
func (t textRule) target(word, name string, v6 bool) deed {
	switch name {
	case "ACCEPT", "MASQUERADE", "SNAT":
		return deed{effect: accepts}
	case "DROP":
		return deed{effect: drops}
	case "REJECT":
		return deed{effect: rejects}
	case "RETURN":
		return deed{effect: returns}
	case "REDIRECT", "TPROXY":
		return deed{effect: translates}
	case "DNAT":
		i := slices.Index(t, "--to-destination")
		if i < 0 || i+1 >= len(t) {
			return deed{effect: translates}
		}
		if to, err := netip.ParseAddrPort(t[i+1]); err == nil {
			return deed{effect: translates, to: to}
		}
		a, _ := netip.ParseAddr(strings.Trim(t[i+1], "[]"))
		return deed{effect: translates, to: netip.AddrPortFrom(a, 0)}
	case "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "TRACE", "CLASSIFY", "DSCP", "SET", "CHECKSUM", "AUDIT":
		return deed{}
	}
	if word == "-g" {
		return deed{effect: goes, chain: name}
	}
	return deed{effect: jumps, chain: name}
}
