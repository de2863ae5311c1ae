package client

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spad/pkg/wire"
)

func TestKeepsAddress(t *testing.T) {
	tests := map[string]bool{
		"203.0.113.7": true, "8.8.8.8": true, "::ffff:203.0.113.7": true, "192.0.1.1": true, "100.63.255.255": true, "172.32.0.1": true,
		"10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "100.64.0.1": false, "100.127.255.255": false,
		"192.0.0.1": false, "192.0.0.7": false, "169.254.1.1": false, "127.0.0.1": false, "0.0.0.0": false, "224.0.0.1": false,
		"240.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false, "::ffff:10.0.0.1": false,
		"2001:db8::1": true, "2a00::1": true, "3fff::1": true,
		"fd00::1": false, "fc00::1": false, "fe80::1": false, "fe80::1%eth0": false, "::1": false, "::": false, "ff02::1": false,
		"64:ff9b::1": false, "fec0::1": false,
	}
	for a, want := range tests {
		if got := keepsAddress(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %v", a, got)
		}
	}
}

func TestEmbeddings(t *testing.T) {
	// The layouts of RFC 6052, section 2.2, with 192.0.0.170 and .171 in them.
	tests := map[string][]string{
		"64:ff9b::c000:aa":                   {"64:ff9b::/96"},
		"64:ff9b::c000:ab":                   {"64:ff9b::/96"},
		"2001:db8:c000:aa::":                 {"2001:db8::/32"},
		"2001:db8:1c0::aa:0:0:0":             {"2001:db8:100::/40"},
		"2001:db8:122:c000:0:aa00::":         {"2001:db8:122::/48"},
		"2001:db8:122:3c0:0:aa:0:0":          {"2001:db8:122:300::/56"},
		"2001:db8:122:344:c0:0:aa00:0":       {"2001:db8:122:344::/64"},
		"2001:db8:122:344:0:0:c000:aa":       {"2001:db8:122:344::/96"},
		"2001:db8::1":                        nil,
		"::ffff:192.0.0.170":                 nil,
		"192.0.0.170":                        nil,
		"2001:db8:122:344:0:0:c000:ac":       nil,
		"2001:db8:c000:aa:0:0:c000:aa":       {"2001:db8::/32", "2001:db8:c000:aa::/96"},
		"2001:db8:122:344:0:0:c000:00aa%lan": {"2001:db8:122:344::/96"},
	}
	for a, want := range tests {
		var got []string
		for _, p := range embeddings(netip.MustParseAddr(a)) {
			got = append(got, p.String())
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", a, diff)
		}
	}
}

func TestDeclared(t *testing.T) {
	mapped := netip.MustParseAddr("64:ff9b::c633:6401")
	local64 := netip.MustParseAddr("64:ff9b:1::c633:6401")
	site := netip.MustParseAddr("2001:db8:64::c633:6401")
	nat64 := []netip.Addr{netip.MustParseAddr("2001:db8:64::c000:aa"), netip.MustParseAddr("2001:db8:64::c000:ab")}
	tests := map[string]struct {
		addr    string     // of the router
		names   netip.Addr // what its name has in place of home6
		nat64   []netip.Addr
		slow    time.Duration
		local   netip.Addr
		edit    func(*Request)
		want    netip.Addr
		lookups int // of ipv4only.arpa
	}{
		"IPv6 by name":                   {want: here6, lookups: 1},
		"IPv6 literal":                   {addr: "[2001:db8::1]:41372", want: here6},
		"told not to":                    {edit: func(r *Request) { r.NoAddress = true }},
		"private":                        {local: netip.MustParseAddr("fd00::7")},
		"well-known NAT64":               {names: mapped},
		"local NAT64":                    {names: local64},
		"literal NAT64":                  {addr: "[64:ff9b::c633:6401]:41372"},
		"the network's NAT64":            {names: site, nat64: nat64, lookups: 1},
		"NAT64, but not for this router": {nat64: nat64, want: here6, lookups: 1},
		"no answer about NAT64":          {slow: time.Hour, want: here6, lookups: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				if tt.names.IsValid() {
					s.world.names["home.example.net"] = []netip.Addr{tt.names}
				}
				if tt.local.IsValid() {
					s.world.local[IPv6] = tt.local
				}
				s.world.names["ipv4only.arpa."] = tt.nat64
				s.world.late = map[string]time.Duration{"ipv4only.arpa.": tt.slow}
				for _, ip := range []netip.Addr{mapped, local64, site} {
					s.world.paths[ip] = &path{router: s.router, rtt: rtt}
				}
				edit := func(r *Request) {
					if tt.addr != "" {
						r.Router.Addr = tt.addr
					} else {
						r.Only = IPv6
					}
					if tt.edit != nil {
						tt.edit(r)
					}
				}
				out, took := s.open(t, edit, "nas", "ssh")
				if out[0].Err() != nil || took > time.Second {
					t.Fatalf("%+v after %v", out, took)
				}
				for _, a := range s.router.arrivals() {
					if a.Address != tt.want {
						t.Errorf("declared %v, want %v", a.Address, tt.want)
					}
				}
				n := 0
				for _, l := range s.world.lookups {
					if l == "IPv6 ipv4only.arpa." {
						n++
					}
				}
				if n != tt.lookups {
					t.Errorf("asked %d times about NAT64, want %d", n, tt.lookups)
				}
			})
		})
	}
}

// TestNoAnswerAboutNAT64: a name server that drops the question must not keep the door of the second family shut.
func TestNoAnswerAboutNAT64(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.late = map[string]time.Duration{"ipv4only.arpa.": time.Hour}
		out, took := s.open(t, nil, "nas")
		if out[0].Err() != nil || took > time.Second {
			t.Fatalf("%+v after %v", out, took)
		}
		time.Sleep(time.Second) // the packet is on its way
		six := 0
		for _, a := range s.router.arrivals() {
			if a.Address == here6 {
				six++
			}
		}
		if six == 0 {
			t.Error("no packet left over IPv6")
		}
	})
}

func TestMismatchDropsNoAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.router.decide = func(int, wire.Message) wire.Answer { return wire.Answer{Status: wire.Mismatch} }
		for range 3 {
			s.open(t, nil, "nas")
		}
		for _, a := range s.router.arrivals() {
			if !a.Address.IsValid() {
				t.Errorf("an answer made the client drop its address: %+v", a.Message)
			}
		}
	})
}

func TestInterruptedNAT64LookupIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.late = map[string]time.Duration{"ipv4only.arpa.": 100 * time.Millisecond}
		s.world.names["ipv4only.arpa."] = []netip.Addr{netip.MustParseAddr("2001:db8::c000:aa")}
		// The first close is done over IPv4 before the look-up is; the second needs its result.
		s.router.decide = func(_ int, m wire.Message) wire.Answer {
			if m.Service == wire.ServiceIDOf("ssh") && !m.Address.IsValid() {
				return grant(m)
			}
			if m.Service == wire.ServiceIDOf("ssh") {
				return wire.Answer{Status: wire.Denied}
			}
			return grant(m)
		}
		out, _ := s.open(t, func(r *Request) { r.Op = wire.OpClose }, "nas", "ssh")
		if out[1].Err() != nil || out[1].Best().Family != IPv6 {
			t.Errorf("%+v", out)
		}
	})
}
