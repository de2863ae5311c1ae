package firewall_test

import (
	"net/netip"
	"strings"
	"testing"

	"spad/pkg/firewall"
)

func TestParseHole(t *testing.T) {
	for text, mask := range map[string]string{
		"2001:db8:5::50":         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"fd00:1::50":             "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"::50/-64":               "::ffff:ffff:ffff:ffff",
		"::1:0:0:0:50/-72":       "::ff:ffff:ffff:ffff:ffff",
		"::dcad:beff:feef:1/-64": "::ffff:ffff:ffff:ffff",
	} {
		h, err := firewall.ParseHole(text)
		if err != nil || h.String() != text || h.Mask() != netip.MustParseAddr(mask) {
			t.Errorf("ParseHole(%q) = %v, %v, mask %v", text, h, err, h.Mask())
		}
	}
	for _, text := range []string{
		"", "::", "::/-64", "::50/64", "::50/-63", "::50/-128", "::50/-129", "::50/-064", "::50/-+64", "::50/-", "2001:db8::50/-64",
		"192.168.1.50", "::ffff:192.168.1.50", "fe80::1", "fe80::1%eth0", "ff02::1", "::1", "::0050/-64", "2001:DB8:5::50", "nas", "[::50]/-64",
	} {
		if h, err := firewall.ParseHole(text); err == nil {
			t.Errorf("ParseHole(%q) = %v, want an error", text, h)
		}
	}
}

func FuzzParseHole(f *testing.F) {
	for _, seed := range []string{"2001:db8:5::50", "::50/-64", "::50/-064"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := firewall.ParseHole(text)
		if err != nil {
			return
		}
		if h.String() != text || !h.Contains(h.Addr) || !h.Overlaps(h) {
			t.Errorf("%q parses and is written %q", text, h)
		}
	})
}

func TestHoleOverlaps(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"2001:db8:5::50", "2001:db8:5::50", true},
		{"2001:db8:5::50", "2001:db8:6::50", false},
		{"2001:db8:5::50", "::50/-64", true},
		{"2001:db8:5::51", "::50/-64", false},
		{"::50/-64", "::50/-80", true},
		{"::1:0:0:0:50/-80", "::50/-64", true},
		{"::1:0:0:0:50/-80", "::50/-80", false},
	} {
		a, b := hole(t, c.a), hole(t, c.b)
		if a.Overlaps(b) != c.want || b.Overlaps(a) != c.want {
			t.Errorf("%v and %v: overlap is not %v", a, b, c.want)
		}
		if a.Bits == 128 && b.Contains(a.Addr) != c.want {
			t.Errorf("%v contains %v: not %v", b, a, c.want)
		}
	}
	if (firewall.Hole{}).Contains(netip.IPv6Unspecified()) || (firewall.Hole{}).Overlaps(firewall.Hole{}) || hole(t, "::50/-64").Contains(netip.MustParseAddr("0.0.0.80")) {
		t.Error("nobody's hole is somebody's")
	}
}

func hole(t *testing.T, text string) firewall.Hole {
	t.Helper()
	h, err := firewall.ParseHole(text)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestPinholeCheck(t *testing.T) {
	pinhole := func(name, port, at string) firewall.Service {
		return firewall.Service{Name: name, Forward: &firewall.Forward{Port: ports(t, port), Hole: hole(t, at)}}
	}
	r := firewall.Ruleset{Mark: 1, Services: []firewall.Service{
		{Name: "ssh", Open: []firewall.Ports{ports(t, "tcp/22")}}, // the same port of the router, and of two hosts
		pinhole("a", "tcp/22", "2001:db8:5::50"), pinhole("b", "tcp/20-30", "::51/-64"), pinhole("c", "tcp/29-40", "::52/-64"),
		pinhole("d", "udp/22", "2001:db8:5::50"), pinhole("e", "tcp/50", "2001:db8:5::50"),
	}}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
	var clusters []string
	for _, c := range firewall.Clusters(r.Services) {
		clusters = append(clusters, c.Ports.String()+":"+c.Services[0].Name)
	}
	if got := strings.Join(clusters, " "); got != "tcp/20-40:b tcp/50:e udp/22:d" {
		t.Errorf("clusters: %s", got)
	}
	for _, c := range []struct {
		name, want string
		service    firewall.Service
	}{
		{"same host and port", `service "x": tcp/22 of ::50/-64 overlaps tcp/22 of 2001:db8:5::50 of service "a"`, pinhole("x", "tcp/22", "::50/-64")},
		{"two ways", "want one of them", firewall.Service{Name: "x", Forward: &firewall.Forward{
			Port: ports(t, "tcp/80"), To6: netip.MustParseAddrPort("[fd00::5]:80"), Hole: hole(t, "::50/-64"),
		}}},
		{"short", "last 64 bits at least", firewall.Service{Name: "x", Forward: &firewall.Forward{
			Port: ports(t, "tcp/80"), Hole: firewall.Hole{Addr: netip.MustParseAddr("::50"), Bits: 8},
		}}},
		{"no port", "want 1 to 65535", firewall.Service{Name: "x", Forward: &firewall.Forward{Port: firewall.Ports{Proto: firewall.TCP}, Hole: hole(t, "::50/-64")}}},
	} {
		bad := r
		bad.Services = append(r.Services[:len(r.Services):len(r.Services)], c.service)
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.want)
		}
	}
}
