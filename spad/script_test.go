package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"

	"spad/pkg/control"
	"spad/pkg/device"
	"spad/pkg/event"
)

var update = flag.Bool("update", false, "rewrite the expected texts in testdata")

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){"spad": main})
}

// leakless are tests that must not leave a goroutine behind.
type leakless struct{ *testing.M }

// Run implements testscript.TestingM.
func (m leakless) Run() (code int) {
	goleak.VerifyTestMain(m.M, goleak.Cleanup(func(c int) { code = c }))
	return code
}

// The scripts run the real command, wherever no firewall is needed.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("SSH_CONNECTION", "127.0.0.1 1 127.0.0.1 22") // whoever runs the tests over ssh is not asked about
			e.Setenv("GORACE", "atexit_sleep_ms=0")                // else each command under the race detector takes a second to end
			return os.Chmod(e.WorkDir, 0o700)
		},
		Condition: func(name string) (bool, error) { return name == "root" && os.Geteuid() == 0, nil },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"chown": chown, "exec-code": execCode, "lines": lines, "lock": lock, "serve": serve,
		},
	})
}

// exec-code N COMMAND wants this very exit code.
func execCode(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if got := strconv.Itoa(code); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// chown UID FILE gives a file away.
func chown(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.Atoi(args[0])
	ts.Check(err)
	ts.Check(os.Chown(ts.MkAbs(args[1]), uid, uid))
}

// lines N FILE wants that many lines; FILE may be stdout or stderr.
func lines(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(strings.Count(ts.ReadFile(args[1]), "\n")); got != args[0] {
		ts.Fatalf("%s has %s lines, want %s:\n%s", args[1], got, args[0], ts.ReadFile(args[1]))
	}
}

// lock DIR holds a state directory until the script ends, as a daemon does.
func lock(ts *testscript.TestScript, _ bool, args []string) {
	store, err := device.Open(ts.MkAbs(args[0]), nil)
	ts.Check(err)
	ts.Defer(func() { store.Close() })
}

// serve SOCKET answers as a daemon with known sessions would, until the script ends or tells it to stop.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	stop, err := serveFake(ts.MkAbs(args[0]), event.NewBus(slog.New(slog.DiscardHandler)))
	ts.Check(err)
	ts.Defer(func() { ts.Check(stop()) })
}

func serveFake(socket string, bus *event.Bus) (stop func() error, err error) {
	l, err := control.Listen(socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &fakeDaemon{stop: cancel}
	server := &control.Server{Sessions: d, Devices: d, Daemon: d, Why: d, Events: bus, Metrics: d.metrics, Log: slog.New(slog.DiscardHandler)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	return func() error { cancel(); return <-done }, nil
}

func (d *fakeDaemon) metrics(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "spad_sessions 1\n")
	return err
}

// fakeDaemon has one open door, and makes the same invite for everybody.
type fakeDaemon struct {
	devices
	stop   func()
	mended bool
}

// devices is for the methods that no script calls by way of a daemon.
type devices interface{ control.Devices }

func (d *fakeDaemon) session() control.Session {
	now := time.Now()
	return control.Session{
		ID: "k3v9", Device: "laptop", Service: "nas", Source: "198.51.100.7", By: "knock",
		Opened: now.Add(-time.Minute), Until: now.Add(14 * time.Minute), TTLLeft: 14 * 60,
	}
}

func (d *fakeDaemon) Sessions(context.Context) ([]control.Session, error) {
	return []control.Session{d.session()}, nil
}

func (d *fakeDaemon) Open(_ context.Context, r control.OpenRequest) (control.Session, error) {
	if r.Service != "nas" {
		return control.Session{}, control.Unknown("no service is called that; the configuration has nas")
	}
	if r.From == netip.MustParseAddr("::1") {
		return control.Session{}, &control.UsageError{Text: "no door can be opened for ::1"}
	}
	ttl := 15 * time.Minute
	if r.TTL != 0 {
		ttl = r.TTL
	}
	return control.Session{ID: "m2x7", Service: r.Service, Source: r.From.String(), By: "operator", TTLLeft: int(ttl.Seconds())}, nil
}

func (d *fakeDaemon) Close(_ context.Context, r control.CloseRequest) ([]control.Session, error) {
	switch {
	case r.ID == "k3v9", r.Device == "laptop", r.Service == "nas", r.All:
		return []control.Session{d.session()}, nil
	case r.ID != "":
		return nil, control.Unknown("no open session has that id; spad sessions shows them")
	}
	return nil, nil
}

func (d *fakeDaemon) Invite(_ context.Context, r control.InviteRequest) (control.Invite, error) {
	return control.Invite{Name: r.Name, Line: "knock1:by-the-daemon", Expires: time.Now().Add(r.TTL)}, nil
}

func (d *fakeDaemon) Status(context.Context) (control.Status, error) {
	return control.Status{
		Version: "v9", Listen: ":41372", Firewall: "nftables", Started: time.Now().Add(-time.Hour), Uptime: 3600, KnockClock: time.Now(),
		Devices: 1, Services: 2, Sessions: 1, Invites: 3, Counters: map[string]uint64{"packets_dropped": 7, "busy": 0},
	}, nil
}

// Reload refuses the first time and has it mended by the second.
func (d *fakeDaemon) Reload(context.Context, control.ReloadRequest) error {
	if d.mended {
		return nil
	}
	d.mended = true
	return &control.UsageError{Text: "spad.toml:3: one problem\nspad.toml:7: another"}
}

// Why knows of laptop, and of packets that proved nobody.
func (d *fakeDaemon) Why(_ context.Context, r control.WhyRequest) (control.Why, error) {
	w := control.Why{Since: time.Now().Add(-time.Hour), Knocks: []control.Knock{}, Drops: []control.Drop{{Reason: "gate", Count: 7, Remedy: "another program"}}}
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	switch {
	case r.Device == "laptop":
		w.Knocks = []control.Knock{
			{Time: ago(time.Minute), Count: 1, Device: "laptop", Service: "nas", Source: "198.51.100.7", Outcome: "opened", TTL: 900},
			{Time: ago(2 * time.Minute), Count: 3, Device: "laptop", Service: "ssh", Source: "198.51.100.7", Sender: "192.0.2.1", Outcome: "refused", Reason: "not now", Remedy: "see hours"},
			{Time: ago(3 * time.Minute), Count: 1, Device: "laptop", Source: "198.51.100.7", Outcome: "refused", Reason: "not now", Remedy: "see hours"},
		}
	case r.Device != "":
		return w, control.Unknown("no device is called that; spad device list shows them")
	case r.Address == netip.MustParseAddr("192.0.2.9"):
		w.Drops = nil
	case r.Address == netip.MustParseAddr("192.0.2.10"):
		w.Drops = nil
		w.Knocks = []control.Knock{{Time: ago(0), Count: 1, Device: "laptop", Source: "192.0.2.10", Outcome: "hello"}}
	}
	return w, nil
}

// Confirm has nothing to confirm.
func (d *fakeDaemon) Confirm(context.Context) error {
	return &control.UsageError{Text: "nothing is on trial"}
}

func (d *fakeDaemon) Stop(context.Context) error { d.stop(); return nil }

// A watcher sees events as they come, and ends without an error when it is interrupted.
func TestWatch(t *testing.T) {
	for _, tt := range []struct{ name, option, want string }{
		{"text", "--json=false", "opened service=nas source=198.51.100.7"},
		{"json", "--json", `"kind":"opened","service":"nas","source":"198.51.100.7"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWatcher(t, tt.option)
			stop := w.serve(t)
			w.start(t)
			if line := <-w.seen; !strings.Contains(line, tt.want) || strings.Contains(line, "\x1b") {
				t.Errorf("got %q, want %q in it and no colour", line, tt.want)
			}
			w.end(t)
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// When the daemon stops, a watcher says so, and goes on with the next one.
func TestWatchSurvivesARestart(t *testing.T) {
	w := newWatcher(t, "--json")
	stop := w.serve(t)
	w.start(t)
	<-w.seen
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"has stopped", "watching again"} {
		if text := <-w.said; !strings.Contains(text, want) {
			t.Errorf("stderr has %q, want %q", text, want)
		}
		if want == "has stopped" {
			for len(w.seen) > 0 { // of the first daemon
				<-w.seen
			}
			stop = w.serve(t)
		}
	}
	<-w.seen
	w.end(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// watcher is a spad watch under test.
type watcher struct {
	bus          *event.Bus
	socket       string
	option       string
	seen, said   chan string
	cancel       context.CancelFunc
	done, ending chan error
}

func newWatcher(t *testing.T, option string) *watcher {
	return &watcher{
		bus: event.NewBus(slog.New(slog.DiscardHandler)), socket: filepath.Join(t.TempDir(), "s"), option: option,
		seen: make(chan string, 1), said: make(chan string, 8), done: make(chan error, 1), ending: make(chan error, 1),
	}
}

func (w *watcher) serve(t *testing.T) (stop func() error) {
	t.Helper()
	stop, err := serveFake(w.socket, w.bus)
	if err != nil {
		t.Fatal(err)
	}
	return stop
}

// start watches, and publishes all the while: the watcher comes at its own time.
func (w *watcher) start(t *testing.T) {
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(t.Context())
	tell := func(ch chan string) io.Writer {
		return writerFunc(func(b []byte) (int, error) {
			select {
			case ch <- string(b):
			default:
			}
			return len(b), nil
		})
	}
	go func() {
		w.done <- newApp(tell(w.seen), tell(w.said)).RunContext(ctx, []string{"spad", "watch", "--socket", w.socket, w.option})
	}()
	go publishUntil(w.bus, w.done, func(err error) { w.ending <- err })
}

func (w *watcher) end(t *testing.T) {
	t.Helper()
	w.cancel()
	if err := <-w.ending; err != nil {
		t.Errorf("watch ended with: %v", err)
	}
}

// publishUntil publishes until done: the watcher comes at its own time.
func publishUntil(bus *event.Bus, done <-chan error, ended func(error)) {
	for {
		select {
		case err := <-done:
			ended(err)
			return
		default:
			bus.Publish(event.Event{Kind: event.Opened, Service: "nas", Source: "198.51.100.7"})
			runtime.Gosched()
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// help.txt must hold every command, and every command an example.
func TestHelpIsComplete(t *testing.T) {
	script, err := os.ReadFile("testdata/help.txt")
	if err != nil {
		t.Fatal(err)
	}
	everyCommand(newApp(io.Discard, io.Discard), func(path string, c *cli.Command) {
		if !strings.Contains(string(script), "exec spad "+path+" --help\n") {
			t.Errorf("testdata/help.txt lacks: exec spad %s --help", path)
		}
		if !strings.Contains(c.Description, "Example:\n  ") {
			t.Errorf("the help of %s has no example", path)
		}
	})
}
