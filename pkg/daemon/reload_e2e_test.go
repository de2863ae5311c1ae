package daemon_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// changeBase is what each change is made to. The lines with # are where keys that it has not are written.
const changeBase = `listen = ":41372"
hostname = "router.test"
#top

[service.web]
open = ["tcp/8080"]
#service

[service.nas]
forward = { port = "tcp/7890", to = "192.168.1.50:80" }

[group.family]
services = ["nas"]
#group

[device.laptop]
key = "LAPTOP"
allow = ["web", "group:family"]
#device
`

// budgetBase lets sixty packets at once through, with any one key changed not.
const budgetBase = `budget = { source = "1000000/s", burst = 1000, global = "1000000/s", global_burst = 1000, reserved = 0.0 }`

// change is a change of one key of the configuration.
type change struct {
	key      string   // as reference.toml has it, after the kind of its table
	base     []string // replacements that make the configuration before, in pairs
	from, to string   // what is replaced then
	see      func(*changes) string
	want     [2]string // what is seen before and after; no see: the reload is refused and names the key
}

var keyChanges = []change{
	{key: "top listen", from: ":41372", to: ":41373", see: (*changes).listens, want: [2]string{"nobody at 41373", "opened at 41373"}},
	{key: "top hostname", from: "router.test", to: "other.test", see: (*changes).invites, want: [2]string{"router.test:41372", "other.test:41372"}},
	{key: "top external", from: "#top", to: `external = "front.test:53000"`, see: (*changes).invites, want: [2]string{"router.test:41372", "front.test:53000"}},
	{key: "top key", from: "#top", to: `key = "other.key"`},
	{key: "top capture", from: "#top", to: `capture = "sniff"`},
	{key: "top firewall", from: "#top", to: `firewall = "iptables"`},
	{key: "top iptables", from: "#top", to: "firewall = \"iptables\"\niptables = \"nft\""},
	{key: "top remote", from: "#top", to: `remote = "192.168.1.1:41373"`},
	{key: "top mark", from: "#top", to: "mark = 0x20000000", see: kernelHas("0x20000000"), want: [2]string{"no", "yes"}},
	{key: "top always_allow", from: "#top", to: `always_allow = ["STRANGER"]`, see: (*changes).strangerSees, want: [2]string{"", "router"}},
	{key: "top lan", from: "#top", to: `lan = ["192.168.1.0/24"]`, see: kernelHas("192.168.1.0/24"), want: [2]string{"no", "yes"}},
	{key: "top guard", from: "#top", to: `guard = "off"`, see: (*changes).strangerSees, want: [2]string{"", "router"}},
	{key: "top ipv6_prefix", from: "#top", to: "ipv6_prefix = 64", see: (*changes).width, want: [2]string{"128", "64"}},
	{key: "top log", from: "#top", to: `log = "json"`, see: (*changes).logs, want: [2]string{"text", "json"}},
	{key: "top test_loopback", from: "#top", to: "test_loopback = true", see: opens("web", "127.0.0.1"), want: [2]string{"exit code 2", "exit code 0"}},
	{key: "top budget", from: "#top", to: `budget = { source = "1/s", burst = 1 }`, see: (*changes).flood, want: [2]string{"some dropped", "more dropped"}},
	{key: "top service", from: "[group.family]", to: "[service.new]\nopen = [\"tcp/8082\"]\n[group.family]", see: opens("new", "192.0.2.1"), want: [2]string{"exit code 1", "exit code 0"}},
	{key: "top group", from: "[group.family]", to: "[group.new]\nservices = [\"web\"]\n[group.family]", see: code("invite", "x", "--no-qr", "--allow", "group:new"), want: [2]string{"exit code 2", "exit code 0"}},
	{key: "top device", from: "#device", to: "[device.new]\nkey = \"OTHER\"\nallow = [\"web\"]", see: code("device", "show", "new"), want: [2]string{"exit code 1", "exit code 0"}},
	{key: "top webhook", from: "#device", to: "[webhook.page]\nurl = \"https://192.0.2.1/\"\nsecret = \"" + webhookSecret + "\"", see: metricsHave(`spad_webhook_up{webhook="page"}`), want: [2]string{"no", "yes"}},
	{key: "top exec", from: "#device", to: "[exec.note]\ncommand = [\"/bin/true\"]", see: metricsHave(`spad_exec_runs_total{exec="note"}`), want: [2]string{"no", "yes"}},

	{key: "budget source", base: []string{"#top", strings.Replace(budgetBase, "burst = 1000,", "burst = 50,", 1)}, from: `source = "1000000/s"`, to: `source = "1/s"`, see: (*changes).flood, want: [2]string{"none dropped", "some dropped"}},
	{key: "budget burst", base: []string{"#top", strings.Replace(budgetBase, `source = "1000000/s"`, `source = "1/s"`, 1)}, from: "burst = 1000,", to: "burst = 1,", see: (*changes).flood, want: [2]string{"none dropped", "more dropped"}},
	{key: "budget global", base: []string{"#top", strings.Replace(budgetBase, "global_burst = 1000,", "global_burst = 50,", 1)}, from: `global = "1000000/s"`, to: `global = "1/s"`, see: (*changes).flood, want: [2]string{"none dropped", "some dropped"}},
	{key: "budget global_burst", base: []string{"#top", strings.Replace(budgetBase, `global = "1000000/s"`, `global = "1/s"`, 1)}, from: "global_burst = 1000,", to: "global_burst = 1,", see: (*changes).flood, want: [2]string{"none dropped", "more dropped"}},
	{key: "budget reserved", base: []string{"#top", strings.Replace(budgetBase, `global = "1000000/s", global_burst = 1000`, `global = "1/s", global_burst = 100`, 1)}, from: "reserved = 0.0", to: "reserved = 0.9", see: (*changes).flood, want: [2]string{"none dropped", "more dropped"}},

	{key: "service open", from: "tcp/8080", to: "tcp/8081", see: (*changes).strangerSees, want: [2]string{"", "router"}},
	{key: "service forward", from: `forward = { port = "tcp/7890", to = "192.168.1.50:80" }`, to: `open = ["tcp/7890"]`, see: gets("nas", 7890), want: [2]string{"lan host", ""}},
	{key: "service proxy", from: "#service", to: "proxy = {}"},
	{key: "service ttl", from: "#service", to: `ttl = "1h"`, see: grants(0), want: [2]string{"15m0s", "1h0m0s"}},
	{key: "service max_ttl", from: "#service", to: `max_ttl = "30m"`, see: grants(7200), want: [2]string{"2h0m0s", "30m0s"}},
	{key: "service on_expire", base: []string{"tcp/8080", "tcp/8083"}, from: "#service", to: `on_expire = "cut"`, see: (*changes).held, want: [2]string{"lives", "ends"}},
	{key: "service guard", from: "#service", to: `guard = "off"`, see: (*changes).strangerSees, want: [2]string{"", "router"}},
	{key: "service roam", from: "#service", to: "roam = false", see: (*changes).roams, want: [2]string{"1 open", "2 open"}},
	{key: "service ipv6_prefix", from: "#service", to: "ipv6_prefix = 56", see: (*changes).width, want: [2]string{"128", "56"}},
	{key: "forward port", from: "tcp/7890", to: "tcp/7891", see: gets("nas", 7891), want: [2]string{"", "lan host"}},
	{key: "forward to", from: "192.168.1.50:80", to: "192.168.1.50:81", see: gets("nas", 7890), want: [2]string{"lan host", "other port"}},
	{key: "forward pinhole", from: `to = "192.168.1.50:80"`, to: `to = "192.168.1.50:80", pinhole = "2001:db8:5::50"`, see: kernelHas("2001:db8:5::50"), want: [2]string{"no", "yes"}},

	{key: "group services", from: `services = ["nas"]`, to: `services = ["web"]`, see: asks("nas"), want: [2]string{"opened", "denied"}},
	{key: "group from", from: "#group", to: `from = ["192.0.2.0/24"]`, see: asks("nas"), want: [2]string{"opened", "denied"}},
	{key: "group hours", from: "#group", to: `hours = "HOURS"`, see: asks("nas"), want: [2]string{"opened", "denied"}},

	{key: "device key", from: "LAPTOP", to: "OTHER", see: asks("web"), want: [2]string{"opened", "silence"}},
	{key: "device allow", from: `allow = ["web", `, to: `allow = [`, see: asks("web"), want: [2]string{"opened", "denied"}},
	{key: "device expires", from: "#device", to: "expires = 2020-01-01T00:00:00Z", see: asks("web"), want: [2]string{"opened", "silence"}},
	{key: "device disabled", from: "#device", to: "disabled = true", see: asks("web"), want: [2]string{"opened", "silence"}},
	{key: "device delegate", from: "#device", to: "delegate = true", see: (*changes).delegates, want: [2]string{"address mismatch", "opened"}},

	// The last: a time that is ahead is the device's latest afterwards.
	{key: "top window", from: "#top", to: `window = "1h"`, see: (*changes).ahead, want: [2]string{"clock off", "opened"}},
}

// changes is a running daemon whose configuration changes, and one device of it.
type changes struct {
	*rig
	laptop  *device
	nobody  *device
	replace *strings.Replacer // of what is not known before
	logged  int               // length of the log before the last reload
}

// Every key of reference.toml is either taken over by a running daemon, with its effect, or refused by its name.
func TestEveryKeyReloads(t *testing.T) {
	c := newChanges(t)
	tested := map[string]bool{}
	for _, change := range keyChanges {
		tested[change.key] = true
		before := changeBase
		for i := 0; i < len(change.base); i += 2 {
			before = strings.Replace(before, change.base[i], change.base[i+1], 1)
		}
		after := strings.Replace(before, change.from, change.to, 1)
		if after == before {
			t.Fatalf("%s: the change changes nothing", change.key)
		}
		if _, errs, code := c.reload(before); code != 0 {
			t.Fatalf("%s: the configuration before: %s", change.key, errs)
		}
		if change.see == nil {
			c.refuses(change.key, after)
			continue
		}
		for i, text := range []string{before, after} {
			if _, errs, code := c.reload(text); code != 0 {
				t.Errorf("%s: %s", change.key, errs)
			}
			if got := change.see(c); got != change.want[i] {
				t.Errorf("%s, change %d: got %q, want %q", change.key, i, got, change.want[i])
			}
		}
	}
	c.reload(changeBase)
	for _, s := range c.sessions() {
		if s.Source == "127.0.0.1" {
			t.Errorf("a door that test_loopback let be: %+v", s)
		}
	}
	known := referenceKeys(t)
	if len(known) < 30 {
		t.Errorf("only %d keys in the reference: the test looks for the wrong thing", len(known))
	}
	for _, key := range known {
		if !tested[key] {
			t.Errorf("what becomes of %s at a reload is not decided: take it over, or refuse it in restartNeeded, and add it to keyChanges", key)
		}
	}
}

// referenceKeys reads the keys that there are, each after the kind of its table.
func referenceKeys(t *testing.T) []string {
	data, err := os.ReadFile("../config/reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	header := regexp.MustCompile(`^\[(service|group|device|webhook|exec)\.`)
	pair := regexp.MustCompile(`^(?:# )?([a-z0-9_]+) = (.*)`)
	inline := regexp.MustCompile(`([a-z0-9_]+) = `)
	kind, found := "top", map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if m := header.FindStringSubmatch(line); m != nil {
			kind = m[1]
			found["top "+kind] = true
		}
		m := pair.FindStringSubmatch(line)
		if m == nil || kind == "webhook" || kind == "exec" { // made anew if anything in its table differs: see sinks.go
			continue
		}
		found[kind+" "+m[1]] = true
		if m[1] == "budget" || m[1] == "forward" {
			for _, in := range inline.FindAllStringSubmatch(m[2], -1) {
				found[m[1]+" "+in[1]] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func newChanges(t *testing.T) *changes {
	c := &changes{rig: newRig(t, services)}
	var secrets [2]keys.DeviceSecret
	for i := range secrets {
		var err error
		if secrets[i], err = keys.GenerateDevice(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	// Hours of the router's own zone, which is that of this process.
	later := time.Now().Add(6 * time.Hour)
	c.replace = strings.NewReplacer(
		"LAPTOP", secrets[0].Public().String(), "OTHER", secrets[1].Public().String(),
		"STRANGER", c.Stranger.IP4.String(), "HOURS", later.Format("15:04")+"-"+later.Add(time.Hour).Format("15:04"),
	)
	c.serve(c.LANHost, "81", "other port")
	c.echo("8083")
	c.write(changeBase)
	c.start()
	c.laptop, c.nobody = c.deviceOf(secrets[0]), c.deviceOf(secrets[1])
	return c
}

// echo answers every connection to a port of the router with what it is sent.
func (c *changes) echo(port string) {
	l, err := c.Router.Listen("tcp", ":"+port)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(conn, conn); conn.Close() }()
		}
	}()
}

func (c *changes) write(text string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "spad.toml"), []byte(c.replace.Replace(text)), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *changes) reload(text string) (out, errs string, code int) {
	c.t.Helper()
	c.write(text)
	c.logged = len(c.log.String())
	return c.spad("reload")
}

// refuses checks that a change is refused by the key's name, and changes nothing.
func (c *changes) refuses(key, text string) {
	c.t.Helper()
	name := regexp.MustCompile(`\b` + strings.Fields(key)[1] + `\b.*(can't change while spad runs|planned)`)
	if _, errs, code := c.reload(text); code != 2 || !name.MatchString(errs) {
		c.t.Errorf("%s: exit code %d, %s", key, code, errs)
	}
	if got := c.asks("web"); got != "opened" {
		c.t.Errorf("%s: after a refused reload a knock is %s", key, got)
	}
}

func (c *changes) asks(service string) string { return c.laptop.ask(c.Laptop, open(service)) }

func asks(service string) func(*changes) string {
	return func(c *changes) string { return c.asks(service) }
}

// listens asks at the port that the change is to.
func (c *changes) listens() string {
	c.port++
	defer func() { c.port-- }()
	p, w := c.laptop.seal(open("web"))
	a, err := c.exchange(c.Laptop, false, p, w)
	if err != nil {
		return fmt.Sprint("nobody at ", c.port)
	}
	return fmt.Sprint(a.Status, " at ", c.port)
}

func (c *changes) invites() string {
	v, err := keys.ParseInvite(strings.TrimSpace(c.must("invite", "x", "--allow", "web", "--no-qr")))
	if err != nil {
		return err.Error()
	}
	return v.Addr
}

func metricsHave(text string) func(*changes) string {
	return func(c *changes) string {
		if strings.Contains(c.must("status", "--metrics"), text) {
			return "yes"
		}
		return "no"
	}
}

func kernelHas(text string) func(*changes) string {
	return func(c *changes) string {
		out, err := c.Router.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			return err.Error()
		}
		if strings.Contains(string(out), text) {
			return "yes"
		}
		return "no"
	}
}

func (c *changes) strangerSees() string { return get(c.Stranger, c.Router.At(false, 8080)) }

// width is how many bits of an IPv6 address are opened for.
func (c *changes) width() string {
	c.must("close", "--all")
	p, w := c.laptop.seal(open("web"))
	if _, err := c.exchange(c.Laptop, true, p, w); err != nil {
		return err.Error()
	}
	for _, s := range c.sessions() {
		if _, bits, ok := strings.Cut(s.Source, "/"); ok {
			return bits
		}
	}
	return "128"
}

// logs is the form of the line about the last reload.
func (c *changes) logs() (form string) {
	c.eventually("the reload is logged", func() bool {
		for line := range strings.Lines(c.log.String()[c.logged:]) {
			if strings.Contains(line, "reloaded") {
				form = "text"
				if line[0] == '{' {
					form = "json"
				}
			}
		}
		return form != ""
	})
	return form
}

func code(args ...string) func(*changes) string {
	return func(c *changes) string {
		_, _, code := c.spad(args...)
		return fmt.Sprint("exit code ", code)
	}
}

func opens(service, from string) func(*changes) string { return code("open", service, "--from", from) }

// flood sends sixty packets of nobody's, in two waves, and says whether some, or most, are over the budget.
func (c *changes) flood() string {
	counts := func() (budget, all uint64) {
		var s struct{ Counters map[string]uint64 }
		c.decode(&s, "status", "--json")
		return s.Counters["refused: budget"], s.Counters["refused: budget"] + s.Counters["refused: unknown device"] + s.Counters["dropped: queue"]
	}
	conn, err := c.Stranger.Dial("udp", c.Router.At(false, c.port), time.Second)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	wave := func(n uint64) (dropped uint64) {
		budget, all := counts()
		for range n {
			p, _ := c.nobody.seal(open("web"))
			conn.Write(p)
		}
		c.eventually("the packets are counted", func() bool {
			b, a := counts()
			dropped = b - budget
			return a-all >= n
		})
		return dropped
	}
	wave(1)                        // a bucket that other limits left empty starts to fill with the first packet
	dropped := wave(30) + wave(30) // and can be full again for the second wave, if it is fast
	switch {
	case dropped > 40:
		return "more dropped"
	case dropped > 0:
		return "some dropped"
	}
	return "none dropped"
}

func gets(service string, port uint16) func(*changes) string {
	return func(c *changes) string {
		c.asks(service)
		return get(c.Laptop, c.Router.At(false, port))
	}
}

// grants is for how long web opens when asked for some seconds.
func grants(seconds uint16) func(*changes) string {
	return func(c *changes) string {
		m := open("web")
		m.TTL = seconds
		p, w := c.laptop.seal(m)
		a, err := c.exchange(c.Laptop, false, p, w)
		if err != nil {
			return err.Error()
		}
		return (time.Duration(a.TTL) * time.Second).Round(time.Minute).String()
	}
}

// held says what becomes of an established connection when its door shuts.
func (c *changes) held() string {
	if got := c.asks("web"); got != "opened" {
		return got
	}
	conn, err := c.Laptop.Dial("tcp", c.Router.At(false, 8083), time.Second)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	c.must("close", "--all")
	conn.Write([]byte("x"))
	conn.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
	if n, _ := conn.Read(make([]byte, 1)); n == 1 {
		return "lives"
	}
	return "ends"
}

// roams is how many doors are open after knocks from two places.
func (c *changes) roams() string {
	c.must("close", "--all")
	c.asks("web")
	c.laptop.ask(c.Stranger, open("web"))
	return fmt.Sprint(len(c.sessions()), " open")
}

func (c *changes) delegates() string {
	m := open("web")
	m.Address = c.Stranger.IP4
	return c.laptop.ask(c.Laptop, m)
}

func (c *changes) ahead() string {
	m := wire.Message{Op: wire.OpOpen, Service: wire.ServiceIDOf("web"), TimeMS: time.Now().Add(10 * time.Minute).UnixMilli()}
	return c.laptop.ask(c.Laptop, m)
}

// A reload that would shut out the ssh session it is asked from is refused, unless that is wanted; one that would shut
// out nobody new is not.
func TestReloadLockout(t *testing.T) {
	r := newRig(t, "always_allow = [\"203.0.113.0/24\"]\n"+services)
	r.start()
	reload := func(args ...string) string {
		t.Helper()
		cmd := r.Router.Command(r.bin+"/spad", append(append([]string{"reload"}, r.paths()...), args...)...)
		cmd.Env = append(os.Environ(), "SSH_CONNECTION=203.0.113.10 50000 203.0.113.1 8080")
		out, _ := cmd.CombinedOutput()
		return fmt.Sprintf("%d: %s", cmd.ProcessState.ExitCode(), out)
	}
	r.configure(services)
	if got := reload(); !strings.HasPrefix(got, "2: spad: service \"web\" would shut") || !strings.Contains(got, "always_allow") {
		t.Errorf("a reload that locks out: %s", got)
	}
	r.sees(r.Laptop, 8080, "router", "")
	if got := reload("--allow-lockout"); got != "0: reloaded\n" {
		t.Errorf("a reload that may lock out: %s", got)
	}
	r.sees(r.Laptop, 8080, "", "")
	if got := reload(); got != "0: reloaded\n" {
		t.Errorf("a reload that changes nothing for who is locked out: %s", got)
	}
}
