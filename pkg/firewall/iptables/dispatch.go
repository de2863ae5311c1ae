package iptables

import (
	"cmp"
	"fmt"
	"slices"

	"spad/pkg/firewall"
)

// leaf is what is done with packets for some ports.
type leaf struct {
	ports firewall.Ports
	then  string // the end of a rule: "-g CHAIN" or "-j TARGET"
}

func appendLeaves(all []leaf, then string, ports ...firewall.Ports) []leaf {
	for _, p := range ports {
		all = append(all, leaf{p, then})
	}
	return all
}

// Matches for some ports of the packet, or of what its connection was first for.
func byPort(p firewall.Ports) string {
	return fmt.Sprintf("-p %v --dport %d:%d", p.Proto, p.First, p.Last)
}

func byOriginalPort(p firewall.Ports) string {
	return fmt.Sprintf("-p %v -m conntrack --ctorigdstport %d:%d", p.Proto, p.First, p.Last)
}

// fanOut is how many rules a packet meets at each level of a tree of ports: iptables has no map from a port to a chain, and
// a thousand rules in a row cost a packet some ten microseconds.
const fanOut = 8

// dispatch appends rules to a chain that send packets to where the leaves say, by a tree of chains if there are many. The
// leaves' ports do not overlap.
func (l layout) dispatch(table, chain string, by func(firewall.Ports) string, leaves []leaf) {
	for _, proto := range []firewall.Proto{firewall.TCP, firewall.UDP} {
		var of []leaf
		for _, f := range leaves {
			if f.ports.Proto == proto {
				of = append(of, f)
			}
		}
		slices.SortFunc(of, func(a, b leaf) int { return cmp.Compare(a.ports.First, b.ports.First) })
		l.branch(table, chain, chain+"-"+proto.String(), by, of)
	}
}

// branch appends the rules for some leaves to a chain; further chains are called name and a number.
func (l layout) branch(table, chain, name string, by func(firewall.Ports) string, leaves []leaf) {
	size := 1
	for size*fanOut < len(leaves) {
		size *= fanOut
	}
	n := 0
	for part := range slices.Chunk(leaves, size) {
		all := firewall.Ports{Proto: part[0].ports.Proto, First: part[0].ports.First, Last: part[len(part)-1].ports.Last}
		if len(part) == 1 {
			l.rule(table, chain, by(all), part[0].then)
			continue
		}
		below := fmt.Sprintf("%s%d", name, n)
		l.rule(table, chain, by(all), l.to(below))
		l.branch(table, below, below, by, part)
		n++
	}
}
