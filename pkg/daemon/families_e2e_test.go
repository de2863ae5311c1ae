package daemon_test

import (
	"testing"

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
