package config

import (
	"cmp"
	"fmt"
	"slices"

	"spad/pkg/firewall"
	"spad/pkg/wire"
)

// ids notes services whose ids in the packet are equal.
func (s services) ids() {
	taken := map[wire.ServiceID]string{}
	for _, one := range s {
		id := wire.ServiceIDOf(one.name())
		if other, found := taken[id]; found {
			one.problem(one.path, fmt.Sprintf("the name has the same id in the packet as %q", other), "choose another name for one of the two")
		}
		taken[id] = one.name()
	}
}

// claim is a range of ports and who has it.
type claim struct {
	firewall.Ports
	host firewall.Hole // whose ports; the zero value: the router's
	line int           // 0 for the knock port
	path []string      // of the key that names it; empty for the knock port
}

func (c claim) owner() string {
	if len(c.path) == 0 {
		return "the knock port (listen)"
	}
	return dotted(c.path)
}

// clashes reports whether two claims want the same port of the same host.
func (c claim) clashes(other claim) bool {
	return c.Overlaps(other.Ports) && (c.host == other.host || c.host.Overlaps(other.host))
}

// what says which ports.
func (c claim) what() string {
	if c.host.IsValid() {
		return fmt.Sprintf("%v at %v", c.Ports, c.host)
	}
	return c.Ports.String()
}

// maxOverlaps bounds how many overlaps are listed: there can be as many as pairs of ports.
const maxOverlaps = 100

// overlaps notes ports that two services have, or one twice, or that knocks come to. Of two claims the one further down
// in the file gets the blame.
func (t table) overlaps(all services, knockPort uint16) {
	var claims []claim
	if knockPort != 0 {
		claims = append(claims, claim{Ports: firewall.Ports{Proto: firewall.UDP, First: knockPort, Last: knockPort}})
	}
	for _, one := range all {
		claims = append(claims, one.claims...)
	}
	slices.SortStableFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	})
	found := 0
	for i, c := range claims {
		for _, other := range claims[i+1:] {
			if !c.Overlaps(other.Ports) || found == maxOverlaps {
				break // those after it begin later still
			}
			if c.clashes(other) {
				t.overlap(c, other)
				found++
			}
		}
	}
}

// overlap blames the later of two claims. The knock port has no line and is never to blame.
func (t table) overlap(first, second claim) {
	if first.line > second.line {
		first, second = second, first
	}
	what := fmt.Sprintf("%s overlaps %s of %s", second.what(), first.what(), first.owner())
	t.problemAt(second.line, second.path, what, "let every port belong to one service")
}
