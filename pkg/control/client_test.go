package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/device"
	"spad/pkg/event"
)

var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// operations is one call of each.
func operations(c *Client) map[string]func(context.Context) (any, error) {
	return map[string]func(context.Context) (any, error){
		"status":   func(ctx context.Context) (any, error) { return c.Status(ctx) },
		"reload":   func(ctx context.Context) (any, error) { return nil, c.Reload(ctx, reloadRequest) },
		"confirm":  func(ctx context.Context) (any, error) { return nil, c.Confirm(ctx) },
		"stop":     func(ctx context.Context) (any, error) { return nil, c.Stop(ctx) },
		"sessions": func(ctx context.Context) (any, error) { return c.Sessions(ctx) },
		"open":     func(ctx context.Context) (any, error) { return c.Open(ctx, openRequest) },
		"close":    func(ctx context.Context) (any, error) { return c.Close(ctx, CloseRequest{Service: "ssh"}) },
		"devices":  func(ctx context.Context) (any, error) { return c.Devices(ctx) },
		"add":      func(ctx context.Context) (any, error) { return nil, c.AddDevice(ctx, someDevice()) },
		"remove":   func(ctx context.Context) (any, error) { return c.RemoveDevice(ctx, "a/b?c d%2f") },
		"invite":   func(ctx context.Context) (any, error) { return c.Invite(ctx, inviteRequest) },
		"why":      func(ctx context.Context) (any, error) { return c.Why(ctx, whyRequest) },
		"why addr": func(ctx context.Context) (any, error) { return c.Why(ctx, whyAddress) },
	}
}

var (
	openRequest   = OpenRequest{Service: "ssh", From: netip.MustParseAddr("2001:db8::1"), TTL: 90 * time.Second}
	inviteRequest = InviteRequest{Name: "phone", Allow: []string{"ssh", "group:family"}, TTL: time.Hour}
	whyRequest    = WhyRequest{Device: "a/b?c d%2f&x=y"}
	reloadRequest = ReloadRequest{SSH: "192.0.2.1 50000 192.0.2.2 22", AllowLockout: true, Trial: 2 * time.Minute}
	whyAddress    = WhyRequest{Address: netip.MustParseAddr("2001:db8::1")}
)

func TestEachOperation(t *testing.T) {
	want := map[string]struct{ asked, answer any }{
		"status":   {"status", status()},
		"reload":   {reloadRequest, nil},
		"confirm":  {"confirm", nil},
		"stop":     {"stop", nil},
		"sessions": {"sessions", []Session{session(0), session(1)}},
		"open":     {openRequest, session(1)},
		"close":    {CloseRequest{Service: "ssh"}, []Session{session(1), session(2)}},
		"devices":  {"devices", []Device{someDevice(), someDevice()}},
		"add":      {someDevice(), nil},
		"remove":   {"remove a/b?c d%2f", someDevice()},
		"invite":   {inviteRequest, Invite{Name: "phone", Line: "knock1:x", Expires: noon}},
		"why":      {whyRequest, why()},
		"why addr": {whyAddress, why()},
	}
	for name, call := range operations(nil) {
		if _, ok := want[name]; !ok || call == nil {
			t.Fatalf("no expectation for %s", name)
		}
	}
	for name, w := range want {
		t.Run(name, func(t *testing.T) {
			s, c := startFake(t)
			s.listed = 2
			got, err := operations(c)[name](t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(w.answer, got, compareAddr); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]any{w.asked}, s.calls(), compareAddr); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestErrorsCrossTheSocket(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		is   error
		use  bool
	}{
		{"failure", errors.New("nftables: EPERM"), nil, false},
		{"several lines", errors.New("spad.toml:3: no\nspad.toml:9: nor this"), nil, false},
		{"usage", &UsageError{"no service is called x"}, nil, true},
		{"wrapped usage", fmt.Errorf("opening: %w", &UsageError{"ttl too long"}), nil, true},
		{"unknown", Unknown("no session s9"), ErrUnknown, false},
		{"wrapped unknown", fmt.Errorf("session s9: %w", ErrUnknown), ErrUnknown, false},
		{"conflict", Conflict("laptop is there already"), ErrConflict, false},
		{"unknown device", fmt.Errorf("device x: %w", device.ErrUnknown), ErrUnknown, false},
		{"device exists", fmt.Errorf("device x: %w", device.ErrExists), ErrConflict, false},
		{"invalid device", fmt.Errorf("device x: %w", device.ErrInvalid), nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := startFake(t)
			s.err = tt.err
			for name, call := range operations(c) {
				_, err := call(t.Context())
				if err == nil || err.Error() != tt.err.Error() {
					t.Errorf("%s: error %v", name, err)
				}
				usage, remote := (*UsageError)(nil), (*RemoteError)(nil)
				if errors.As(err, &usage) != tt.use || errors.As(err, &remote) == tt.use {
					t.Errorf("%s: error %T", name, err)
				}
				for _, class := range []error{ErrUnknown, ErrConflict, ErrNotRunning} {
					if errors.Is(err, class) != (class == tt.is) {
						t.Errorf("%s: %v is %v", name, err, class)
					}
				}
			}
		})
	}
}

func TestWrongUseNeverLeavesTheClient(t *testing.T) {
	s, c := startFake(t)
	for name, call := range map[string]func() error{
		"close nothing":       func() error { _, err := c.Close(t.Context(), CloseRequest{}); return err },
		"close two ways":      func() error { _, err := c.Close(t.Context(), CloseRequest{ID: "a", All: true}); return err },
		"parts of a second":   func() error { _, err := c.Open(t.Context(), OpenRequest{TTL: 1500 * time.Millisecond}); return err },
		"negative":            func() error { _, err := c.Invite(t.Context(), InviteRequest{TTL: -time.Second}); return err },
		"name of another way": func() error { _, err := c.RemoveDevice(t.Context(), ".."); return err },
		"no name":             func() error { _, err := c.RemoveDevice(t.Context(), ""); return err },
	} {
		if err, usage := call(), (*UsageError)(nil); !errors.As(err, &usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("%d calls came", n)
	}
}

func TestMappedAddressIsUnmapped(t *testing.T) {
	s, c := startFake(t)
	if _, err := c.Open(t.Context(), OpenRequest{Service: "ssh", From: netip.MustParseAddr("::ffff:192.0.2.1")}); err != nil {
		t.Fatal(err)
	}
	if got := s.calls()[0].(OpenRequest).From; got != netip.MustParseAddr("192.0.2.1") {
		t.Error(got)
	}
}

func TestManySessions(t *testing.T) {
	s, c := startFake(t)
	s.listed = 10_000
	got, err := c.Sessions(t.Context())
	if err != nil || len(got) != s.listed || got[len(got)-1] != session(s.listed-1) {
		t.Errorf("%d sessions, %v", len(got), err)
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	_, c := startFake(t)
	for _, path := range []string{"/v1/sessions", "/v1/devices"} {
		var raw json.RawMessage
		if err := c.do(t.Context(), http.MethodGet, path, nil, &raw); err != nil || string(raw) != "[]" {
			t.Errorf("%s: %s, %v", path, raw, err)
		}
	}
}

func TestNotRunning(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	makeStale(t, stale)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"none", "none/at/all", "file", "file/below", "stale"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			want := "spad is not running (no daemon at " + path + "); start it with: spad run"
			c := NewClient(path)
			for op, call := range operations(c) {
				if _, err := call(t.Context()); !errors.Is(err, ErrNotRunning) || err.Error() != want {
					t.Errorf("%s: %v", op, err)
				}
			}
			if err := c.Events(t.Context(), nil); !errors.Is(err, ErrNotRunning) {
				t.Errorf("events: %v", err)
			}
		})
	}
	t.Run("path too long", func(t *testing.T) {
		_, err := NewClient(strings.Repeat("x", 108)).Status(t.Context())
		if err == nil || errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "108 bytes") {
			t.Errorf("%v", err)
		}
	})
}

func TestContextEndsARequest(t *testing.T) {
	s, c := startFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	s.waiting = func(inner context.Context) {
		cancel()
		<-inner.Done() // the daemon hears that nobody waits any more
		close(ended)
	}
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-ended
}

func TestAnswersOfSomethingElse(t *testing.T) {
	for _, tt := range []struct{ name, answer, says string }{
		{"not http", "SSH-2.0-x\r\n\r\n", "malformed HTTP"},
		{"no json", "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nhi", "the daemon answered 500 Oops"},
		{"an error of another shape", "HTTP/1.1 502 Bad\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "502"},
		{"half an answer", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"version\"", "reading the daemon's answer"},
		{"nothing", "", "hung up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for c, err := l.Accept(); err == nil; c, err = l.Accept() {
					c.Read(make([]byte, 4096))
					c.Write([]byte(tt.answer))
					c.Close()
				}
			}()
			if _, err := NewClient(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	s, c := startFake(t)
	want := []event.Event{
		{Time: noon, Kind: event.Opened, Device: "laptop", TTL: time.Minute},
		{Time: noon, Kind: event.Closed, Reason: "a\nb"},
	}
	var got []event.Event
	errEnough := errors.New("enough")
	err := watching(t, c, s.Server, want, func(e event.Event) error {
		if got = append(got, e); len(got) == len(want) {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// watching runs c.Events; as soon as the daemon knows of the watcher, it publishes.
func watching(t *testing.T, c *Client, s *Server, publish []event.Event, f func(event.Event) error) error {
	t.Helper()
	first := true
	ready := make(chan struct{})
	go func() {
		for { // until the watcher is there, what is published reaches nobody
			select {
			case <-ready:
				for _, e := range publish {
					s.Events.Publish(e)
				}
				return
			case <-time.After(time.Millisecond):
				s.Events.Publish(event.Event{Kind: event.Started})
			}
		}
	}()
	return c.Events(t.Context(), func(e event.Event) error {
		if e.Kind == event.Started {
			if first {
				close(ready)
			}
			first = false
			return nil
		}
		return f(e)
	})
}

func TestEventsEndWithTheDaemon(t *testing.T) {
	s, c := startFake(t)
	last := event.Event{Time: noon, Kind: event.Stopped}
	var got []event.Event
	stopped := make(chan error, 1)
	err := watching(t, c, s.Server, []event.Event{{Time: noon, Kind: event.Closed}}, func(e event.Event) error {
		if got = append(got, e); e.Kind == event.Closed {
			s.Events.Publish(last) // it is queued before the stop and must arrive
			go func() { stopped <- s.stop() }()
		}
		return nil
	})
	if err != nil {
		t.Errorf("events: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if diff := cmp.Diff([]event.Event{{Time: noon, Kind: event.Closed}, last}, got); diff != "" {
		t.Error(diff)
	}
}

func TestContextEndsEvents(t *testing.T) {
	_, c := startFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if err := c.Events(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestEventsOfADaemonThatIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Read(make([]byte, 4096))
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		c.Close()
	}()
	if err := NewClient(path).Events(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "went away") {
		t.Errorf("%v", err)
	}
}
