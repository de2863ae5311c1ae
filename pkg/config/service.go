package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"spad/pkg/firewall"
	"spad/pkg/policy"
	"spad/pkg/wire"
)

// service is one service in the making.
type service struct {
	table
	policy policy.Service
	door   firewall.Service
	lan    []netip.Prefix
	claims []claim // the same ports as in door, and where each is written
}

// services are those of one file, by name.
type services []service

func (s services) names() []string {
	var names []string
	for _, one := range s {
		names = append(names, one.name())
	}
	return names
}

func (s services) doors() []firewall.Service {
	var doors []firewall.Service
	for _, one := range s {
		doors = append(doors, one.door)
	}
	return doors
}

func (s services) policies() []policy.Service {
	var all []policy.Service
	for _, one := range s {
		all = append(all, one.policy)
	}
	return all
}

// services reads all services. Ports must belong to one of them, or to knocks.
func (t table) services(knockPort uint16, lan []netip.Prefix) services {
	guard, ipv6Prefix := t.guard(firewall.GuardDrop), t.ipv6Prefix(128)
	var all services
	for _, in := range t.tables("service", serviceKind) {
		s := service{table: in, lan: lan}
		s.read(guard, ipv6Prefix)
		all = append(all, s)
	}
	all.ids()
	t.overlaps(all, knockPort)
	return all
}

func (s *service) read(guard firewall.Guard, ipv6Prefix int) {
	s.checkName()
	s.planned("proxy", "a proxied site", "use forward, or open the port of the site")
	s.door = firewall.Service{
		Name:       s.name(),
		Guard:      s.guard(guard),
		Cut:        s.choice("on_expire", []string{"keep", "cut"}) == "cut",
		IPv6Prefix: s.ipv6Prefix(ipv6Prefix),
	}
	s.policy = policy.Service{Name: s.name(), Roam: s.truth("roam", true), IPv6Prefix: s.door.IPv6Prefix}
	s.times()
	s.doors()
	s.policy.Port = onePort(s.door)
}

// checkName notes names that no packet can carry, and those that knock takes for commands.
func (s *service) checkName() {
	name := s.name()
	switch simple := strings.ToLower(strings.ReplaceAll(name, "_", "-")); {
	case slices.Contains(reserved, name):
		s.problem(s.path, quote(name)+" is a command of knock", "choose another name for the service")
	case wire.ValidName(name):
	case wire.ValidName(simple) && !slices.Contains(reserved, simple):
		s.problem(s.path, quote(name)+" can't be the name of a service", fmt.Sprintf("write it as [service.%s]", simple))
	default:
		s.problem(s.path, quote(name)+" can't be the name of a service", nameRule)
	}
}

const nameRule = "use 1 to 32 of a-z, 0-9 and -, and no - at the start"

// times reads ttl and max_ttl.
func (s *service) times() {
	ttl, ok := s.duration("ttl", DefaultTTL, policy.MinTTL, policy.MaxTTL)
	most := max(DefaultMaxTTL, ttl)
	if _, given := s.keys["max_ttl"]; given {
		var good bool
		most, good = s.duration("max_ttl", DefaultMaxTTL, policy.MinTTL, policy.MaxTTL)
		if ok && good && most < ttl {
			s.bad("max_ttl", fmt.Sprintf("%s is shorter than ttl, which is %s", short(most), short(ttl)),
				fmt.Sprintf("write at least %q, or a shorter ttl", short(ttl)))
		}
	}
	s.policy.TTL, s.policy.MaxTTL = ttl, most
}

// doors reads what the service opens: exactly one kind of door.
func (s *service) doors() {
	_, open := s.keys["open"]
	_, forward := s.keys["forward"]
	_, proxy := s.keys["proxy"]
	switch {
	case open && forward:
		s.bad("forward", "the service has open too", "keep one of them, and make a second service for the other")
	case !open && !forward && !proxy:
		s.problem(s.path, "the service opens nothing",
			`write open = ["tcp/22"], or forward = { port = "tcp/7890", to = "192.168.1.50:80" }`)
	}
	if open {
		s.open()
		s.policy.IPv4, s.policy.IPv6 = true, true
	}
	if forward {
		s.forward()
	}
}

func (s *service) open() {
	list := s.texts("open", "tcp/22")
	if v, isList := s.keys["open"].([]any); isList && len(v) == 0 {
		s.bad("open", "the list is empty", `name the ports, such as open = ["tcp/22", "udp/60000-61000"]`)
	}
	for _, item := range list {
		p, err := firewall.ParsePorts(item.text)
		if err != nil {
			s.badItem("open", item.i, quote(item.text)+" is no port", portRule)
			continue
		}
		s.door.Open = append(s.door.Open, p)
		s.claims = append(s.claims, claim{p, firewall.Hole{}, s.itemLine("open", item.i), s.at("open")})
	}
}

const portRule = `write "tcp/22" or "udp/60000-61000": tcp or udp, and ports from 1 to 65535, the lower first`

// onePort returns the public port if the service has exactly one.
func onePort(s firewall.Service) uint16 {
	ports := s.Ports()
	if len(ports) != 1 || ports[0].First != ports[0].Last {
		return 0
	}
	return ports[0].First
}
