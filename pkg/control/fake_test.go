package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"spad/pkg/event"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fake is a daemon that records what it is asked and answers err, or something fixed.
type fake struct {
	mu      sync.Mutex
	asked   []any
	err     error
	inside  chan struct{}             // told when a call has come in, if not nil
	waiting func(ctx context.Context) // what a call does before it returns, if not nil
	listed  int                       // how many sessions and devices there are
}

func (f *fake) ask(ctx context.Context, what any) error {
	f.mu.Lock()
	f.asked = append(f.asked, what)
	err, inside, waiting := f.err, f.inside, f.waiting
	f.mu.Unlock()
	if inside != nil {
		inside <- struct{}{}
	}
	if waiting != nil {
		waiting(ctx)
	}
	return errors.Join(err, ctx.Err())
}

func (f *fake) calls() []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func session(id int) Session {
	return Session{
		ID: fmt.Sprintf("s%d", id), Device: "laptop", Service: "ssh", Source: "192.0.2.1", By: "knock", Opened: noon,
		Until: noon.Add(time.Minute), TTLLeft: 59,
	}
}

func someDevice() Device {
	return Device{Name: "laptop", Key: "knock-device:x", Allow: []string{"ssh"}, Expires: &noon, Delegate: true, Origin: "state"}
}

func status() Status {
	return Status{
		Version: "1", Listen: ":1", Firewall: "nftables", Started: noon, Uptime: 5, KnockClock: noon, Devices: 1, Services: 2,
		Sessions: 3, Invites: 4, Counters: map[string]uint64{"gate": 1 << 60},
	}
}

func why() Why {
	return Why{
		Since:  noon,
		Knocks: []Knock{{Time: noon, Count: 2, Device: "laptop", Source: "192.0.2.1", Outcome: "refused", Reason: "clock off", Remedy: "set it"}},
		Drops:  []Drop{{Reason: "gate", Count: 1 << 60, Remedy: "none"}},
	}
}

func (f *fake) Sessions(ctx context.Context) (s []Session, err error) {
	for i := range f.listed {
		s = append(s, session(i))
	}
	return s, f.ask(ctx, "sessions")
}

func (f *fake) Open(ctx context.Context, r OpenRequest) (Session, error) {
	return session(1), f.ask(ctx, r)
}

func (f *fake) Close(ctx context.Context, r CloseRequest) ([]Session, error) {
	return []Session{session(1), session(2)}, f.ask(ctx, r)
}

func (f *fake) Devices(ctx context.Context) (d []Device, err error) {
	for range f.listed {
		d = append(d, someDevice())
	}
	return d, f.ask(ctx, "devices")
}
func (f *fake) AddDevice(ctx context.Context, d Device) error { return f.ask(ctx, d) }
func (f *fake) RemoveDevice(ctx context.Context, name string) (Device, error) {
	return someDevice(), f.ask(ctx, "remove "+name)
}

func (f *fake) Invite(ctx context.Context, r InviteRequest) (Invite, error) {
	return Invite{Name: r.Name, Line: "knock1:x", Expires: noon}, f.ask(ctx, r)
}
func (f *fake) Status(ctx context.Context) (Status, error) { return status(), f.ask(ctx, "status") }
func (f *fake) Reload(ctx context.Context, r ReloadRequest) error {
	return f.ask(ctx, r)
}

func (f *fake) Why(ctx context.Context, r WhyRequest) (Why, error) {
	return why(), f.ask(ctx, r)
}
func (f *fake) Confirm(ctx context.Context) error { return f.ask(ctx, "confirm") }

func (f *fake) Stop(ctx context.Context) error { return f.ask(ctx, "stop") }
func (f *fake) Metrics(ctx context.Context, w io.Writer) error {
	io.WriteString(w, "spad_sessions 3\n")
	return f.ask(ctx, "metrics")
}

// server is a running one.
type server struct {
	*fake
	*Server
	path string
	stop func() error // ends it and returns what Serve returned; may be called often
}

func (f *fake) server() *Server {
	return &Server{Sessions: f, Devices: f, Daemon: f, Why: f, Events: event.NewBus(nil), Metrics: f.Metrics, Log: slog.New(slog.DiscardHandler)}
}

// serve runs f at l until the test ends or stop is called.
func (f *fake) serve(t *testing.T, l net.Listener) *server {
	t.Helper()
	s := f.server()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var err error
	go func() { defer close(done); err = s.Serve(ctx, l) }()
	stop := func() error { cancel(); <-done; return err }
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &server{fake: f, Server: s, stop: stop}
}

// startFake runs a fake daemon on a real socket and sees to it that no goroutine outlives it.
func startFake(t *testing.T) (*server, *Client) {
	t.Helper()
	nothingLeft(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := (&fake{}).serve(t, l)
	s.path = path
	return s, NewClient(path)
}

// nothingLeft fails the test if at its end there are more goroutines than now. Those that end need a moment to do so.
func nothingLeft(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Fatalf("goroutines left behind:\n%s", buf[:runtime.Stack(buf, true)])
			}
		}
	})
}
