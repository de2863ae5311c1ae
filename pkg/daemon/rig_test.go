package daemon_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/firewall/firewalltest"
	"spad/pkg/wire"
)

func TestMain(m *testing.M) {
	code := firewalltest.Main(m)
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// built is the folder of the binaries, once they are made.
var built string

// binaries builds the real spad and knock once, with the race detector if the tests have it.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "spad-binaries-")
	if err != nil {
		return "", err
	}
	built = dir
	args := []string{"build", "-buildvcs=false", "-tags", "urfave_cli_no_docs", "-o", dir + "/"}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "spad/spad", "spad/knock")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the binaries: %w\n%s", err, out)
	}
	return dir, nil
})

// rig is a lab whose router runs the real spad.
type rig struct {
	*firewalltest.Lab
	t      *testing.T
	bin    string
	dir    string
	host   string // what invites name
	port   uint16
	daemon *exec.Cmd
	log    *lockedBuffer
	env    []string // of the daemon, besides our own

	container *firewalltest.Host // behind Docker's bridge; nil for most tests
}

const knockPort = 41372

// services is the configuration of most tests.
const services = `
[service.web]
open = ["tcp/8080", "udp/5000-5001"]
ttl = "1h"

[service.nas]
forward = { port = "tcp/7890", to = ["192.168.1.50:80", "[fd00:1::50]:80"] }
ttl = "1h"

[group.family]
services = ["nas"]
`

func newRig(t *testing.T, config string) *rig {
	t.Helper()
	t.Parallel()
	r := newBareRig(t, config)
	r.serve(r.Router, "8080", "router")
	r.serve(r.LANHost, "80", "lan host")
	return r
}

// newBareRig is newRig without servers, and leaves it to the test what runs beside it.
func newBareRig(t *testing.T, config string) *rig {
	t.Helper()
	lab := firewalltest.NewLab(t)
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Lab: lab, t: t, bin: bin, dir: t.TempDir(), host: lab.Router.IP4.String(), port: knockPort, log: &lockedBuffer{}}
	secret, err := keys.GenerateRouter(rand.Reader)
	if err == nil {
		err = keys.WriteRouterFile(filepath.Join(r.dir, "router.key"), secret)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.configure(config)
	return r
}

// configure writes the configuration.
func (r *rig) configure(services string) {
	r.t.Helper()
	text := fmt.Sprintf("listen = \":%d\"\nhostname = %q\nexternal = \"%s:%d\"\n%s", r.port, "router.test", r.host, r.port, services)
	if err := os.WriteFile(filepath.Join(r.dir, "spad.toml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// serve answers every TCP connection to a port of a host with a word.
func (r *rig) serve(h *firewalltest.Host, port, word string) {
	r.t.Helper()
	l, err := h.Listen("tcp", ":"+port)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, word)
			c.Close()
		}
	}()
}

// get returns the word of the server at a port of the router, or "" if there is nothing.
func get(from *firewalltest.Host, to string) string {
	c, err := from.Dial("tcp", to, 400*time.Millisecond)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	word, _ := io.ReadAll(c)
	return string(word)
}

func (r *rig) paths() []string {
	return []string{"--config", r.dir + "/spad.toml", "--state", r.dir + "/state", "--socket", r.dir + "/spad.sock"}
}

// start runs the daemon and waits until it answers.
func (r *rig) start(args ...string) {
	r.t.Helper()
	r.daemon = r.Router.Command(r.bin+"/spad", append(append([]string{"run"}, r.paths()...), args...)...)
	r.daemon.Stderr, r.daemon.Env = r.log, append(os.Environ(), r.env...)
	if err := r.daemon.Start(); err != nil {
		r.t.Fatal(err)
	}
	daemon := r.daemon
	r.t.Cleanup(func() {
		daemon.Process.Kill()
		daemon.Wait()
		if r.t.Failed() {
			r.t.Logf("log of spad:\n%s", r.log)
		}
		if strings.Contains(r.log.String(), "DATA RACE") {
			r.t.Errorf("data race in spad:\n%s", r.log)
		}
	})
	r.eventually("spad answers", func() bool { _, _, code := r.spad("status"); return code == 0 })
}

// kill ends the daemon with a signal and waits for it.
func (r *rig) kill(s syscall.Signal) {
	r.t.Helper()
	r.daemon.Process.Signal(s)
	err := r.daemon.Wait()
	if s == syscall.SIGTERM && err != nil {
		r.t.Errorf("spad ended with %v", err)
	}
}

// eventually waits for what takes a moment, at most ten seconds.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.t.Fatalf("never came true: %s", what)
}

// run runs a command on a host and returns what it wrote and its exit code.
func (r *rig) run(h *firewalltest.Host, stdin string, name string, args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	cmd := h.Command(r.bin+"/"+name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("%s %v: %v", name, args, err)
	}
	if strings.Contains(errs.String(), "DATA RACE") {
		r.t.Errorf("data race in %s %v:\n%s", name, args, errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (r *rig) spad(args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	return r.run(r.Router, "", "spad", append(args, r.paths()...)...)
}

// must is spad with an exit code of 0; it returns its standard output.
func (r *rig) must(args ...string) string {
	r.t.Helper()
	out, errs, code := r.spad(args...)
	if code != 0 {
		r.t.Fatalf("spad %v: exit code %d\n%s%s", args, code, out, errs)
	}
	return out
}

// knock runs the client on a host; each host has a configuration of its own.
func (r *rig) knock(h *firewalltest.Host, args ...string) (output string, code int) {
	r.t.Helper()
	out, errs, code := r.run(h, "", "knock", append([]string{"--config", filepath.Join(r.dir, h.Name)}, args...)...)
	return out + errs, code
}

// enrol gives a host a device of its name.
func (r *rig) enrol(h *firewalltest.Host, allow string) {
	r.t.Helper()
	line := strings.TrimSpace(r.must("invite", h.Name, "--allow", allow, "--no-qr"))
	if out, code := r.knock(h, "enroll", line); code != 0 {
		r.t.Fatalf("knock enroll: exit code %d\n%s", code, out)
	}
}

// expectKnock runs knock on a host and wants an exit code.
func (r *rig) expectKnock(h *firewalltest.Host, want int, args ...string) string {
	r.t.Helper()
	out, code := r.knock(h, args...)
	if code != want {
		r.t.Errorf("knock %v at %s: exit code %d, want %d\n%s", args, h.Name, code, want, out)
	}
	return out
}

// sees checks what a host gets from a port of the router, in both families.
func (r *rig) sees(h *firewalltest.Host, port uint16, want4, want6 string) {
	r.t.Helper()
	for v6, want := range map[bool]string{false: want4, true: want6} {
		if got := get(h, r.Router.At(v6, port)); got != want {
			r.t.Errorf("%s at port %d, IPv6 %v: got %q, want %q", h.Name, port, v6, got, want)
		}
	}
}

type openSession struct {
	ID, Device, Service, Source string
}

func (r *rig) sessions() (all []openSession) {
	r.t.Helper()
	r.decode(&all, "sessions", "--json")
	return all
}

// decode reads the JSON that a command of spad prints.
func (r *rig) decode(into any, args ...string) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.must(args...)), into); err != nil {
		r.t.Fatal(err)
	}
}

// device is a client made of package wire alone, to send what knock never would.
type device struct {
	r      *rig
	secret keys.DeviceSecret
	sealer *wire.Sealer
	lastMS int64
}

// newDevice adds a device whose key was carried by hand.
func (r *rig) newDevice(name, allow string) *device {
	r.t.Helper()
	secret, err := keys.GenerateDevice(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	r.must("device", "add", name, "--key", secret.Public().String(), "--allow", allow)
	return r.deviceOf(secret)
}

func (r *rig) deviceOf(secret keys.DeviceSecret) *device {
	router, err := keys.ParseRouterPublic(strings.TrimSpace(r.must("key")))
	if err != nil {
		r.t.Fatal(err)
	}
	return &device{r: r, secret: secret, sealer: wire.NewSealer(router)}
}

// seal makes a packet that wants an answer; a zero time is now, or just after the last such one.
func (d *device) seal(m wire.Message) ([]byte, wire.Waiter) {
	m.WantAnswer = true
	if m.TimeMS == 0 {
		m.TimeMS = max(time.Now().UnixMilli(), d.lastMS+1)
		d.lastMS = m.TimeMS
	}
	p, w, err := d.sealer.Seal(m, d.secret, rand.Reader)
	if err != nil {
		d.r.t.Fatal(err)
	}
	return p[:], w
}

func open(service string) wire.Message {
	return wire.Message{Op: wire.OpOpen, Service: wire.ServiceIDOf(service)}
}

// ask sends a message and returns the answer's status, or "silence".
func (d *device) ask(h *firewalltest.Host, m wire.Message) string {
	d.r.t.Helper()
	p, w := d.seal(m)
	return d.r.send(h, p, w)
}

// send sends a packet and returns the answer's status, or "silence" after a while.
func (r *rig) send(h *firewalltest.Host, p []byte, w wire.Waiter) string {
	r.t.Helper()
	a, err := r.exchange(h, false, p, w)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "silence"
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return a.Status.String()
}

func (r *rig) exchange(h *firewalltest.Host, v6 bool, p []byte, w wire.Waiter) (wire.Answer, error) {
	return r.exchangeAt(r.Router.At(v6, r.port), h, p, w)
}

func (r *rig) exchangeAt(router string, h *firewalltest.Host, p []byte, w wire.Waiter) (wire.Answer, error) {
	c, err := h.Dial("udp", router, time.Second)
	if err != nil {
		return wire.Answer{}, err
	}
	defer c.Close()
	if _, err := c.Write(p); err != nil {
		return wire.Answer{}, err
	}
	c.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		return wire.Answer{}, err
	}
	return w.OpenAnswer(buf[:n])
}

// lockedBuffer is a log that a process writes and a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
