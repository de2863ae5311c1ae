package daemon_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// The main job: enrol by one line, knock, and the door is open for that device alone.
func TestKnockOpensADoor(t *testing.T) {
	r := newRig(t, services)
	r.start()
	r.sees(r.Laptop, 8080, "", "")
	r.sees(r.Laptop, 7890, "", "")
	r.enrol(r.Laptop, "web,group:family")

	out := r.expectKnock(r.Laptop, 0, "nas", "-4")
	if !strings.Contains(out, "nas") || !strings.Contains(out, "1h") {
		t.Errorf("knock says %q", out)
	}
	r.sees(r.Laptop, 7890, "lan host", "")
	r.sees(r.Stranger, 7890, "", "")
	r.sees(r.Laptop, 8080, "", "")

	d := r.newDevice("six", "web,nas")
	p, w := d.seal(open("web"))
	a, err := r.exchange(r.Laptop, true, p, w)
	if err != nil || a.Status != wire.Opened || a.TTL != 3600 || a.Port != 0 || a.Seen != r.Laptop.IP6 {
		t.Errorf("answer over IPv6: %+v, %v", a, err)
	}
	r.sees(r.Laptop, 8080, "", "router")

	if s := r.sessions(); len(s) != 2 {
		t.Errorf("sessions: %+v", s)
	}
	r.expectKnock(r.Laptop, 0, "close", "nas")
	r.sees(r.Laptop, 7890, "", "")
	r.expectKnock(r.Laptop, 4, "nothing-here")
	r.must("device", "remove", "six")
	r.sees(r.Laptop, 8080, "", "")
	if got := d.ask(r.Laptop, open("web")); got != "silence" {
		t.Errorf("a removed device hears %s", got)
	}
	r.must("device", "remove", "laptop")
	r.expectKnock(r.Laptop, 3, "nas")
}

// However the daemon ends, the kernel ends the door, and the guard stays.
func TestKernelShutsTheDoor(t *testing.T) {
	r := newRig(t, services)
	r.start()
	d := r.newDevice("laptop", "web,nas")
	long := open("nas")
	long.TTL = 600
	short := open("web")
	short.TTL = 3
	for _, m := range []wire.Message{long, short} {
		if got := d.ask(r.Laptop, m); got != "opened" {
			t.Fatalf("knock: %s", got)
		}
	}
	began := time.Now()
	r.kill(syscall.SIGKILL)
	r.sees(r.Laptop, 8080, "router", "")
	r.eventually("the kernel shuts web", func() bool { return get(r.Laptop, r.Router.At(false, 8080)) == "" })
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("it took %v", took)
	}
	r.sees(r.Laptop, 7890, "lan host", "")
	r.start()
	if s := r.sessions(); len(s) != 1 || s[0].Service != "nas" || s[0].Device != "laptop" {
		t.Errorf("taken over: %+v", s)
	}
	r.sees(r.Laptop, 7890, "lan host", "")
	r.kill(syscall.SIGTERM)
	r.sees(r.Laptop, 7890, "lan host", "")
	r.sees(r.Laptop, 8080, "", "")
	r.must("down")
	r.sees(r.Laptop, 8080, "router", "router") // no guard any more: the server is in the open
	r.sees(r.Laptop, 7890, "", "")
	r.start()
	if s := r.sessions(); len(s) != 0 {
		t.Errorf("down forgot nothing: %+v", s)
	}
}

// A packet opens at most once: from anywhere, after a restart, after kill -9, with the journal cut short.
func TestReplay(t *testing.T) {
	r := newRig(t, services)
	r.start()
	d := r.newDevice("laptop", "web")
	p, w := d.seal(open("web"))
	if got := r.send(r.Laptop, p, w); got != "opened" {
		t.Fatalf("first: %s", got)
	}
	r.must("close", "--all")
	check := func(when string) {
		t.Helper()
		for _, h := range []string{"laptop", "stranger"} {
			host := r.Laptop
			if h == "stranger" {
				host = r.Stranger
			}
			if got := r.send(host, p, w); got != "silence" && !(when == "journal cut" && got == "clock off") {
				t.Errorf("%s, from the %s: %s", when, h, got)
			}
			r.sees(host, 8080, "", "")
		}
	}
	check("at once")
	r.kill(syscall.SIGTERM)
	r.start()
	check("after a restart")
	r.kill(syscall.SIGKILL)
	r.start()
	check("after kill -9")
	r.kill(syscall.SIGKILL)
	journal := filepath.Join(r.dir, "state", "journal")
	if info, err := os.Stat(journal); err != nil {
		t.Error(err)
	} else if err := os.Truncate(journal, info.Size()/2); err != nil {
		t.Error(err)
	}
	r.start()
	check("journal cut")
	if got := d.ask(r.Laptop, open("web")); got != "opened" {
		t.Errorf("a new knock after all that: %s", got)
	}
}

// No spoiled packet is answered or opens: every bit, every length.
func TestSilence(t *testing.T) {
	r := newRig(t, "budget = { source = \"100000/s\", burst = 100000 }\n"+services)
	r.start()
	d := r.newDevice("laptop", "web")
	p, _ := d.seal(open("web"))
	c, err := r.Laptop.Dial("udp", r.Router.At(false, r.port), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for bit := range 8 * len(p) {
		q := bytes.Clone(p)
		q[bit/8] ^= 1 << (bit % 8)
		c.Write(q)
	}
	for n := range 1400 {
		if n != len(p) {
			c.Write(append(bytes.Clone(p), make([]byte, 1400)...)[:n])
		}
	}
	c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if n, err := c.Read(make([]byte, 2000)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an answer of %d bytes, %v", n, err)
	}
	r.sees(r.Laptop, 8080, "", "")
	if s := r.sessions(); len(s) != 0 {
		t.Errorf("sessions: %+v", s)
	}
	if got := d.ask(r.Laptop, open("web")); got != "opened" {
		t.Errorf("a good packet afterwards: %s", got)
	}
}

func TestClocks(t *testing.T) {
	r := newRig(t, services)
	r.start()
	d := r.newDevice("laptop", "web")
	now := time.Now()
	for _, off := range []time.Duration{-50 * 365 * 24 * time.Hour, -time.Hour, time.Hour, 365 * 24 * time.Hour} {
		m := open("web")
		m.TimeMS = now.Add(off).UnixMilli()
		p, w := d.seal(m)
		a, err := r.exchange(r.Laptop, false, p, w)
		if err != nil || a.Status != wire.ClockOff {
			t.Errorf("%v off: %+v, %v", off, a, err)
			continue
		}
		if diff := time.Until(time.UnixMilli(a.RouterMS)).Abs(); diff > 5*time.Second {
			t.Errorf("the router's time is %v off", diff)
		}
		if got := r.send(r.Laptop, p, w); got != "silence" {
			t.Errorf("%v off, once more: %s", off, got)
		}
	}
	held := open("web")
	held.TimeMS = time.Now().UnixMilli()
	p, w := d.seal(held)
	shut := wire.Message{Op: wire.OpClose, Service: wire.ServiceIDOf("web"), TimeMS: held.TimeMS + 1}
	if got := d.ask(r.Laptop, shut); got != "closed" {
		t.Errorf("close: %s", got)
	}
	if got := r.send(r.Stranger, p, w); got != "silence" {
		t.Errorf("an open held back until after a close: %s", got)
	}
	if got := d.ask(r.Laptop, wire.Message{Op: wire.OpHello}); got != "hello" {
		t.Errorf("hello: %s", got)
	}
	for _, op := range []wire.Op{wire.OpHello, wire.OpClose} {
		m := wire.Message{Op: op, TimeMS: time.Now().Add(365 * 24 * time.Hour).UnixMilli()}
		if op == wire.OpClose {
			m.Service = wire.ServiceIDOf("web")
		}
		if got := d.ask(r.Laptop, m); got != "clock off" {
			t.Errorf("%v a year ahead: %s", op, got)
		}
	}
	declared := open("web")
	declared.Address = r.Laptop.IP4
	p, w = d.seal(declared)
	if got := r.send(r.Stranger, p, w); got != "address mismatch" {
		t.Errorf("held back, sent from elsewhere: %s", got)
	}
	r.sees(r.Stranger, 8080, "", "")
}

// Two devices behind one address, one device in two places.
func TestSources(t *testing.T) {
	r := newRig(t, services)
	r.start()
	home := r.AddHome(1)
	a := r.AddHost("first", home, "10.1.0.2", "2001:db8:101::2")
	b := r.AddHost("second", home, "10.1.0.3", "2001:db8:101::3")
	r.enrol(a, "web")
	r.enrol(b, "web")
	r.expectKnock(a, 0, "web", "--ttl", "10m")
	r.expectKnock(b, 0, "web", "--ttl", "20m")
	r.expectKnock(a, 0, "close", "web")
	r.sees(b, 8080, "router", "")
	r.expectKnock(b, 0, "close", "web")
	r.sees(b, 8080, "", "")

	d := r.newDevice("roamer", "web")
	if got := d.ask(r.Laptop, open("web")); got != "opened" {
		t.Fatal(got)
	}
	old := r.Laptop.IP4
	if err := r.Laptop.MoveTo(netip.MustParseAddr("203.0.113.11")); err != nil {
		t.Fatal(err)
	}
	if got := d.ask(r.Laptop, open("web")); got != "opened" {
		t.Fatal(got)
	}
	r.sees(r.Laptop, 8080, "router", "")
	for _, s := range r.sessions() {
		if s.Source == old.String() {
			t.Errorf("the old address is still open: %+v", s)
		}
	}
}

func TestEnrolment(t *testing.T) {
	r := newRig(t, services)
	r.start()
	line := strings.TrimSpace(r.must("invite", "tablet", "--allow", "web", "--no-qr"))
	invite, err := keys.ParseInvite(line)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := keys.GenerateDevice(rand.Reader)
	second, _ := keys.GenerateDevice(rand.Reader)
	use := func(k keys.DeviceSecret) string {
		p, w, err := r.deviceOf(k).sealer.SealEnroll(k, invite.Token, true, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return r.send(r.Laptop, p[:], w)
	}
	for i, step := range []struct {
		key  keys.DeviceSecret
		want string
	}{{first, "enrolled"}, {first, "enrolled"}, {second, "silence"}} {
		if got := use(step.key); got != step.want {
			t.Errorf("use %d: %s, want %s", i+1, got, step.want)
		}
	}
	if got := r.deviceOf(first).ask(r.Laptop, open("web")); got != "opened" {
		t.Errorf("the enrolled device: %s", got)
	}
	if got := r.deviceOf(first).ask(r.Laptop, open("nas")); got != "denied" {
		t.Errorf("another service: %s", got)
	}
	r.must("device", "remove", "tablet")
	if got := use(first); got != "silence" {
		t.Errorf("the token of a removed device: %s", got)
	}
	if _, errs, code := r.spad("invite", "tablet"); code != 2 || !strings.Contains(errs, "nas") {
		t.Errorf("an invite without --allow: exit code %d, %s", code, errs)
	}
}

func TestReload(t *testing.T) {
	r := newRig(t, services)
	r.start()
	d := r.newDevice("laptop", "web,nas")
	for _, s := range []string{"web", "nas"} {
		if got := d.ask(r.Laptop, open(s)); got != "opened" {
			t.Fatalf("%s: %s", s, got)
		}
	}
	withoutNAS := strings.Split(services, "[service.nas]")[0]
	r.configure(services + "\n[service.bad]\nopen = [\"tcp/8080\"]\nttl = \"x\"\n")
	if _, errs, code := r.spad("reload"); code == 0 || !strings.Contains(errs, "8080") || !strings.Contains(errs, "ttl") {
		t.Errorf("a bad configuration: exit code %d, %s", code, errs)
	}
	r.sees(r.Laptop, 8080, "router", "")
	taken, err := r.Router.ListenPacket("udp", ":41373")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.port++
	r.configure(withoutNAS)
	if _, errs, code := r.spad("reload"); code != 2 || !strings.Contains(errs, "listen: udp port 41373 is taken") {
		t.Errorf("a port that is taken: exit code %d, %s", code, errs)
	}
	r.port--
	r.sees(r.Laptop, 7890, "lan host", "") // the old configuration stays as a whole
	r.configure(withoutNAS)
	r.must("reload")
	r.sees(r.Laptop, 8080, "router", "")
	r.sees(r.Laptop, 7890, "", "")
	r.configure(services)
	r.daemon.Process.Signal(syscall.SIGHUP)
	r.eventually("nas opens again", func() bool { return d.ask(r.Laptop, open("nas")) == "opened" })
	r.sees(r.Laptop, 7890, "lan host", "")
}

// No door outlives the right to it: the device expires, or gets another key under the same name.
func TestRightsEnd(t *testing.T) {
	r := newRig(t, services)
	secret, err := keys.GenerateDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	configure := func(k keys.DevicePublic, expires time.Time) {
		r.configure(services + "\n[device.guest]\nkey = \"" + k.String() + "\"\nallow = [\"web\"]\nexpires = " + expires.UTC().Format(time.RFC3339) + "\n")
	}
	configure(secret.Public(), time.Now().Add(5*time.Minute))
	r.start()
	p, w := r.deviceOf(secret).seal(open("web"))
	if a, err := r.exchange(r.Laptop, false, p, w); err != nil || a.Status != wire.Opened || a.TTL > 300 || a.TTL < 200 {
		t.Errorf("a device that expires in five minutes: %+v, %v", a, err)
	}
	r.sees(r.Laptop, 8080, "router", "")
	other, err := keys.GenerateDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	configure(other.Public(), time.Now().Add(time.Hour))
	r.must("reload")
	r.sees(r.Laptop, 8080, "", "")
}

// An operator opens and closes like a device, for an address that never knocked.
func TestOperator(t *testing.T) {
	r := newRig(t, services)
	r.start()
	r.must("open", "web", "--from", r.Stranger.IP4.String(), "--ttl", "10m")
	r.sees(r.Stranger, 8080, "router", "")
	r.sees(r.Laptop, 8080, "", "")
	s := r.sessions()
	if len(s) != 1 {
		t.Fatalf("sessions: %+v", s)
	}
	r.must("close", s[0].ID)
	r.sees(r.Stranger, 8080, "", "")
	for _, args := range [][]string{
		{"open", "web", "--from", "224.0.0.1"},
		{"open", "web", "--from", r.Router.IP4.String()},
		{"open", "nothing", "--from", "192.0.2.1"},
		{"close", "ffffffff"},
	} {
		if _, errs, code := r.spad(args...); code == 0 || errs == "" {
			t.Errorf("spad %v: exit code %d, %q", args, code, errs)
		}
	}
}

// What can be wrong at the start, and what it says.
func TestStartRefused(t *testing.T) {
	r := newRig(t, services)
	r.start()
	refused := func(what string, want string, args ...string) {
		t.Helper()
		cmd := r.Router.Command(r.bin+"/spad", append([]string{"run"}, args...)...)
		cmd.Env = append(os.Environ(), "SSH_CONNECTION=203.0.113.10 50000 203.0.113.1 8080")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s", what, err, out)
		}
	}
	refused("a second daemon on the state", "state", r.paths()...)
	other := t.TempDir()
	refused("the port in use", "41372", "--config", r.dir+"/spad.toml", "--state", other, "--socket", other+"/s")
	r.kill(syscall.SIGTERM)
	refused("the ssh session it is started from", "always_allow", r.paths()...)
	// As under sudo: only the shell above knows of it.
	under := r.Router.Command("sh", append([]string{"-c", `env -u SSH_CONNECTION "$@"; exit $?`, "sh", r.bin + "/spad", "run"}, r.paths()...)...)
	under.Env = append(os.Environ(), "SSH_CONNECTION=203.0.113.10 50000 203.0.113.1 8080")
	if out, err := under.CombinedOutput(); err == nil || !strings.Contains(string(out), "always_allow") {
		t.Errorf("the ssh session behind sudo: %v, %s", err, out)
	}
	if err := os.Chmod(r.dir+"/router.key", 0o644); err != nil {
		t.Fatal(err)
	}
	refused("a key that others can read", "chmod 600", r.paths()...)
	if err := os.Chmod(r.dir+"/router.key", 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := r.Router.Command("setpriv", append([]string{"--bounding-set", "-net_admin", "--inh-caps", "-net_admin", r.bin + "/spad", "run"}, r.paths()...)...)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "CAP_NET_ADMIN") {
		t.Errorf("without the capability: %v, %s", err, out)
	}
}

// A flood of right-sized junk from the stranger does not keep a device out.
func TestFlood(t *testing.T) {
	r := newRig(t, services)
	r.start()
	d := r.newDevice("laptop", "web")
	stop := make(chan struct{})
	done := make(chan struct{})
	flood, err := r.Stranger.Dial("udp", r.Router.At(false, r.port), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		junk := make([]byte, wire.PacketSize)
		for {
			select {
			case <-stop:
				return
			default:
			}
			rand.Read(junk)
			for range 200 {
				junk[0]++
				flood.Write(junk)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for i := range 10 {
		m := open("web")
		got := d.ask(r.Laptop, m)
		if got == "silence" { // a knock may be lost on the way like any datagram; the client's second one counts
			got = d.ask(r.Laptop, open("web"))
		}
		if got != "opened" {
			t.Errorf("knock %d in the flood: %s", i, got)
		}
	}
	close(stop)
	<-done
	flood.Close()
	r.sees(r.Stranger, 8080, "", "")
	if size := len(r.log.String()); size > 64<<10 {
		t.Errorf("the flood wrote %d bytes of log", size)
	}
}
