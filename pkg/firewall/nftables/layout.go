package nftables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

const (
	tableName    = "spad"
	tableComment = "made by spad, changes are lost; spad down removes it"
)

// Names of chains and sets. There is no underscore in a service's name, so guard_NAME and the like never collide.
const (
	guardChain  = "guard"
	dnatChain   = "dstnat" // dnat is a word of nft's language
	cutChain    = "cut"
	srcnatChain = "srcnat"
	permitChain = "permit"
	knockChain  = "knock"
)

// base is a chain where packets come in.
type base struct {
	hook
	comment string
}

// The guard stands after mangle, where others set and restore whole marks, and before destination NAT, where packets
// still have the ports they came for. It drops before conntrack confirms an entry, so a UDP client that was too early
// leaves none behind that would keep the later packets of its flow from being forwarded.
//
// The cut stands after source NAT (100), where an answer has the address again that the client asked, whoever translated
// it: one of ours if it asked us, be the server here, behind our own dnat, or in a container behind Docker's.
var bases = map[string]base{
	guardChain: {hook{nftables.ChainTypeFilter, *nftables.ChainHookPrerouting, -110}, "who has no door gets no further"},
	dnatChain:  {hook{nftables.ChainTypeNAT, *nftables.ChainHookPrerouting, -101}, "doors to hosts behind the router"},
	cutChain:   {hook{nftables.ChainTypeFilter, *nftables.ChainHookPostrouting, 150}, "no answer to who has no door any more"},
	// before others' source NAT, which might take what comes from the LAN for something else
	srcnatChain: {hook{nftables.ChainTypeNAT, *nftables.ChainHookPostrouting, 99}, "answers to the LAN come back this way"},
}

// generation is what the names of one Apply's chains and sets end with, but for the base chains: nothing, or .1 and so on.
//
// Each Apply makes all of them anew beside the old ones, and only then, in a transaction of its own, exchanges the rules
// of the base chains. A packet on its way sees the old ones complete or the new ones complete. One transaction is not
// enough, since what it does is not seen at one moment: for some microseconds the new rules already hold, and the new
// elements are not found yet. Of 590,000 packets of a stranger under 221 exchanges in one transaction 41 got through
// (kernel 6.18), in two transactions none of 2,200,000.
type generation string

func (g generation) of(name string) string { return name + string(g) }

// parseGeneration is the reverse of of.
func parseGeneration(name string) (string, generation) {
	if i := strings.IndexByte(name, '.'); i >= 0 {
		return name[:i], generation(name[i:])
	}
	return name, ""
}

// next returns the first generation of which nothing is there.
func next(names []string) generation {
	for n := 0; ; n++ {
		g := generation("")
		if n > 0 {
			g = generation("." + strconv.Itoa(n))
		}
		if !slices.ContainsFunc(names, func(name string) bool { _, has := parseGeneration(name); return has == g }) {
			return g
		}
	}
}

// needs reports whether a ruleset has rules in the base chain.
func needs(r firewall.Ruleset, base string) bool {
	return base == guardChain || slices.ContainsFunc(r.Services, func(s firewall.Service) bool {
		return base == dnatChain && translates(s) || base == cutChain && s.Cut || base == srcnatChain && r.Hairpins(s)
	})
}

// doorSet is the name of the set of a service's doors, which says all that a later process needs to read it:
// from4_ssh, from6_ssh, and from6-64_ssh for doors of IPv6 prefixes.
func doorSet(s firewall.Service, v6 bool) string {
	switch {
	case !v6:
		return "from4_" + s.Name
	case s.Bits6() == 128:
		return "from6_" + s.Name
	}
	return fmt.Sprintf("from6-%d_%s", s.Bits6(), s.Name)
}

// parseDoorSet is the reverse of doorSet, without the generation.
func parseDoorSet(set string) (service string, bits int, ok bool) {
	kind, service, ok := strings.Cut(set, "_")
	switch {
	case !ok:
		return "", 0, false
	case kind == "from4":
		return service, 32, true
	case kind == "from6":
		return service, 128, true
	}
	length, ok := strings.CutPrefix(kind, "from6-")
	bits, err := strconv.Atoi(length)
	return service, bits, ok && err == nil && bits > 0 && bits < 128
}

// layout writes the static part of the table: everything but the doors.
type layout struct {
	*batch        // all that no packet sees yet
	hooked *batch // base chains and their rules
	firewall.Ruleset
	generation
	standing map[string]bool // base chains that are there already, and stay
}

func (l layout) write() {
	l.networks(alwaysSet, l.AlwaysAllow, "never shut out")
	if needs(l.Ruleset, srcnatChain) {
		l.networks(lanSet, l.LAN, "behind the router")
	}
	l.addChain(l.of(permitChain), "has a door; other tables may accept the mark", nil)
	l.addRule(l.of(permitChain), rule(addMark(l.Mark), accept)...)
	for _, s := range l.Services {
		l.doors(s)
	}
	l.guardStage()
	l.dnatStage()
	l.cutStage()
	l.srcnatStage()
}

func (l layout) doors(s firewall.Service) {
	for _, v6 := range families {
		key := nftables.TypeIPAddr
		if v6 {
			key = nftables.TypeIP6Addr
		}
		l.addSet(set{name: l.of(doorSet(s, v6)), key: key, flags: unix.NFT_SET_TIMEOUT, comment: "doors of " + s.Name})
	}
}

// stage makes a base chain, which sends packets for some ports to chains of their own, by maps: per protocol one for
// single ports, a hash table, and one for ranges, a tree, whose cost grows with its depth.
func (l layout) stage(name string, head [][]part, by func(firewall.Proto, string) []part, targets, holes []target) {
	if !l.standing[name] {
		l.hooked.addChain(name, bases[name].comment, new(bases[name].hook))
	}
	for _, h := range head {
		l.hooked.addRule(name, h...)
	}
	byHole := func(p firewall.Proto, name string) []part { return rule(ipFamily(true), by(p, name)) }
	for _, p := range []firewall.Proto{firewall.TCP, firewall.UDP} {
		l.ports(name, name+"-holes", holes, byHole, p)
		l.ports(name, name, targets, by, p)
	}
}

func (l layout) ports(stage, name string, targets []target, by func(firewall.Proto, string) []part, p firewall.Proto) {
	single, ranges := portElements(p, targets)
	l.dispatch(stage, p.String()+"_"+name, 0, single, by, p)
	l.dispatch(stage, p.String()+"-ranges_"+name, unix.NFT_SET_INTERVAL, ranges, by, p)
}

// dispatch makes a map of ports and the rule that looks into it.
func (l layout) dispatch(stage, name string, flags uint32, elements []element, by func(firewall.Proto, string) []part, p firewall.Proto) {
	if len(elements) == 0 {
		return
	}
	l.addSet(set{
		name: l.of(name), key: nftables.TypeInetService, flags: flags | unix.NFT_SET_MAP, size: len(elements), comment: "whose ports",
	})
	l.elements(unix.NFT_MSG_NEWSETELEM, l.of(name), elements)
	l.hooked.addRule(stage, by(p, l.of(name))...)
}

func (l layout) guardStage() {
	var targets []target
	for _, s := range l.Services {
		permit := l.permit(s)
		if ports := s.Ports(); len(ports) > 0 {
			chain := l.of("guard_" + s.Name)
			l.addChain(chain, describe(s), nil)
			l.addRule(chain, rule(passing(), accept)...)
			l.guard(chain, permit, s)
			targets = appendTargets(targets, chain, ports...)
		}
		if s.Hole().IsValid() {
			chain := l.of("guard-hole_" + s.Name)
			l.addChain(chain, describe(s), nil)
			l.guard(chain, permit, s)
		}
	}
	if l.KnockPort != 0 {
		knock := l.of(knockChain)
		l.addChain(knock, "packets for spad itself", nil)
		l.addRule(knock, rule(passing(), accept)...)
		l.addRule(knock, moveOn(l.of(permitChain))...)
		targets = appendTargets(targets, knock, firewall.Ports{Proto: firewall.UDP, First: l.KnockPort, Last: l.KnockPort})
	}
	l.stage(guardChain, [][]part{
		rule(fromLoopback(), accept),
		rule(direction(reply), accept),
	}, byPort, targets, l.holes(guardChain, l.Services, toHole, toPorts))
}

// permit returns the chain for who may use a service.
func (l layout) permit(s firewall.Service) string {
	permit := l.of(permitChain)
	if labels(s) {
		permit = l.of("permit_" + s.Name)
		l.addChain(permit, describe(s), nil)
		l.addRule(permit, addLabel()...)
		l.addRule(permit, moveOn(l.of(permitChain))...)
	}
	return permit
}

// guard writes one service's chain, for packets to a port of the router, behind a rule for those that only pass, or to a
// host with a pinhole. What is not unicast to another host is for us: broadcast and multicast packets reach sockets too.
func (l layout) guard(chain, permit string, s firewall.Service) {
	for _, from := range l.permitted(s, fromSet) {
		l.addRule(chain, rule(from, moveOn(permit))...)
	}
	switch {
	case s.Guard == firewall.GuardOff && s.Cut:
		l.addRule(chain, rule(labelled(), drop)...)
	case s.Guard != firewall.GuardOff && !s.Cut:
		l.addRule(chain, rule(established(), moveOn(permit))...)
	}
	switch s.Guard {
	case firewall.GuardDrop:
		l.addRule(chain, drop...)
	case firewall.GuardReject:
		l.addRule(chain, rule(proto(firewall.TCP), reset())...)
		l.addRule(chain, unreachable()...)
	case firewall.GuardOff:
		l.addRule(chain, accept...)
	}
}

// labels reports whether a service's connections carry a connection label. Without a guard, others may be connected
// who were never let in by a door, and who must not be cut off.
func labels(s firewall.Service) bool { return s.Cut && s.Guard == firewall.GuardOff }

// translates reports whether a service has a target that packets are translated to.
func translates(s firewall.Service) bool { return s.Forward != nil && len(s.Forward.Targets()) > 0 }

func (l layout) dnatStage() {
	var targets []target
	for _, s := range l.Services {
		if translates(s) {
			chain := l.of("dstnat_" + s.Name)
			l.addChain(chain, describe(s), nil)
			l.dnat(chain, s)
			targets = appendTargets(targets, chain, s.Forward.Port)
		}
	}
	if len(targets) > 0 {
		l.stage(dnatChain, nil, byPort, targets, nil)
	}
}

// dnat writes one service's chain. Its last rule is for what the guard let in and no rule here took: a door that went
// shut between the two, or a family without a target. It must not reach the router's own port.
func (l layout) dnat(chain string, s firewall.Service) {
	l.addRule(chain, rule(notOurs(), accept)...)
	for _, to := range s.Forward.Targets() {
		then := l.translate(s, to)
		for _, from := range l.permittedFamily(s, to.Addr().Is6(), fromSet) {
			l.addRule(chain, rule(proto(s.Forward.Port.Proto), from, then)...)
		}
	}
	if s.Guard != firewall.GuardOff {
		l.addRule(chain, drop...)
	}
}

// translate returns what does the NAT. Several ports that the target has too are kept; to others a map leads.
func (l layout) translate(s firewall.Service, to netip.AddrPort) []part {
	switch f := s.Forward; {
	case f.Port.Count() == 1:
		return dnat(to)
	case !f.Shifts(to):
		return dnatKeeping(to.Addr())
	default:
		elements := shiftElements(f.Port, to.Port())
		name := l.of(shiftMap(s, to.Addr().Is6()))
		l.addSet(set{
			name: name, key: nftables.TypeInetService, data: &nftables.TypeInetService, flags: unix.NFT_SET_MAP, size: len(elements),
			comment: "ports of " + s.Name + " at " + to.Addr().String(),
		})
		l.elements(unix.NFT_MSG_NEWSETELEM, name, elements)
		return dnatByMap(to.Addr(), name)
	}
}

// shiftMap is the name of the map from a forward's ports to those of its target.
func shiftMap(s firewall.Service, v6 bool) string {
	if v6 {
		return "shift6_" + s.Name
	}
	return "shift4_" + s.Name
}

func (l layout) cutStage() {
	var targets []target
	var services []firewall.Service
	for _, s := range l.Services {
		if !s.Cut {
			continue
		}
		services = append(services, s)
		if ports := s.Ports(); len(ports) > 0 {
			chain := l.of("cut_" + s.Name)
			l.addChain(chain, describe(s), nil)
			l.cut(chain, s)
			targets = appendTargets(targets, chain, ports...)
		}
		if s.Hole().IsValid() {
			chain := l.of("cut-hole_" + s.Name)
			l.addChain(chain, describe(s), nil)
			l.cutHole(chain, s)
		}
	}
	if len(services) > 0 {
		l.stage(cutChain, [][]part{
			rule(direction(original), accept),
			rule(toLoopback(), accept),
		}, byOriginalPort, targets, l.holes(cutChain, services, fromHole, fromPorts))
	}
}

// holes writes what leads packets for pinholes to the chains of their services: by port, and then host by host, since
// several may have the same port. What is for none of them goes on.
func (l layout) holes(stage string, services []firewall.Service, host func(firewall.Hole) []part, ports func(firewall.Ports) []part) []target {
	var targets []target
	for _, c := range firewall.Clusters(services) {
		chain := l.of(stage + "-holes_" + strings.ReplaceAll(c.Ports.String(), "/", "-"))
		l.addChain(chain, "pinholes for "+c.Ports.String(), nil)
		for _, s := range c.Services {
			l.addRule(chain, rule(host(s.Hole()), ports(s.Forward.Port), moveOn(l.of(stage+"-hole_"+s.Name)))...)
		}
		targets = append(targets, target{c.Ports, chain, true})
	}
	return targets
}

// cutHole writes one service's chain for the way back from its host.
func (l layout) cutHole(chain string, s firewall.Service) {
	for _, from := range l.permittedFamily(s, true, originallyFromSet) {
		l.addRule(chain, rule(from, accept)...)
	}
	if labels(s) {
		l.addRule(chain, rule(labelled(), drop)...)
		return
	}
	if s.Guard == firewall.GuardReject {
		l.addRule(chain, rule(resetting(), accept)...)
	}
	l.addRule(chain, drop...)
}

// cut writes one service's chain for the way back; the way here ends in the guard. Answers to a connection to the same
// port of somebody else are not from us, even if another program has led it elsewhere.
func (l layout) cut(chain string, s firewall.Service) {
	for _, from := range l.permitted(s, originallyFromSet) {
		l.addRule(chain, rule(from, accept)...)
	}
	if labels(s) {
		l.addRule(chain, rule(labelled(), drop)...)
		return
	}
	if s.Guard == firewall.GuardReject {
		l.addRule(chain, rule(resetting(), fromOurs(), accept)...) // the answer of a closed port, or the end of a connection
	}
	l.addRule(chain, rule(fromOurs(), drop)...)
}

func (l layout) srcnatStage() {
	var targets []target
	for _, s := range l.Services {
		if l.Hairpins(s) {
			chain := l.of("srcnat_" + s.Name)
			l.addChain(chain, describe(s), nil)
			l.hairpin(chain, s)
			targets = appendTargets(targets, chain, s.Forward.Port)
		}
	}
	if len(targets) > 0 {
		l.stage(srcnatChain, nil, byOriginalPort, targets, nil)
	}
}

// hairpin writes one service's chain, for what one of our doors has led to its target.
func (l layout) hairpin(chain string, s firewall.Service) {
	for _, to := range s.Forward.Targets() {
		v6 := to.Addr().Is6()
		if !slices.ContainsFunc(l.LAN, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 }) {
			continue
		}
		for _, from := range l.permittedFamily(s, v6, fromSet) {
			l.addRule(chain, rule(fromSet(v6, l.of(lanSet(v6)), 128), translated(), toAddr(to.Addr()), toPorts(s.Forward.At(to)), from, masquerade())...)
		}
	}
}

var families = []bool{false, true} // v6

// permitted returns the matches for every source that may use the service, as a rule's first parts.
func (l layout) permitted(s firewall.Service, match func(v6 bool, set string, bits int) []part) [][]part {
	var all [][]part
	for _, v6 := range families {
		all = append(all, l.permittedFamily(s, v6, match)...)
	}
	return all
}

func (l layout) permittedFamily(s firewall.Service, v6 bool, match func(bool, string, int) []part) [][]part {
	all := [][]part{match(v6, l.of(doorSet(s, v6)), s.Bits6())}
	if slices.ContainsFunc(l.AlwaysAllow, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 }) {
		all = append(all, match(v6, l.of(alwaysSet(v6)), 128))
	}
	return all
}

// describe is a chain's comment: what the service is. A comment takes 255 bytes at most.
func describe(s firewall.Service) string {
	text := s.Name + ":"
	for _, p := range s.Open {
		text += " " + p.String()
	}
	if s.Forward != nil {
		text += " " + s.Forward.Port.String() + " to"
		if h := s.Forward.Hole; h.IsValid() {
			text += " " + h.String() + " itself"
		}
		for _, to := range s.Forward.Targets() {
			text += " " + to.String()
			if at := s.Forward.At(to); at.Count() > 1 {
				text += fmt.Sprintf("-%d", at.Last)
			}
		}
	}
	if len(text) > 120 {
		text = text[:117] + "..."
	}
	return text
}
