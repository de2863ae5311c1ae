package iptables

import (
	"fmt"
	"net/netip"
	"slices"

	"spad/pkg/firewall"
)

// nat sees the first packet of each connection, and is before everybody else's DNAT. What a guard refuses, or lets in
// for a forward of the other family, must go to the router's own port, where it is stopped, and not to where another
// program's rule would send it.
func (l layout) nat() {
	l.permit("nat")
	l.holes("nat", natChain, "m-", passing+" -d", l.Services, func(chain string, s firewall.Service) {
		for _, set := range l.permitted(s) {
			l.rule("nat", chain, l.fromSet(set), l.to(permitChain))
		}
		l.rule("nat", chain, goOn)
	})
	l.rule("nat", natChain, notOurs, goOn)
	var leaves []leaf
	for _, s := range l.Services {
		if len(s.Open) > 0 {
			chain := "n-" + short(s.Name)
			for _, set := range l.permitted(s) {
				l.rule("nat", chain, l.fromSet(set), l.to(permitChain))
			}
			if s.Guard == firewall.GuardReject {
				l.rule("nat", chain, "-j ACCEPT")
			}
			leaves = appendLeaves(leaves, l.to(chain), s.Open...)
		}
		if translates(s) {
			chain := "f-" + short(s.Name)
			l.forward(chain, s)
			leaves = appendLeaves(leaves, l.to(chain), s.Forward.Port)
		}
	}
	if l.KnockPort != 0 {
		leaves = appendLeaves(leaves, l.to(permitChain), l.knock())
	}
	l.dispatch("nat", natChain, byPort, leaves)
}

// forward writes one service's chain for the port that it forwards.
func (l layout) forward(chain string, s firewall.Service) {
	for _, set := range l.permitted(s) {
		l.rule("nat", chain, l.fromSet(set), "-j", l.of(permitChain))
		if to := l.target(s); to != "" {
			l.rule("nat", chain, fmt.Sprintf("-p %v", s.Forward.Port.Proto), l.fromSet(set), "-j DNAT --to-destination", to)
		}
	}
	if s.Guard != firewall.GuardOff {
		l.rule("nat", chain, "-j ACCEPT")
	}
}

// hairpin gives the router's address to who came from the LAN by one of our doors, so that answers come back here.
func (l layout) hairpin() {
	var leaves []leaf
	for _, s := range l.Services {
		if !l.Hairpins(s) || l.target(s) == "" {
			continue
		}
		chain := "s-" + short(s.Name)
		for _, to := range s.Forward.Targets() {
			if to.Addr().Is6() == l.v6 {
				l.masquerade(chain, s, to)
			}
		}
		leaves = appendLeaves(leaves, l.to(chain), s.Forward.Port)
	}
	l.dispatch("nat", lanChain, byOriginalPort, leaves)
}

func (l layout) masquerade(chain string, s firewall.Service, to netip.AddrPort) {
	for _, p := range l.LAN {
		if p.Addr().Is6() != l.v6 {
			continue
		}
		for _, set := range l.permitted(s) {
			l.rule("nat", chain, fmt.Sprintf("-s %v", p), translated, byPort(s.Forward.At(to)), fmt.Sprintf("-d %v", to.Addr()),
				l.fromSet(set), "-j MASQUERADE")
		}
	}
}

// target returns where a service's forward goes in this family, as DNAT takes it, or nothing. Of several ports, those
// that the target has too are kept; otherwise "/" and the first say what they are counted from (kernel 4.18).
func (l layout) target(s firewall.Service) string {
	if s.Forward == nil {
		return ""
	}
	for _, to := range s.Forward.Targets() {
		switch at := s.Forward.At(to); {
		case to.Addr().Is6() != l.v6:
		case at.Count() == 1:
			return to.String()
		case !s.Forward.Shifts(to):
			return to.Addr().String()
		default:
			return fmt.Sprintf("%v-%d/%d", to, at.Last, s.Forward.Port.First)
		}
	}
	return ""
}

// reject answers as a closed port.
func (l layout) reject() {
	var leaves []leaf
	for _, s := range l.Services {
		if s.Guard != firewall.GuardReject {
			continue
		}
		if len(s.Open) > 0 {
			chain := "r-" + short(s.Name)
			l.spare(chain, s)
			l.rule("filter", chain, l.to(refuseChain))
			leaves = appendLeaves(leaves, l.to(chain), s.Open...)
		}
		if translates(s) {
			leaves = appendLeaves(leaves, l.to(astrayChain), s.Forward.Port)
		}
	}
	if len(leaves) == 0 {
		return
	}
	l.rule("filter", astrayChain, translated, goOn)
	l.rule("filter", astrayChain, l.to(refuseChain))
	l.rule("filter", rejectChain, "-i lo", goOn)
	l.rule("filter", rejectChain, isReply, goOn)
	l.dispatch("filter", rejectChain, byPort, leaves)
}

// spare lets who may use a service go on.
func (l layout) spare(chain string, s firewall.Service) {
	for _, set := range l.permitted(s) {
		l.rule("filter", chain, l.fromSet(set), goOn)
	}
	if !s.Cut {
		l.rule("filter", chain, established, goOn)
	}
}

// refuse writes the answer of a closed port.
func (l layout) refuse() {
	unreachable := "icmp-port-unreachable"
	if l.v6 {
		unreachable = "icmp6-port-unreachable"
	}
	l.rule("filter", refuseChain, "-p tcp -j REJECT --reject-with tcp-reset")
	l.rule("filter", refuseChain, "-j REJECT --reject-with", unreachable)
}

// pass is reject for hosts with a pinhole. What was translated came for a port of the router.
func (l layout) pass() {
	rejecting := slices.DeleteFunc(slices.Clone(l.Services), func(s firewall.Service) bool { return s.Guard != firewall.GuardReject })
	if l.v6 && len(firewall.Clusters(rejecting)) > 0 {
		l.rule("filter", passChain, isReply, goOn)
		l.rule("filter", passChain, translated, goOn)
		l.holes("filter", passChain, "p-", "-d", rejecting, func(chain string, s firewall.Service) {
			l.spare(chain, s)
			l.rule("filter", chain, l.to(refuseChain))
		})
	}
}

// holes appends a rule to a chain that leads packets for pinholes to chains of their services, which write makes: by port,
// and then host by host, since several may have the same port. The side is what stands before the host's address: the
// router's own may end alike. What comes back from there goes on.
func (l layout) holes(table, chain, prefix, side string, services []firewall.Service, write func(string, firewall.Service)) {
	clusters := firewall.Clusters(services)
	if !l.v6 || len(clusters) == 0 {
		return
	}
	l.rule(table, chain, "-j", l.of("holes-"+chain))
	var leaves []leaf
	by := byPort
	if chain == cutChain {
		by = byOriginalPort
	}
	for i, c := range clusters {
		below := fmt.Sprintf("holes-%s.%d", chain, i)
		leaves = appendLeaves(leaves, l.to(below), c.Ports)
		for _, s := range c.Services {
			h, own := s.Hole(), prefix+short(s.Name)
			l.rule(table, below, by(s.Forward.Port), fmt.Sprintf("%s %v/%v", side, h.Addr, h.Mask()), l.to(own))
			write(own, s)
		}
	}
	l.dispatch(table, "holes-"+chain, by, leaves)
}

// translates reports whether a service has a target that packets are translated to.
func translates(s firewall.Service) bool { return s.Forward != nil && len(s.Forward.Targets()) > 0 }

// input stops what a door of a forward let in and no rule of nat took: the door went shut between the two, or the family
// has no target. It must not reach the router's own port. (The table nat itself refuses to drop.) What was translated may
// be for the port of the same number at another address of the router's.
func (l layout) input() {
	var leaves []leaf
	for _, s := range l.Services {
		if translates(s) && s.Guard == firewall.GuardDrop {
			leaves = appendLeaves(leaves, l.to(astrayChain), s.Forward.Port)
		}
	}
	if len(leaves) == 0 {
		return
	}
	l.rule("mangle", astrayChain, translated, goOn)
	l.rule("mangle", astrayChain, drop)
	l.rule("mangle", inputChain, "-i lo", goOn)
	l.rule("mangle", inputChain, isReply, goOn)
	l.dispatch("mangle", inputChain, byPort, leaves)
}

func (l layout) cut() {
	var leaves []leaf
	var services []firewall.Service
	for _, s := range l.Services {
		if !s.Cut {
			continue
		}
		services = append(services, s)
		if ports := s.Ports(); len(ports) > 0 {
			chain := "c-" + short(s.Name)
			l.cutService(chain, s)
			leaves = appendLeaves(leaves, l.to(chain), ports...)
		}
	}
	if len(services) > 0 {
		l.rule("mangle", cutChain, isOriginal, goOn)
		l.rule("mangle", cutChain, "-o lo", goOn)
		l.holes("mangle", cutChain, "o-", fromOthers+" -s", services, l.cutHole)
		l.dispatch("mangle", cutChain, byOriginalPort, leaves)
	}
}

// cutHole writes one service's chain for the way back from its host. What was translated came for a port of the router.
func (l layout) cutHole(chain string, s firewall.Service) {
	l.rule("mangle", chain, translated, goOn)
	for _, set := range l.permitted(s) {
		l.rule("mangle", chain, l.toSet(set), goOn)
	}
	if labels(s) {
		l.rule("mangle", chain, labelled, drop)
		return
	}
	if s.Guard == firewall.GuardReject {
		l.rule("mangle", chain, isReset, goOn)
	}
	l.rule("mangle", chain, drop)
}

// cutService writes one service's chain for the way back; the way here ends in the guard. A host's own connection to the
// same port of somebody else is neither from us nor translated to our target.
func (l layout) cutService(chain string, s firewall.Service) {
	for _, set := range l.permitted(s) {
		l.rule("mangle", chain, l.toSet(set), goOn)
	}
	if labels(s) {
		l.rule("mangle", chain, labelled, drop)
		return
	}
	if s.Guard == firewall.GuardReject {
		l.rule("mangle", chain, isReset, fromOurs, goOn) // the answer of a closed port, or the end of a connection
	}
	l.rule("mangle", chain, fromOurs, drop)
	if l.target(s) == "" {
		return
	}
	for _, to := range s.Forward.Targets() {
		if at := s.Forward.At(to); to.Addr().Is6() == l.v6 {
			l.rule("mangle", chain, translated,
				fmt.Sprintf("-p %v -s %v --sport %d:%d", at.Proto, to.Addr(), at.First, at.Last), drop)
		}
	}
}
