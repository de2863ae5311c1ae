package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/wire"
)

func TestWays(t *testing.T) {
	down := errors.New("network is unreachable")
	tests := map[string]struct {
		edit     func(*fakeNetwork)
		addr     string
		only     Family
		want     string // of the error; "" is success
		families []Family
		took     time.Duration
	}{
		"both":                 {families: []Family{IPv4, IPv6}, took: rtt},
		"IPv4 asked for":       {only: IPv4, families: []Family{IPv4}, took: rtt},
		"IPv6 asked for":       {only: IPv6, families: []Family{IPv6}, took: rtt},
		"IPv4 literal":         {addr: "198.51.100.1:41372", families: []Family{IPv4}, took: rtt},
		"IPv6 literal":         {addr: "[2001:db8::1]:41372", families: []Family{IPv6}, took: rtt},
		"mapped literal":       {addr: "[::ffff:198.51.100.1]:41372", families: []Family{IPv4}, took: rtt},
		"name without IPv6":    {edit: func(n *fakeNetwork) { n.names["home.example.net"] = []netip.Addr{home4} }, families: []Family{IPv4, IPv6}, took: rtt},
		"no route over IPv6":   {edit: func(n *fakeNetwork) { n.paths[home6].noDial = down }, families: []Family{IPv4, IPv6}, took: rtt},
		"IPv6 look-up hangs":   {edit: func(n *fakeNetwork) { n.slow[IPv6] = time.Hour }, families: []Family{IPv4}, took: rtt + bothFamilies.departure},
		"IPv6 look-up is slow": {edit: func(n *fakeNetwork) { n.slow[IPv6] = 3 * rtt }, families: []Family{IPv4, IPv6}, took: 4 * rtt},
		"no such name": {
			edit: func(n *fakeNetwork) { n.names = nil },
			want: "IPv4: home.example.net has no IPv4 address; IPv6: home.example.net has no IPv6 address", families: []Family{IPv4, IPv6},
		},
		"no such name in the family": {
			edit: func(n *fakeNetwork) { n.names["home.example.net"] = []netip.Addr{home4} }, only: IPv6,
			want: "home.example.net has no IPv6 address", families: []Family{IPv6},
		},
		"no name server": {
			edit: func(n *fakeNetwork) { n.slow[IPv4], n.slow[IPv6] = time.Hour, time.Hour },
			want: "looking up home.example.net: no answer from the name server", families: []Family{IPv4, IPv6}, took: lookupPatience,
		},
		"no route at all": {
			edit: func(n *fakeNetwork) { n.paths[home4].noDial, n.paths[home6].noDial = down, down },
			want: "IPv4: no way to 198.51.100.1: network is unreachable; IPv6: no way to 2001:db8::1: network is unreachable", families: []Family{IPv4, IPv6},
		},
		"no address in one, no route in the other": {
			edit: func(n *fakeNetwork) {
				n.names["home.example.net"] = []netip.Addr{home4}
				n.paths[home4].noDial = down
			},
			want:     "IPv4: no way to 198.51.100.1: network is unreachable; IPv6: home.example.net has no IPv6 address",
			families: []Family{IPv4, IPv6},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				if tt.edit != nil {
					tt.edit(s.world)
				}
				out, took := s.open(t, func(r *Request) {
					r.Only = tt.only
					if tt.addr != "" {
						r.Router.Addr = tt.addr
					}
				}, "nas")
				got := ""
				if err := out[0].Err(); err != nil {
					got = err.Error()
				}
				if got != tt.want || took != tt.took {
					t.Errorf("error %q after %v, want %q after %v", got, took, tt.want, tt.took)
				}
				var families []Family
				for _, r := range out[0].Families {
					families = append(families, r.Family)
				}
				if diff := cmp.Diff(tt.families, families); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestSlowLookupStillKnocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.slow[IPv6] = 200 * time.Millisecond // later than IPv4's answer and its grace
		s.open(t, nil, "nas")
		time.Sleep(rtt)
		if n := len(s.router.arrivals()); n != 2 {
			t.Errorf("%d packets, want one in each family", n)
		}
	})
}

type failingNetwork struct {
	*fakeNetwork
	err error
}

func (n failingNetwork) Lookup(context.Context, Family, string) ([]netip.Addr, error) {
	return nil, n.err
}

func TestLookupErrors(t *testing.T) {
	tests := map[string]error{
		"looking up home: server misbehaving": &net.DNSError{Err: "server misbehaving", Name: "home", Server: "192.0.2.53:53", IsTemporary: true},
		"looking up home: odd":                errors.New("odd"),
		"home has no IPv4 address":            nil,
	}
	for want, err := range tests {
		p, perr := newPlaces(failingNetwork{err: err}, "home:41372")
		if perr != nil {
			t.Fatal(perr)
		}
		if _, got := p.in(context.Background(), IPv4); got == nil || got.Error() != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// TestLoopback knocks over real sockets: an answer from another source is not taken,
// ICMP's port unreachable is no reason to stop, and the address is not declared.
func TestLoopback(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			router, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Skipf("no loopback in this family: %v", err)
			}
			defer router.Close()
			stranger, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			s := newScene(t)
			s.net = internet{}
			go func() {
				buf := make([]byte, 2048)
				for {
					n, from, err := router.ReadFrom(buf)
					if err != nil {
						return
					}
					answer := s.router.handle(buf[:n], from.(*net.UDPAddr).AddrPort().Addr().Unmap(), netip.AddrPort{})
					_, _ = stranger.WriteTo(make([]byte, wire.AnswerSize), from)
					_, _ = router.WriteTo([]byte("foreign"), from)
					_, _ = router.WriteTo(answer, from)
				}
			}()
			out, _ := s.open(t, func(r *Request) { r.Router.Addr = router.LocalAddr().String() }, "nas")
			if out[0].Err() != nil {
				t.Fatalf("%+v", out)
			}
			if a := s.router.arrivals()[0]; a.Address.IsValid() {
				t.Errorf("declared %v", a.Address)
			}
			if got := out[0].Best().Seen; got != netip.MustParseAddr(host) {
				t.Errorf("seen %v", got)
			}
		})
	}
}

func TestLoopbackClosedPort(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.LocalAddr().String()
	l.Close() // the kernel answers with ICMP from now on
	s := newScene(t)
	s.net = internet{}
	out, took := s.open(t, func(r *Request) { r.Router.Addr = addr }, "nas")
	if !errors.Is(out[0].Err(), ErrNoAnswer) || took < 2*time.Second {
		t.Errorf("%v after %v: ICMP was believed", out[0].Err(), took)
	}
}

func TestInternetLookup(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		ips, err := internet{}.Lookup(context.Background(), f, "localhost")
		for _, ip := range ips {
			if familyOf(ip) != f {
				t.Errorf("%v: %v", f, ip)
			}
		}
		if f == IPv4 && (err != nil || len(ips) == 0) {
			t.Errorf("%v, %v", ips, err)
		}
	}
}

func TestMachine(t *testing.T) {
	m := machine{}
	if a, b := m.BootID(), m.BootID(); a != b {
		t.Errorf("two boots at once: %q, %q", a, b)
	}
	if m.BootID() == "" && !m.Synchronised() {
		t.Error("a clock to be learned after each boot, and no boot to be told from another")
	}
	if d := time.Since(m.Now()); d > time.Minute || d < -time.Minute {
		t.Errorf("off by %v", d)
	}
}
