package daemon_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/control"
	"spad/pkg/wire"
)

func (r *rig) why(asked string) (w control.Why) {
	r.t.Helper()
	r.decode(&w, "why", asked, "--json")
	return w
}

// reasons returns outcomes and reasons, the latest first.
func reasons(w control.Why) (all []string) {
	for _, k := range w.Knocks {
		text := k.Outcome
		if k.Reason != "" {
			text = k.Reason
		}
		all = append(all, text)
		if k.Reason != "" && k.Remedy == "" {
			all = append(all, "without a remedy")
		}
	}
	return all
}

// Each way to be refused is remembered with its reason, for the device and for the address.
func TestWhy(t *testing.T) {
	r := newRig(t, services)
	secret, err := keys.GenerateDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	configure := func(extra string) {
		r.configure(services + `
[group.elsewhere]
services = ["nas"]
from = ["192.0.2.0/24"]

[device.guest]
key = "` + secret.Public().String() + "\"\n" + extra)
	}
	configure(`allow = ["web", "group:elsewhere"]`)
	r.start()
	d := r.deviceOf(secret)
	if w := r.why("guest"); len(w.Knocks) != 0 {
		t.Errorf("before any knock: %+v", w)
	}
	late := open("web")
	late.TimeMS = time.Now().Add(-time.Hour).UnixMilli()
	elsewhere := open("web")
	elsewhere.Address = r.Stranger.IP4
	for _, m := range []wire.Message{open("web"), open("nothing"), open("nas"), late, elsewhere} {
		d.ask(r.Laptop, m)
	}
	configure("allow = [\"web\"]\n")
	r.must("reload")
	d.ask(r.Laptop, open("nas"))
	configure("allow = [\"web\"]\ndisabled = true\n")
	r.must("reload")
	d.ask(r.Laptop, open("web"))

	want := []string{
		"device disabled or expired", "not allowed", "address mismatch", "clock off", "not from here", "unknown service", "opened",
	}
	for _, asked := range []string{"guest", r.Laptop.IP4.String()} {
		if got := reasons(r.why(asked)); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", asked, got, want)
		}
	}
	if out := r.must("why", "guest"); !strings.Contains(out, "spad device show tells which") || !strings.Contains(out, "web opened for 1h") {
		t.Errorf("as text: %s", out)
	}
	if _, errs, code := r.spad("why", "nobody"); code != 1 || !strings.Contains(errs, "spad device list") {
		t.Errorf("an unknown device: exit code %d, %s", code, errs)
	}
}

// A stranger with everything that crosses the wire, and the router's public key, makes nobody's knocks forgotten.
func TestStrangersFlushNothing(t *testing.T) {
	r := newRig(t, "budget = { source = \"1000000/s\", burst = 100000, global = \"1000000/s\", global_burst = 100000 }\n"+services)
	r.start()
	d := r.newDevice("laptop", "web")
	if got := d.ask(r.Laptop, open("web")); got != "opened" {
		t.Fatal(got)
	}
	secret, err := keys.GenerateDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	nobody := r.deviceOf(secret)
	c, err := r.Stranger.Dial("udp", r.Router.At(false, r.port), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dropped := func() (n uint64) {
		for _, d := range r.why(r.Stranger.IP4.String()).Drops {
			if d.Reason == "unknown device" {
				n = d.Count
			}
		}
		return n
	}
	r.eventually("more packets are dropped than anything remembers", func() bool {
		for range 100 {
			p, _ := nobody.seal(open("web"))
			c.Write(p)
		}
		return dropped() > 1300
	})
	if w := r.why(r.Stranger.IP4.String()); len(w.Knocks) != 0 {
		t.Errorf("a stranger is remembered: %+v", w.Knocks)
	}
	if got := reasons(r.why("laptop")); fmt.Sprint(got) != "[opened]" {
		t.Errorf("the laptop's knocks: %q", got)
	}
}
