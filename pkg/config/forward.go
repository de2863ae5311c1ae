package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"spad/pkg/firewall"
)

// forward reads what is forwarded, and where to.
func (s *service) forward() {
	const example = `forward = { port = "tcp/7890", to = "192.168.1.50:80" }`
	f, ok := s.table.table("forward", forwardKind, "a table, such as "+example)
	if !ok {
		return
	}
	_, pinhole := f.keys["pinhole"]
	for _, key := range []string{"port", "to"} {
		if _, present := f.keys[key]; !present && (key == "port" || !pinhole) {
			f.bad(key, "is missing", "write "+example)
		}
	}
	s.door.Forward = &firewall.Forward{}
	if text, ok := f.text("port", "tcp/7890"); ok {
		p, err := firewall.ParsePorts(text)
		if err != nil {
			f.bad("port", quote(text)+" is no port", portRule)
		}
		s.door.Forward.Port = p
	}
	f.targets(s.door.Forward, s.lan)
	f.pinhole(s.door.Forward)
	s.policy.IPv4, s.policy.IPv6 = s.door.Forward.To4.IsValid(), s.door.Forward.To6.IsValid() || pinhole
	s.policy.Pinhole = pinhole
	for _, p := range []struct {
		on bool
		at firewall.Hole
	}{{!pinhole || len(s.door.Forward.Targets()) > 0, firewall.Hole{}}, {s.door.Forward.Hole.IsValid(), s.door.Forward.Hole}} {
		if p.on {
			s.claims = append(s.claims, claim{s.door.Forward.Port, p.at, f.lines.of(f.at("port")...), f.at("port")})
		}
	}
}

// pinhole reads the address of a host that IPv6 leads to without translation.
func (t table) pinhole(f *firewall.Forward) {
	const example = `write the host's own address, such as "2001:db8:5::50", or the end of it, such as "::50/-64" for the last 64 bits`
	text, ok := t.text("pinhole", "2001:db8:5::50")
	if !ok {
		return
	}
	h, err := firewall.ParseHole(text)
	switch whole, _ := netip.ParseAddr(text); {
	case whole.Is4() || whole.Is4In6():
		t.bad("pinhole", quote(text)+" is IPv4, which has no pinholes", `name it in to, such as to = "192.168.1.50:443"`)
	case whole.IsPrivate():
		t.bad("pinhole", quote(text)+" is an address that nobody outside reaches", "name the host's global address, such as \"2001:db8:5::50\", or use to instead of pinhole")
	case err != nil:
		t.bad("pinhole", quote(text)+" is no global IPv6 address and no end of one of 64 bits or more", example)
	case f.To6.IsValid():
		t.bad("pinhole", fmt.Sprintf("over IPv6 there is a target too, %v", f.To6), "keep one of them: to translates the address, a pinhole leaves it")
	default:
		f.Hole = h
	}
}

// targets reads where a forward goes: a text, or a list of one per family.
func (t table) targets(f *firewall.Forward, lan []netip.Prefix) {
	if text, ok := t.keys["to"].(string); ok {
		t.target(f, text, lan, func(what, remedy string) { t.bad("to", what, remedy) })
		return
	}
	list := t.texts("to", "192.168.1.50:80")
	if v, isList := t.keys["to"].([]any); isList && len(v) == 0 {
		t.bad("to", "the list is empty", `name the host, such as to = "192.168.1.50:80"`)
	}
	for _, item := range list {
		t.target(f, item.text, lan, func(what, remedy string) { t.badItem("to", item.i, what, remedy) })
	}
}

func (t table) target(f *firewall.Forward, text string, lan []netip.Prefix, bad func(what, remedy string)) {
	to, last, ok := parseTarget(text)
	if !ok {
		bad(quote(text)+" is no address and port", `write "192.168.1.50:80", "[fd00::5]:80" or "192.168.1.50:9000-9010": an address, not a name`)
		return
	}
	what, remedy := checkTarget(to)
	if what == "" && f.Port.First != 0 {
		what, remedy = checkLength(*f, to, last)
	}
	if what == "" {
		what, remedy = checkInside(to.Addr(), lan)
	}
	if what != "" {
		bad(what, remedy)
		return
	}
	family, place := "IPv4", &f.To4
	if to.Addr().Is6() {
		family, place = "IPv6", &f.To6
	}
	if place.IsValid() {
		bad(fmt.Sprintf("a second %s target: %v and %v", family, *place, to), "name one target for IPv4 and one for IPv6 at most")
		return
	}
	*place = to
}

// parseTarget reads an address and a port, or an address and a range of ports: then last is above the port of to.
func parseTarget(text string) (to netip.AddrPort, last uint16, ok bool) {
	colon := strings.LastIndexByte(text, ':')
	first, end, ranged := strings.Cut(text[colon+1:], "-")
	to, err := netip.ParseAddrPort(text[:colon+1] + first)
	if err != nil || !ranged {
		return to, to.Port(), err == nil
	}
	last, ok = parsePort(end)
	return to, last, ok && last > to.Port()
}

// checkLength refuses a target that has not as many ports as the router, and more of them than can be shifted.
func checkLength(f firewall.Forward, to netip.AddrPort, last uint16) (what, remedy string) {
	n, at := f.Port.Count(), int(last)-int(to.Port())+1
	same := netip.AddrPortFrom(to.Addr(), f.Port.First)
	switch {
	case n == at && f.Shifts(to) && n > firewall.MaxShifted:
		return fmt.Sprintf("%d ports lead to others", n), fmt.Sprintf("let them lead to the same ports, as %q, or forward %d at most",
			rangeText(same, n), firewall.MaxShifted)
	case n == at:
		return "", ""
	case int(to.Port())+n-1 > 65535:
		to = same
	}
	return fmt.Sprintf("%v is %s and leads to %d", f.Port, plural(n, "port"), at), fmt.Sprintf("write as many on both sides, as %q", rangeText(to, n))
}

// checkInside refuses a target that is not behind the router, where the file says what is.
func checkInside(to netip.Addr, lan []netip.Prefix) (what, remedy string) {
	if len(lan) == 0 || slices.ContainsFunc(lan, func(p netip.Prefix) bool { return p.Contains(to) }) {
		return "", ""
	}
	var inside []string
	for _, p := range lan {
		inside = append(inside, p.String())
	}
	bits := 24
	if to.Is6() {
		bits = 64
	}
	missing, _ := to.Prefix(bits) // no address fails for these lengths
	return fmt.Sprintf("%v is not behind the router: lan is %s", to, strings.Join(inside, ", ")),
		fmt.Sprintf("name a host in there, or add its network to lan, such as %q", missing)
}

// rangeText writes a target of so many ports as parseTarget reads it.
func rangeText(to netip.AddrPort, n int) string {
	if n == 1 {
		return to.String()
	}
	return fmt.Sprintf("%v-%d", to, int(to.Port())+n-1)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// checkTarget refuses addresses that no host behind the router can have.
func checkTarget(to netip.AddrPort) (what, remedy string) {
	const remote = "name the host behind the router, such as 192.168.1.50:80"
	switch a := to.Addr(); {
	case to.Port() == 0:
		return fmt.Sprintf("%v has port 0", to), "write a port from 1 to 65535"
	case a.Is4In6():
		return fmt.Sprintf("%v is IPv4 written as IPv6", to), "write " + netip.AddrPortFrom(a.Unmap(), to.Port()).String()
	case a.IsLoopback():
		return fmt.Sprintf("%v is the router itself", to), "to open a port of the router use open instead of forward"
	case a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		return fmt.Sprintf("%v is no host's address", to), remote
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Sprintf("%v is the address of many hosts", to), remote
	case a.Zone() != "" || a.Is6() && a.IsLinkLocalUnicast():
		what = quote(to.String()) + " is a link-local address, which packets are not forwarded to"
		return what, "name an address of the host that is routed"
	}
	return "", ""
}
