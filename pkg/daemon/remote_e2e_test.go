package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/control"
	"spad/pkg/firewall/firewalltest"
	"spad/pkg/remote"
	"spad/pkg/wire"
)

// newRemoteRig is a rig whose router listens for remotes.
func newRemoteRig(t *testing.T) *rig {
	r := newRig(t, services)
	r.configure(fmt.Sprintf("remote = \"%s\"\n", r.Router.At(false, remotePort)) + services)
	r.start()
	return r
}

const remotePort = 41373

// join makes a host a remote and returns the file that --remote takes.
func (r *rig) join(h *firewalltest.Host, name string, rights ...string) string {
	r.t.Helper()
	file := filepath.Join(r.dir, h.Name+"-"+name+".pem")
	line := r.must(append([]string{"remote", "add", name}, rights...)...)
	if out, errs, code := r.run(h, line, "spad", "remote", "join", "-", "--as", file); code != 0 {
		r.t.Fatalf("spad remote join: exit code %d\n%s%s", code, out, errs)
	}
	return file
}

// at runs spad on a host through a remote, wants an exit code and a text, and returns all that it printed.
func (r *rig) at(h *firewalltest.Host, file string, want int, says string, args ...string) string {
	r.t.Helper()
	out, errs, code := r.run(h, "", "spad", append(args, "--remote", file)...)
	if code != want || !strings.Contains(out+errs, says) {
		r.t.Errorf("spad %v at %s: exit code %d, want %d, and %q in\n%s%s", args, h.Name, code, want, says, out, errs)
	}
	return out + errs
}

// The main job: one pasted line, and a machine elsewhere opens and shuts what it has a right to, and nothing else.
func TestRemoteControl(t *testing.T) {
	r := newRemoteRig(t)
	web := r.join(r.Laptop, "web", "--allow", "group:family", "--name-addresses")
	r.at(r.Laptop, web, 0, "nftables", "status")
	r.at(r.Laptop, web, 0, "opened nas for "+r.Stranger.IP4.String(), "open", "nas", "--from", r.Stranger.IP4.String())
	r.sees(r.Stranger, 7890, "lan host", "")
	r.sees(r.Laptop, 7890, "", "")
	r.at(r.Laptop, web, 0, "opened nas for "+r.Laptop.IP4.String(), "open", "nas") // the address that it connects from
	r.sees(r.Laptop, 7890, "lan host", "")
	r.at(r.Laptop, web, 0, "remote web", "sessions")

	r.must("open", "web", "--from", r.Laptop.IP4.String())
	if all := r.at(r.Laptop, web, 0, "nas", "sessions", "--json"); strings.Contains(all, `"service": "web"`) {
		t.Errorf("it sees doors of others:\n%s", all)
	}
	r.at(r.Laptop, web, 1, `no right to a service "web"; it has nas`, "open", "web")
	r.at(r.Laptop, web, 1, `no right to a service "none"; it has nas`, "open", "none")
	r.at(r.Laptop, web, 1, "no right to a service", "close", "--service", "web")
	r.at(r.Laptop, web, 1, "may not manage devices", "device", "list")
	r.at(r.Laptop, web, 1, "may not manage devices", "invite", "phone", "--allow", "nas")
	r.at(r.Laptop, web, 2, "is unspecified", "open", "nas", "--from", "127.0.0.1")
	r.at(r.Laptop, web, 2, "opens for 1s to", "open", "nas", "--ttl", "100h")
	for _, s := range r.sessions() {
		if s.Service == "web" {
			r.at(r.Laptop, web, 1, "no open session has the id", "close", s.ID)
		}
	}
	if out := r.at(r.Laptop, web, 0, "closed nas", "close", "--all"); strings.Count(out, "\n") != 2 {
		t.Errorf("close --all closed\n%s", out)
	}
	r.sees(r.Stranger, 7890, "", "")
	if s := r.sessions(); len(s) != 1 || s[0].Service != "web" {
		t.Errorf("left open: %+v", s)
	}
	if log := r.log.String(); !strings.Contains(log, `by="remote web"`) || !strings.Contains(log, "remote joined") {
		t.Error("the log does not say who it was")
	}
}

// A remote with fewer rights is held to them, on the server: its own client would send anything.
func TestRemoteRights(t *testing.T) {
	r := newRemoteRig(t)
	self := r.join(r.Laptop, "self", "--allow", "nas")
	r.at(r.Laptop, self, 1, "may not name addresses", "open", "nas", "--from", r.Stranger.IP4.String())
	r.at(r.Laptop, self, 0, "opened nas", "open", "nas", "--from", r.Laptop.IP4.String())

	look := r.join(r.Laptop, "look", "--allow", "nas", "--read-only", "--manage")
	r.at(r.Laptop, look, 0, "nas", "sessions")
	r.at(r.Laptop, look, 0, "NAME", "device", "list")
	for _, args := range [][]string{{"open", "nas"}, {"close", "--all"}, {"invite", "phone", "--allow", "nas"}, {"device", "remove", "x"}} {
		r.at(r.Laptop, look, 1, "may look, and change nothing", args...)
	}
	r.sees(r.Laptop, 7890, "lan host", "")

	manage := r.join(r.Laptop, "manage", "--allow", "nas", "--manage")
	r.newDevice("both", "web,nas")
	r.newDevice("other", "web")
	r.at(r.Laptop, manage, 0, "knock1:", "invite", "phone", "--allow", "nas")
	r.at(r.Laptop, manage, 1, "no other rights than its own", "invite", "phone2", "--allow", "nas,web")
	r.at(r.Laptop, manage, 1, "no other rights than its own", "invite", "phone2", "--allow", "group:family")
	r.must("invite", "tablet", "--allow", "web", "--no-qr")
	r.at(r.Laptop, manage, 1, "none of this remote's", "invite", "tablet", "--allow", "nas")
	r.at(r.Laptop, manage, 1, "good for 24h0m0s at most", "invite", "phone2", "--allow", "nas", "--expires", "48h")
	r.at(r.Laptop, manage, 1, "no other rights than its own", "device", "remove", "both")
	r.at(r.Laptop, manage, 1, `no device is called "other"`, "device", "remove", "other")
	if all := r.at(r.Laptop, manage, 0, "both", "device", "list"); strings.Contains(all, "other") {
		t.Errorf("it sees devices of others:\n%s", all)
	}
	c := r.httpAt(r.Laptop, manage)
	for _, path := range []string{"/v1/stop", "/v1/reload", "/v1/remotes", "/v1/nothing"} {
		if code, text := c.post(path, "{}"); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if code, text := c.post("/v1/devices", `{"name":"d","key":"knock-device:x","allow":["nas"],"delegate":true}`); code != http.StatusForbidden {
		t.Errorf("a delegate: %d %s", code, text)
	}
	if code, text := c.post("/v1/invites", `{"name":"d","allow":[]}`); code != http.StatusBadRequest {
		t.Errorf("an invite for nothing: %d %s", code, text)
	}
	r.must("status")
}

func TestRemoteJoin(t *testing.T) {
	r := newRemoteRig(t)
	line := r.must("remote", "add", "web", "--allow", "nas")
	parsed, err := keys.ParseRemoteLine(line)
	if err != nil {
		t.Fatal(err)
	}
	join := func(h *firewalltest.Host, line string, want int, says string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "x.pem")
		if out, errs, code := r.run(h, line, "spad", "remote", "join", "-", "--as", file); code != want || !strings.Contains(out+errs, says) {
			t.Errorf("join: exit code %d, want %d, and %q in\n%s%s", code, want, says, out, errs)
		}
	}
	text := func(change func(*keys.RemoteLine)) string {
		l := parsed
		change(&l)
		text, err := l.Text()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	join(r.Laptop, "hello", 2, "it starts with spad-remote1:")
	join(r.Laptop, line[:len(line)-9], 2, "copy all of it")
	join(r.Laptop, text(func(l *keys.RemoteLine) { l.Router[0] ^= 1 }), 1, "is not the router that was joined")
	join(r.Laptop, text(func(l *keys.RemoteLine) { l.Token.ID[0] ^= 1 }), 1, "was used already, has expired, or was never")
	join(r.Laptop, text(func(l *keys.RemoteLine) { l.Token.Secret[0] ^= 1 }), 1, "was used already, has expired, or was never")
	join(r.Laptop, text(func(l *keys.RemoteLine) { l.Addr = r.Router.At(false, 1) }), 1, "is spad running there")
	if got := r.must("remote", "list"); !strings.Contains(got, "line dies in") {
		t.Errorf("after all that the line is not as it was:\n%s", got)
	}
	join(r.Laptop, line, 0, "which calls this machine web")
	join(r.Stranger, line, 1, "was used already, has expired, or was never")
	r.must("remote", "list", "--json")
	if _, errs, code := r.spad("remote", "add", "web", "--allow", "nas"); code != 1 || !strings.Contains(errs, "exists already") {
		t.Errorf("its name again: %d %s", code, errs)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"add", "x"}, 2, "needs --allow"},
		{[]string{"add", "x", "--allow", "none"}, 2, "unknown service"},
		{[]string{"add", "My PC", "--allow", "nas"}, 2, "is not possible"},
		{[]string{"add", "x", "--allow", "nas", "--address", "a b"}, 2, "is no address"},
		{[]string{"remove", "none"}, 1, "no remote is called"},
	} {
		if _, errs, code := r.spad(append([]string{"remote"}, tt.args...)...); code != tt.code || !strings.Contains(errs, tt.says) {
			t.Errorf("%v: %d %s", tt.args, code, errs)
		}
	}
}

// A stranger who reaches the port meets the end of a handshake, whatever he shows.
func TestRemoteStranger(t *testing.T) {
	r := newRemoteRig(t)
	r.must("remote", "add", "web", "--allow", "nas") // an open line changes nothing for who has it not
	secret, err := keys.GenerateRemote(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := remote.Certificate(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"no certificate":   {InsecureSkipVerify: true},
		"some certificate": {InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}},
		"TLS 1.2":          {InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12},
		"a made-up token":  {InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, NextProtos: []string{"spad-join-000000000000", "http/1.1"}},
	} {
		c, err := r.Stranger.Dial("tcp", r.Router.At(false, remotePort), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		conn := tls.Client(c, config)
		io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
		if answer, err := io.ReadAll(conn); err == nil || len(answer) > 0 {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		conn.Close()
	}
	if strings.Contains(r.log.String(), "TLS") {
		t.Error("strangers fill the log")
	}
}

// Who is removed is refused at once: new requests, connections that are there, the stream of events; its doors shut.
func TestRemoteRemoved(t *testing.T) {
	r := newRemoteRig(t)
	web := r.join(r.Laptop, "web", "--allow", "nas")
	stays := r.join(r.Stranger, "stays", "--allow", "nas")
	watch := r.Laptop.Command(r.bin+"/spad", "watch", "--json", "--remote", web)
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs := &lockedBuffer{}
	watch.Stderr = errs
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Process.Kill()
	events := make(chan string, 100)
	go func() {
		defer close(events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			events <- lines.Text()
		}
	}()
	c := r.httpAt(r.Laptop, web)
	if code, text := c.post("/v1/open", `{"service":"nas"}`); code != http.StatusOK {
		t.Fatalf("open: %d %s", code, text)
	}
	r.must("open", "web", "--from", r.Laptop.IP4.String())
	r.at(r.Stranger, stays, 0, "opened nas", "open", "nas")
	r.eventually("the door is in the stream", func() bool { // the watcher comes at its own time
		r.at(r.Laptop, web, 0, "opened nas", "open", "nas")
		select {
		case e := <-events:
			return strings.Contains(e, `"service":"nas"`) && strings.Contains(e, `"by":"remote web"`)
		default:
			return false
		}
	})
	r.sees(r.Laptop, 7890, "lan host", "")
	r.must("open", "web", "--from", r.Laptop.IP4.String()) // nobody's business
	r.must("invite", "phone", "--allow", "nas")
	r.at(r.Laptop, web, 0, "opened nas", "open", "nas")

	r.must("remote", "remove", "web")
	r.sees(r.Laptop, 7890, "", "")
	r.sees(r.Stranger, 7890, "lan host", "") // another remote's door
	if code, text := c.post("/v1/open", `{"service":"nas"}`); code != http.StatusForbidden || !strings.Contains(text, "no remote of this router") {
		t.Errorf("on a connection that was there: %d %s", code, text)
	}
	r.at(r.Laptop, web, 1, "does not take this machine's key", "status")
	defer time.AfterFunc(10*time.Second, func() { watch.Process.Kill() }).Stop()
	for e := range events {
		if !strings.Contains(e, `"service":"nas"`) {
			t.Errorf("the stream had %s", e)
		}
	}
	if err := watch.Wait(); err == nil || !strings.Contains(errs.String(), "went away") {
		t.Errorf("the stream ended with %v: %s", err, errs)
	}
	r.kill(15)
	r.start()
	if s := r.sessions(); len(s) != 2 {
		t.Errorf("after a restart: %+v", s)
	}
	r.at(r.Stranger, stays, 0, "nas", "sessions") // the router's key is as it was
	r.must("remote", "remove", "stays")
	r.sees(r.Stranger, 7890, "", "")
}

// A knock that somebody hands in is one like any other: verified, budgeted, used up.
func TestKnockHandedIn(t *testing.T) {
	r := newRemoteRig(t)
	d := r.newDevice("laptop", "web,nas")
	web := r.httpAt(r.LANHost, r.join(r.LANHost, "web", "--allow", "nas", "--name-addresses"))
	hand := func(c httpClient, p []byte, from netip.Addr) (int, []byte) {
		t.Helper()
		body, _ := json.Marshal(control.KnockRequest{Packet: p, From: from})
		code, text := c.post("/v1/knock", string(body))
		var a control.KnockAnswer
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		return code, a.Answer
	}
	p, w := d.seal(open("nas"))
	code, sealed := hand(web, p, r.Laptop.IP4)
	if a, err := w.OpenAnswer(sealed); code != http.StatusOK || err != nil || a.Status != wire.Opened || a.Seen != r.Laptop.IP4 || a.TTL != 3600 {
		t.Fatalf("%d %+v %v", code, a, err)
	}
	r.sees(r.Laptop, 7890, "lan host", "")
	if s := r.sessions(); len(s) != 1 || s[0].Device != "laptop" {
		t.Errorf("sessions: %+v", s)
	}
	r.must("close", "--all")
	if code, sealed := hand(web, p, r.Laptop.IP4); code != http.StatusOK || len(sealed) != 0 {
		t.Errorf("a replay: %d %x", code, sealed)
	}
	if got := r.send(r.Laptop, p, w); got != "silence" {
		t.Errorf("the same by UDP: %s", got)
	}
	q, w := d.seal(open("nas"))
	if got := r.send(r.Laptop, q, w); got != "opened" {
		t.Fatalf("another by UDP: %s", got)
	}
	r.must("close", "--all")
	if code, sealed := hand(web, q, r.Laptop.IP4); code != http.StatusOK || len(sealed) != 0 {
		t.Errorf("one that came by UDP, handed in: %d %x", code, sealed)
	}
	p, w = d.seal(open("web"))
	if _, sealed := hand(web, p, r.Laptop.IP4); status(w, sealed) != "denied" {
		t.Errorf("a service that is none of the remote's: %s", status(w, sealed))
	}
	p, _ = d.seal(open("nas"))
	p[20] ^= 1
	if code, sealed := hand(web, p, r.Laptop.IP4); code != http.StatusOK || len(sealed) != 0 {
		t.Errorf("a forged one: %d %x", code, sealed)
	}
	if code, _ := hand(web, p[:159], r.Laptop.IP4); code != http.StatusBadRequest {
		t.Errorf("a short one: %d", code)
	}
	p, w = d.seal(open("nas"))
	if _, sealed := hand(web, p, r.Router.IP4); status(w, sealed) == "opened" {
		t.Error("it opens for the router itself")
	}
	if s := r.sessions(); len(s) != 0 {
		t.Errorf("sessions: %+v", s)
	}
	self := r.httpAt(r.Laptop, r.join(r.Laptop, "self", "--allow", "nas"))
	p, w = d.seal(open("nas"))
	if code, _ := hand(self, p, r.Stranger.IP4); code != http.StatusForbidden {
		t.Errorf("an address that it may not name: %d", code)
	}
	if _, sealed := hand(self, p, netip.Addr{}); status(w, sealed) != "opened" {
		t.Errorf("its own address: %s", status(w, sealed))
	}
	r.sees(r.Laptop, 7890, "lan host", "")
	look := r.httpAt(r.Laptop, r.join(r.Laptop, "look", "--allow", "nas", "--read-only"))
	p, _ = d.seal(open("nas"))
	if code, _ := hand(look, p, netip.Addr{}); code != http.StatusForbidden {
		t.Errorf("by who may only look: %d", code)
	}
	if log := r.log.String(); !strings.Contains(log, `msg="knock relayed" device=laptop`) || !strings.Contains(log, `by="remote web"`) {
		t.Error("the log does not say who handed it in")
	}
}

func status(w wire.Waiter, sealed []byte) string {
	a, err := w.OpenAnswer(sealed)
	if err != nil {
		return "silence"
	}
	return a.Status.String()
}

// Knocks that are handed in count against the budget of the address that they come from.
func TestKnocksHandedInAreBudgeted(t *testing.T) {
	r := newRig(t, services)
	r.configure(fmt.Sprintf("remote = \"%s\"\nbudget = { source = \"1/s\", burst = 3 }\n", r.Router.At(false, remotePort)) + services)
	r.start()
	d := r.newDevice("laptop", "nas")
	web := r.httpAt(r.LANHost, r.join(r.LANHost, "web", "--allow", "nas", "--name-addresses"))
	silence := 0
	for range 10 {
		p, w := d.seal(wire.Message{Op: wire.OpHello})
		body, _ := json.Marshal(control.KnockRequest{Packet: p, From: r.Laptop.IP4})
		_, text := web.post("/v1/knock", string(body))
		var a control.KnockAnswer
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if status(w, a.Answer) == "silence" {
			silence++
		}
	}
	if silence == 0 || silence > 7 {
		t.Errorf("%d of 10 knocks were over a budget of 3 and 1 a second", silence)
	}
}

// Off by default; and what is wrong is said before anything else is done.
func TestRemoteIsOff(t *testing.T) {
	r := newRig(t, services)
	r.start()
	if c, err := r.Laptop.Dial("tcp", r.Router.At(false, remotePort), time.Second); err == nil {
		c.Close()
		t.Error("somebody listens")
	}
	if _, errs, code := r.spad("remote", "add", "web", "--allow", "nas"); code != 2 || !strings.Contains(errs, "remote control is off; write remote = ") {
		t.Errorf("%d %s", code, errs)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "state", "remote.key")); err == nil {
		t.Error("there is a key nobody needs")
	}
	r.configure("remote = \"" + r.Router.At(false, remotePort) + "\"\n" + services)
	if _, errs, code := r.spad("reload"); code != 2 || !strings.Contains(errs, "remote can't change while spad runs") {
		t.Errorf("reload: %d %s", code, errs)
	}
}

// The daemon is up before the network: an address that comes later is no reason not to start.
func TestRemoteBeforeTheNetwork(t *testing.T) {
	r := newRig(t, services)
	for _, late := range []string{"192.0.2.77", "2001:db8:77::1"} {
		at := net.JoinHostPort(late, "41373")
		r.configure("remote = \"" + at + "\"\n" + services)
		r.start()
		if !strings.Contains(r.log.String(), "does not have the address of remote yet") {
			t.Error("the log does not say so")
		}
		add := r.Router.Command("ip", "address", "add", late, "dev", "lo")
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		name := fmt.Sprintf("web-%d", len(late))
		r.at(r.Router, r.join(r.Router, name, "--allow", "nas"), 0, "nftables", "status")
		r.kill(15)
	}
	busy, err := r.Router.Listen("tcp", ":41373")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if _, errs, code := r.spad("run"); code != 1 || !strings.Contains(errs, "listening for remotes: ") || !strings.Contains(errs, "already in use") {
		t.Errorf("a port that is taken: %d %s", code, errs)
	}
}

// httpClient speaks to the router as another program would, on one connection.
type httpClient struct {
	t *testing.T
	c *http.Client
}

func (r *rig) httpAt(h *firewalltest.Host, file string) httpClient {
	r.t.Helper()
	router, err := remote.ReadRouter(file)
	if err != nil {
		r.t.Fatal(err)
	}
	config, err := remote.ClientConfig(router.Secret, router.Pin, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	transport := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		c, err := h.Dial("tcp", router.Addr, 5*time.Second)
		if err != nil {
			return nil, err
		}
		return tls.Client(c, config), nil
	}}
	r.t.Cleanup(transport.CloseIdleConnections)
	return httpClient{r.t, &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

func (c httpClient) post(path, body string) (code int, text string) {
	c.t.Helper()
	a, err := c.c.Post("https://router"+path, "application/json", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer a.Body.Close()
	all, err := io.ReadAll(a.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return a.StatusCode, string(all)
}
