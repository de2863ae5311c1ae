package firewall_test

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"spad/pkg/firewall"
)

func TestParsePorts(t *testing.T) {
	for text, want := range map[string]firewall.Ports{
		"tcp/22":          {Proto: firewall.TCP, First: 22, Last: 22},
		"udp/60000-61000": {Proto: firewall.UDP, First: 60000, Last: 61000},
		"tcp/1-65535":     {Proto: firewall.TCP, First: 1, Last: 65535},
	} {
		got, err := firewall.ParsePorts(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParsePorts(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "22", "tcp", "tcp/", "tcp/0", "tcp/022", "tcp/+22", "tcp/65536", "TCP/22", "sctp/22", "tcp/22-", "tcp/-22",
		"tcp/22-22", "tcp/23-22", "tcp/1-2-3", " tcp/22", "tcp/22 ", "tcp/ssh", "tcp/22/udp", "tcp/1_0",
	} {
		if got, err := firewall.ParsePorts(text); err == nil {
			t.Errorf("ParsePorts(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, seed := range []string{"tcp/22", "udp/60000-61000", "tcp/022"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := firewall.ParsePorts(text); err == nil && p.String() != text {
			t.Errorf("%q parses and is written %q", text, p)
		}
	})
}

func TestPortsOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"tcp/22", "tcp/22", true},
		{"tcp/22", "udp/22", false},
		{"tcp/22", "tcp/23", false},
		{"tcp/20-22", "tcp/22-30", true},
		{"tcp/1-100", "tcp/50", true},
		{"tcp/20-21", "tcp/22-30", false},
	} {
		a, b := ports(t, c.a), ports(t, c.b)
		if a.Overlaps(b) != c.want || b.Overlaps(a) != c.want {
			t.Errorf("%v and %v: overlap is not %v", a, b, c.want)
		}
	}
	if r := ports(t, "tcp/20-22"); !r.Contains(firewall.TCP, 22) || r.Contains(firewall.TCP, 23) || r.Contains(firewall.UDP, 22) {
		t.Error("Contains is wrong about tcp/20-22")
	}
}

func ports(t *testing.T, text string) firewall.Ports {
	t.Helper()
	p, err := firewall.ParsePorts(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func good(t *testing.T) firewall.Ruleset {
	return firewall.Ruleset{
		Services: []firewall.Service{
			{Name: "ssh", Open: []firewall.Ports{ports(t, "tcp/22")}, IPv6Prefix: 64},
			{Name: "nas", Forward: &firewall.Forward{Port: ports(t, "tcp/7890"), To4: netip.MustParseAddrPort("192.168.1.50:80")}},
		},
		KnockPort: 41372, Mark: 0x100000, AlwaysAllow: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
	}
}

func forward(t *testing.T, port, to string) firewall.Forward {
	return firewall.Forward{Port: ports(t, port), To4: netip.MustParseAddrPort(to)}
}

func TestForwardedPorts(t *testing.T) {
	for _, c := range []struct {
		port, to, want string
		shifts         bool
	}{
		{"tcp/80", "192.168.1.50:80", "tcp/80", false},
		{"tcp/7890", "192.168.1.50:80", "tcp/80", true},
		{"udp/8000-8010", "192.168.1.50:9000", "udp/9000-9010", true},
		{"tcp/2-65535", "192.168.1.50:2", "tcp/2-65535", false},
		{"tcp/1-1024", "192.168.1.50:64512", "tcp/64512-65535", true},
	} {
		f := forward(t, c.port, c.to)
		if got := f.At(f.To4); got != ports(t, c.want) || f.Shifts(f.To4) != c.shifts {
			t.Errorf("%s to %s: at %v, shifts %v", c.port, c.to, got, f.Shifts(f.To4))
		}
		if err := (firewall.Ruleset{Mark: 1, Services: []firewall.Service{{Name: "nas", Forward: &f}}}).Check(); err != nil {
			t.Error(err)
		}
	}
}

func TestRulesetCheck(t *testing.T) {
	if err := good(t).Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		spoil      func(*firewall.Ruleset)
	}{
		{"no mark", "exactly one bit", func(r *firewall.Ruleset) { r.Mark = 0 }},
		{"two bits", "exactly one bit", func(r *firewall.Ruleset) { r.Mark = 3 }},
		{"host bits", "host bits", func(r *firewall.Ruleset) { r.AlwaysAllow[0] = netip.MustParsePrefix("192.168.1.1/24") }},
		{"invalid network", "always_allow", func(r *firewall.Ruleset) { r.AlwaysAllow[0] = netip.Prefix{} }},
		{"LAN host bits", "lan 192.168.1.1/24", func(r *firewall.Ruleset) { r.LAN = []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")} }},
		{"outside the LAN", "in none of the networks", func(r *firewall.Ruleset) {
			r.LAN = []netip.Prefix{netip.MustParsePrefix("192.168.2.0/24"), netip.MustParsePrefix("fd00::/64")}
		}},
		{"empty name", "a name is", func(r *firewall.Ruleset) { r.Services[0].Name = "" }},
		{"long name", "a name is", func(r *firewall.Ruleset) { r.Services[0].Name = strings.Repeat("a", 33) }},
		{"strange name", "a name is", func(r *firewall.Ruleset) { r.Services[0].Name = "a\"b" }},
		{"leading dash", "a name is", func(r *firewall.Ruleset) { r.Services[0].Name = "-a" }},
		{"name twice", "used twice", func(r *firewall.Ruleset) { r.Services[0].Name = "nas" }},
		{"no port", "opens no port", func(r *firewall.Ruleset) { r.Services[0].Open = nil }},
		{"port 0", "want 1 to 65535", func(r *firewall.Ruleset) { r.Services[0].Open[0].First = 0 }},
		{"protocol", "tcp or udp", func(r *firewall.Ruleset) { r.Services[0].Open[0].Proto = 1 }},
		{"overlap", "tcp/7890 overlaps tcp/7000-8000", func(r *firewall.Ruleset) { r.Services[0].Open[0] = ports(t, "tcp/7000-8000") }},
		{"knock port", "the knock port", func(r *firewall.Ruleset) { r.Services[0].Open[0] = ports(t, "udp/41372") }},
		{"guard", "unknown guard", func(r *firewall.Ruleset) { r.Services[0].Guard = 3 }},
		{"prefix length", "prefix length 129", func(r *firewall.Ruleset) { r.Services[0].IPv6Prefix = 129 }},
		{"forward behind the last port", "65535", func(r *firewall.Ruleset) { *r.Services[1].Forward = forward(t, "tcp/1-3", "192.168.1.50:65534") }},
		{"many ports shifted", "at most 1024", func(r *firewall.Ruleset) { *r.Services[1].Forward = forward(t, "tcp/1-1025", "192.168.1.50:2") }},
		{"no target", "without a target", func(r *firewall.Ruleset) { r.Services[1].Forward.To4 = netip.AddrPort{} }},
		{"target family", "IPv4 address", func(r *firewall.Ruleset) { r.Services[1].Forward.To4 = netip.MustParseAddrPort("[::1]:80") }},
		{"target mapped", "IPv6 address", func(r *firewall.Ruleset) { r.Services[1].Forward.To6 = netip.MustParseAddrPort("[::ffff:1.2.3.4]:80") }},
		{"target zone", "without zone", func(r *firewall.Ruleset) { r.Services[1].Forward.To6 = netip.MustParseAddrPort("[fe80::1%eth0]:80") }},
		{"target port", "and a port", func(r *firewall.Ruleset) { r.Services[1].Forward.To4 = netip.MustParseAddrPort("192.168.1.50:0") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good(t)
			c.spoil(&r)
			if err := r.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
	r := good(t)
	r.Mark, r.Services[0].Name, r.Services[1].IPv6Prefix = 0, "UP", -1
	if lines := strings.Count(r.Check().Error(), "\n") + 1; lines != 3 {
		t.Errorf("three problems, %d lines", lines)
	}
}

// A range that reaches over several others is found with each of them, whatever stands in between.
func TestOverlaps(t *testing.T) {
	r := good(t)
	r.Services = nil
	for i, text := range []string{"tcp/10-90", "udp/20", "tcp/20", "tcp/30-40", "tcp/91", "tcp/80-100"} {
		r.Services = append(r.Services, firewall.Service{Name: string(rune('a' + i)), Open: []firewall.Ports{ports(t, text)}})
	}
	want := strings.Join([]string{
		`service "c": tcp/20 overlaps tcp/10-90 of service "a"`,
		`service "d": tcp/30-40 overlaps tcp/10-90 of service "a"`,
		`service "f": tcp/80-100 overlaps tcp/10-90 of service "a"`,
		`service "f": tcp/80-100 overlaps tcp/91 of service "e"`,
	}, "\n")
	if err := r.Check(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// BenchmarkMany is what Apply does before it turns to the kernel.
func BenchmarkMany(b *testing.B) {
	r := firewall.Ruleset{Mark: 1}
	for i := range 1000 {
		port := uint16(1000 + i)
		r.Services = append(r.Services, firewall.Service{
			Name: "s" + strconv.Itoa(i), Open: []firewall.Ports{{Proto: firewall.TCP, First: port, Last: port}},
		})
	}
	doors := make([]firewall.Door, 100_000)
	for i := range doors {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		doors[i] = firewall.Door{Service: r.Services[i%1000].Name, Source: netip.PrefixFrom(a, 32), TTL: time.Hour}
	}
	b.Run("check of 1000 services", func(b *testing.B) {
		for b.Loop() {
			if err := r.Check(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check of 100000 doors", func(b *testing.B) {
		for b.Loop() {
			if err := r.Index().Doors(doors, true); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestRulesetDoor(t *testing.T) {
	r := good(t)
	for _, c := range []struct {
		name, service, source string
		ttl                   time.Duration
		want                  error
	}{
		{"v4", "ssh", "192.0.2.1/32", time.Second, nil},
		{"v6 of the service", "ssh", "2001:db8::/64", firewall.MaxTTL, nil},
		{"v6 whole", "nas", "2001:db8::1/128", time.Second, nil},
		{"unknown", "web", "192.0.2.1/32", time.Second, firewall.ErrUnknownService},
		{"network", "ssh", "192.0.2.0/24", time.Second, firewall.ErrSource},
		{"wrong length", "ssh", "2001:db8::1/128", time.Second, firewall.ErrSource},
		{"not masked", "ssh", "2001:db8::1/64", time.Second, firewall.ErrSource},
		{"mapped", "nas", "::ffff:192.0.2.1/128", time.Second, firewall.ErrSource},
		{"no time", "ssh", "192.0.2.1/32", 0, firewall.ErrTTL},
		{"past", "ssh", "192.0.2.1/32", -time.Second, firewall.ErrTTL},
		{"too long", "ssh", "192.0.2.1/32", firewall.MaxTTL + 1, firewall.ErrTTL},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := firewall.Door{Service: c.service, Source: netip.MustParsePrefix(c.source), TTL: c.ttl}
			if err := r.Door(d, true); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := r.Index().Doors([]firewall.Door{d}, true); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("by index: got %v, want %v", err, c.want)
			}
		})
	}
	if err := r.Door(firewall.Door{Service: "ssh"}, false); !errors.Is(err, firewall.ErrSource) {
		t.Errorf("no source: %v", err)
	}
}

func TestServicePrefix(t *testing.T) {
	s := firewall.Service{IPv6Prefix: 56}
	for from, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32",
		"2001:db8:1:2ff::9": "2001:db8:1:200::/56", "fe80::1%eth0": "fe80::/56",
	} {
		if got := s.Prefix(netip.MustParseAddr(from)); got.String() != want {
			t.Errorf("Prefix(%s) = %v, want %s", from, got, want)
		}
	}
	if got := (firewall.Service{}).Prefix(netip.MustParseAddr("2001:db8::1")); got.Bits() != 128 {
		t.Errorf("without a length: %v", got)
	}
}
