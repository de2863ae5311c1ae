package iptables

import (
	"fmt"

	"spad/pkg/firewall"
)

// permit writes the chain that sets the mark and lets go on.
func (l layout) permit(table string) {
	l.rule(table, permitChain, fmt.Sprintf("-j MARK --set-xmark %#x/%#x", l.Mark, l.Mark))
}

func (l layout) guard() {
	l.permit("mangle")
	l.rule("mangle", guardChain, "-i lo", goOn)
	l.rule("mangle", guardChain, isReply, goOn)
	l.holes("mangle", guardChain, "h-", passing+" -d", l.Services, l.guardService)
	var leaves []leaf
	for _, s := range l.Services {
		if ports := s.Ports(); len(ports) > 0 {
			chain := "g-" + short(s.Name)
			l.rule("mangle", chain, passing, goOn)
			l.guardService(chain, s)
			leaves = appendLeaves(leaves, l.to(chain), ports...)
		}
	}
	if l.KnockPort != 0 {
		l.rule("mangle", "knock", passing, goOn)
		l.rule("mangle", "knock", l.to(permitChain))
		leaves = appendLeaves(leaves, l.to("knock"), l.knock())
	}
	l.dispatch("mangle", guardChain, byPort, leaves)
}

func (l layout) knock() firewall.Ports {
	return firewall.Ports{Proto: firewall.UDP, First: l.KnockPort, Last: l.KnockPort}
}

// guardService writes one service's chain, for packets to a port of the router, behind a rule for those that only pass,
// or to a host with a pinhole. What is not unicast to another host is for us: broadcast and multicast packets reach
// sockets too.
func (l layout) guardService(chain string, s firewall.Service) {
	permit := l.to(permitChain)
	if labels(s) {
		yes := "y-" + chain
		l.rule("mangle", yes, addLabel)
		l.rule("mangle", yes, permit)
		permit = l.to(yes)
	}
	for _, set := range l.permitted(s) {
		l.rule("mangle", chain, l.fromSet(set), permit)
	}
	switch {
	case labels(s):
		l.rule("mangle", chain, labelled, drop)
	case s.Guard != firewall.GuardOff && !s.Cut:
		l.rule("mangle", chain, established, permit)
	case s.Guard == firewall.GuardReject:
		l.rule("mangle", chain, established, drop) // the chain reject would only see what is for the router itself
	}
	if s.Guard == firewall.GuardDrop {
		l.rule("mangle", chain, drop)
	}
}

// labels reports whether a service's connections carry a connection label. Without a guard, others may be connected
// who were never let in by a door, and who must not be cut off.
func labels(s firewall.Service) bool { return s.Cut && s.Guard == firewall.GuardOff }
