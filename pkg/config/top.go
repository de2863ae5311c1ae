package config

import (
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"strings"

	"spad/pkg/firewall"
	"spad/pkg/flood"
	"spad/pkg/policy"
)

// config reads the whole file. What it returns is of use only if there was no problem.
func (r *reader) config(data []byte) *Config {
	t, ok := r.decode(data)
	if !ok {
		return nil
	}
	t.unknown()
	c := &Config{
		Path:         r.file,
		Firewall:     t.choice("firewall", []string{"nftables", "iptables"}, "command"),
		Capture:      t.choice("capture", []string{"udp"}, "sniff", "xdp"),
		KeyFile:      keyPath(r.file, DefaultKeyFile),
		Mark:         t.mark(),
		AlwaysAllow:  t.alwaysAllow(),
		Limits:       t.budget(),
		TestLoopback: t.truth("test_loopback", false),
		LogJSON:      t.choice("log", []string{"text", "json"}) == "json",
	}
	c.IPTables = t.iptables(c.Firewall)
	t.addresses(c)
	c.Window, _ = t.duration("window", DefaultWindow, MinWindow, MaxWindow)
	c.LAN = t.lan()
	services := t.services(c.Port, c.LAN)
	groups := t.groups(services)
	c.Doors = services.doors()
	c.Devices = t.devices(services, groups)
	c.Webhooks, c.Execs = t.webhooks(), t.execs()
	if len(r.problems.List) == 0 {
		r.rules(c, services, groups)
	}
	return c
}

// rules makes the rules of policy, which checks its values once more; that it finds something would be a gap here.
func (r *reader) rules(c *Config, services services, groups []policy.Group) {
	var err error
	if c.Rules, err = policy.NewRules(services.policies(), groups); err != nil {
		r.problemAt(1, nil, plain(err.Error()), "please report this")
	}
}

// addresses reads where the router is knocked at, and where its key is.
func (t table) addresses(c *Config) {
	c.Listen, c.Port = t.listen()
	if name, ok := t.text("hostname", "home.example.net"); ok {
		if what, remedy := checkHost(name); what != "" {
			t.bad("hostname", what, remedy)
		}
		c.Hostname = name
	}
	if addr, ok := t.text("external", "home.example.net:41372"); ok {
		if what, remedy := checkExternal(addr); what != "" {
			t.bad("external", what, remedy)
		}
		c.External = addr
	}
	if key, ok := t.text("key", DefaultKeyFile); ok {
		if key == "" || strings.Contains(key, "\x00") {
			t.bad("key", quote(key)+" is no path", fmt.Sprintf("drop the line, or write key = %q", DefaultKeyFile))
		}
		c.KeyFile = keyPath(t.file, key)
	}
	c.Remote = t.remote()
}

func (t table) listen() (string, uint16) {
	const example = ":41372"
	text, ok := t.text("listen", example)
	host, port, colon := strings.Cut(text, ":")
	n, valid := parsePort(port)
	if last := strings.LastIndexByte(text, ':'); last > 0 {
		host = text[:last]
	}
	switch _, present := t.keys["listen"]; {
	case !present:
		t.bad("listen", "is missing", fmt.Sprintf("write the UDP port to knock at, such as listen = %q", example))
	case !ok:
	case colon && host != "":
		t.bad("listen", quote(text)+" names an address", fmt.Sprintf("spad listens on every address: write the port alone, such as %q", example))
	case !colon || !valid:
		t.bad("listen", quote(text)+" is no port", fmt.Sprintf("write a colon and a number from 1 to 65535, such as %q", example))
	default:
		return text, n
	}
	return "", 0
}

func checkExternal(addr string) (what, remedy string) {
	const example = `write "HOST:PORT", such as "home.example.net:41372" or "[2001:db8::1]:41372"`
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return quote(addr) + " is no host and port", example
	}
	if _, ok := parsePort(port); !ok {
		return quote(addr) + " has no port from 1 to 65535", example
	}
	if what, _ := checkHost(host); what != "" || net.JoinHostPort(host, port) != addr {
		return quote(addr) + " has no valid host", example
	}
	return "", ""
}

// iptables reads which iptables to use; nothing: the backend finds out.
func (t table) iptables(firewall string) string {
	if _, present := t.keys["iptables"]; !present {
		return ""
	}
	if firewall != "iptables" {
		t.bad("iptables", "says nothing, since the firewall is "+quote(firewall), `drop the line, or write firewall = "iptables"`)
	}
	return t.choice("iptables", []string{"nft", "legacy"})
}

func (t table) mark() uint32 {
	n, ok := t.number("mark", 1, 1<<32-1)
	if !ok {
		return DefaultMark
	}
	if bits.OnesCount64(uint64(n)) != 1 {
		t.bad("mark", fmt.Sprintf("%#x has %d bits", n, bits.OnesCount64(uint64(n))),
			fmt.Sprintf("write a number of one bit, such as %#x", DefaultMark))
	}
	return uint32(n)
}

func (t table) alwaysAllow() []netip.Prefix {
	var networks []netip.Prefix
	for _, p := range t.networks("always_allow") {
		if p.network.Bits() == 0 {
			t.badItem("always_allow", p.i, p.network.String()+" is everybody, so that nothing would be hidden",
				`name only the networks that you trust, such as "192.168.1.0/24"`)
		}
		networks = append(networks, p.network)
	}
	return outermost(networks)
}

// lan reads the networks behind the router. If one is wrong there are none, since all else would seem to be outside.
func (t table) lan() []netip.Prefix {
	var networks []netip.Prefix
	all := t.networks("lan")
	for _, p := range all {
		if p.network.Bits() == 0 {
			t.badItem("lan", p.i, p.network.String()+" is the whole internet", `name only the networks behind the router, such as "192.168.1.0/24"`)
		}
		networks = append(networks, p.network)
	}
	v, isList := t.keys["lan"].([]any)
	switch {
	case isList && len(v) == 0:
		t.bad("lan", "the list is empty, so that no host would be behind the router", "name the networks, or drop the line")
	case len(all) < len(v):
		return nil
	}
	return outermost(networks)
}

// outermost returns networks in order without those within another: sets of intervals take no overlaps.
func outermost(networks []netip.Prefix) []netip.Prefix {
	slices.SortFunc(networks, netip.Prefix.Compare)
	var kept []netip.Prefix
	for _, p := range networks { // an outer network sorts before what is in it
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// network is one of a list, with its index.
type network struct {
	i       int
	network netip.Prefix
}

func (t table) networks(key string) []network {
	var networks []network
	for _, item := range t.texts(key, "192.168.1.0/24") {
		p, what, remedy := parseNetwork(item.text)
		if what != "" {
			t.badItem(key, item.i, what, remedy)
			continue
		}
		networks = append(networks, network{item.i, p})
	}
	return networks
}

// guard reads what happens to those without a door.
func (t table) guard(normal firewall.Guard) firewall.Guard {
	if _, present := t.keys["guard"]; !present {
		return normal
	}
	guards := []string{firewall.GuardDrop.String(), firewall.GuardReject.String(), firewall.GuardOff.String()}
	return firewall.Guard(slices.Index(guards, t.choice("guard", guards)))
}

// ipv6Prefix reads how wide an IPv6 door is.
func (t table) ipv6Prefix(normal int) int {
	if n, ok := t.number("ipv6_prefix", policy.MinIPv6Prefix, 128); ok {
		return int(n)
	}
	return normal
}

// budget reads the limits of public-key work.
func (t table) budget() flood.Limits {
	limits := flood.DefaultLimits()
	b, ok := t.table("budget", budgetKind, `a table, such as budget = { source = "10/s", burst = 32 }`)
	if !ok {
		return limits
	}
	b.rate(&limits.Source, "source", "burst")
	b.rate(&limits.Global, "global", "global_burst")
	b.share(&limits.ReservedShare, "reserved")
	return limits
}

// share reads a fraction; 0 may be written without a point.
func (t table) share(share *float64, key string) {
	const remedy = "write a fraction from 0.0 to 0.9, such as reserved = 0.25"
	f, isFraction := t.keys[key].(float64)
	n, isNumber := t.keys[key].(int64)
	f += float64(n)
	switch v, present := t.keys[key]; {
	case !present:
	case !isFraction && !isNumber:
		t.bad(key, "is "+typeOf(v), remedy)
	case !(f >= 0 && f <= 0.9): // this way round, so that NaN is out
		t.bad(key, fmt.Sprintf("%v is out of bounds", v), remedy)
	default:
		*share = f
	}
}

// maxRate bounds budgets: more than any processor can do in a second.
const maxRate = 1_000_000

func (t table) rate(rate *flood.Rate, perSecond, burst string) {
	if text, ok := t.text(perSecond, fmt.Sprintf("%v/s", rate.PerSecond)); ok {
		n, ok := parseRate(text)
		if !ok || n < 1 || n > maxRate {
			t.bad(perSecond, quote(text)+" is no rate", fmt.Sprintf(`write packets a second, from "1/s" to "%d/s"`, maxRate))
		}
		rate.PerSecond = float64(n)
	}
	if n, ok := t.number(burst, 1, maxRate); ok {
		rate.Burst = int(n)
	}
}
