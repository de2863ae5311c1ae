package daemon_test

import (
	"net/netip"
	"testing"

	"spad/pkg/firewall/firewalltest"
	"spad/pkg/wire"
)

// One service, by translation over IPv4 and by a pinhole over IPv6: the answer names the router's port to those who use
// it, and none to those who connect to the host itself.
func TestPinholeBesideTranslation(t *testing.T) {
	r := newRig(t, `
[service.page]
forward = { port = "tcp/7890", to = "192.168.1.50:80", pinhole = "::50/-64" }

[service.range]
forward = { port = "tcp/8000-8010", to = "192.168.1.50:75-85" }
`)
	r.serve(r.LANHost, "7890", "pinhole")
	r.start()
	host := r.LANHost.At(true, 7890)
	d := r.newDevice("laptop", "page,range")
	for _, c := range []struct {
		service string
		v6      bool
		want    wire.Answer
	}{
		{"page", true, wire.Answer{Status: wire.Opened, Port: 0, Seen: r.Laptop.IP6}},
		{"page", false, wire.Answer{Status: wire.Opened, Port: 7890, Seen: r.Laptop.IP4}},
		{"range", true, wire.Answer{Status: wire.Denied, Seen: r.Laptop.IP6}},
		{"range", false, wire.Answer{Status: wire.Opened, Port: 0, Seen: r.Laptop.IP4}},
	} {
		if got := get(r.Laptop, host); c.service == "page" && c.v6 && got != "" {
			t.Errorf("the host answers %q before", got)
		}
		p, w := d.seal(open(c.service))
		a, err := r.exchange(r.Laptop, c.v6, p, w)
		if err != nil || a.Status != c.want.Status || a.Port != c.want.Port || a.Seen != c.want.Seen {
			t.Errorf("%s, IPv6 %v: %+v, %v; want %+v", c.service, c.v6, a, err, c.want)
		}
	}
	r.sees(r.Laptop, 7890, "lan host", "")
	r.sees(r.Laptop, 8005, "lan host", "")
	r.sees(r.Laptop, 8006, "", "")
	if got := get(r.Laptop, host); got != "pinhole" {
		t.Errorf("the host answers %q", got)
	}
	if got := get(r.Stranger, host); got != "" {
		t.Errorf("the host answers a stranger %q", got)
	}
	r.must("close", "--all")
	if got := get(r.Laptop, host); got != "" {
		t.Errorf("the host answers %q after the door was shut", got)
	}
}

// knocksAt opens web at an address of the router over each family, sees it there and at others, and closes it.
func (r *rig) knocksAt(d *device, when string, at *firewalltest.Host, others ...*firewalltest.Host) {
	r.t.Helper()
	for _, v6 := range []bool{false, true} {
		p, w := d.seal(open("web"))
		a, err := r.exchangeAt(at.At(v6, r.port), r.Laptop, p, w)
		if err != nil || a.Status != wire.Opened || a.Seen != r.Laptop.Addr(v6) {
			r.t.Errorf("%s, IPv6 %v: %+v, %v", when, v6, a, err)
		}
		for _, h := range append(others, at) {
			if got := get(r.Laptop, h.At(v6, 8080)); got != "router" {
				r.t.Errorf("%s: %s answers %q", when, h.At(v6, 8080), got)
			}
			if got := get(r.Stranger, h.At(v6, 8080)); got != "" {
				r.t.Errorf("%s: %s answers a stranger %q", when, h.At(v6, 8080), got)
			}
		}
	}
	r.must("close", "--all")
	r.sees(r.Laptop, 8080, "", "")
}

func TestUplinks(t *testing.T) {
	t.Run("bridge", func(t *testing.T) {
		r := newRig(t, services)
		if err := r.Router.BridgeUplink(); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.knocksAt(r.newDevice("laptop", "web"), "over a bridge", r.Router)
	})
	t.Run("point to point", func(t *testing.T) {
		r := newRig(t, services)
		if err := r.Router.TunnelUplink(); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.knocksAt(r.newDevice("laptop", "web"), "over a tunnel", r.Router)
	})
	t.Run("two", func(t *testing.T) { // the answer comes from the address that was knocked at, or the laptop would not hear it
		r := newRig(t, services)
		second := r.AddUplink(r.Router, "198.51.100.1", "2001:db8:2::1")
		r.start()
		d := r.newDevice("laptop", "web")
		r.knocksAt(d, "at the first", r.Router, second)
		r.knocksAt(d, "at the second", second, r.Router)
	})
	t.Run("new addresses", func(t *testing.T) { // and nobody reloads anything
		r := newRig(t, services)
		r.start()
		d := r.newDevice("laptop", "web,nas")
		for _, v6 := range []bool{false, true} {
			p, w := d.seal(open("nas"))
			if a, err := r.exchange(r.Laptop, v6, p, w); err != nil || a.Status != wire.Opened {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		r.sees(r.Laptop, 7890, "lan host", "lan host")
		for _, a := range []string{"198.51.100.7", "2001:db8:2::7"} {
			if err := r.Router.MoveTo(netip.MustParseAddr(a)); err != nil {
				t.Fatal(err)
			}
		}
		r.sees(r.Laptop, 7890, "lan host", "lan host")
		r.sees(r.Stranger, 7890, "", "")
		r.knocksAt(d, "at a new address", r.Router)
	})
}
