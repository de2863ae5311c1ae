package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/event"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// script writes a program and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a hook; the function ends it, after what waits if there is grace.
func start(t *testing.T, o Options) (*Hook, *bytes.Buffer, func(grace bool)) {
	t.Helper()
	var log bytes.Buffer
	o.Name, o.Kinds, o.Log = "test", event.Kinds(), slog.New(slog.NewTextHandler(&log, nil))
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	h := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	grace, now := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, grace) }()
	var once sync.Once
	end := func(kind bool) {
		once.Do(func() {
			cancel()
			if !kind {
				now()
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			now()
		})
	}
	t.Cleanup(func() { end(false) })
	return h, &log, end
}

func TestWhatAProgramGets(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	h, log, end := start(t, Options{Command: []string{script(t, `cat >"$1"; env | grep -v "^_\|^PWD\|^SHLVL\|^OLDPWD" | sort >>"$1"; pwd >>"$1"`), out}})
	e := event.Event{
		Time: noon, Kind: event.Moved, Device: "laptop", Service: "nas", Session: "s1", Source: "192.0.2.2", From: "192.0.2.1",
		Reason: "a\x00b\nc$(id)", By: "operator", TTL: 90 * time.Second, Until: noon.Add(90 * time.Second), Lost: 7,
	}
	h.Take(e)
	end(true)
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err, log)
	}
	e.Lost = 0 // the queue's own
	line, _ := json.Marshal(e)
	want := string(line) + "\n" + path + `
SPAD_BY=operator
SPAD_DEVICE=laptop
SPAD_FROM=192.0.2.1
SPAD_KIND=moved
SPAD_REASON=a b
SPAD_SERVICE=nas
SPAD_SESSION=s1
SPAD_SOURCE=192.0.2.2
SPAD_TIME=2026-03-01T12:00:00Z
SPAD_TTL=90
SPAD_UNTIL=2026-03-01T12:01:30Z
c$(id)
/
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if s := h.Stats(); s != (Stats{Run: 1}) || log.Len() > 0 {
		t.Errorf("%+v, %s", s, log)
	}
}

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name, script, want string
	}{
		{"exit code", "echo no page >&2; exit 3", `exit status 3: no page`},
		{"reads nothing", "exit 0", ""},
		{"too long", `sleep 60 & sleep 60`, "did not end in time"},
		{"much to say", "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", "exit status 1: xxx"},
		{"killed", "kill -9 $$", "signal: killed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, log, end := start(t, Options{Command: []string{script(t, tt.script)}, Timeout: 300 * time.Millisecond})
			if tt.name != "too long" {
				h.o.Timeout = 10 * time.Second
			}
			h.Take(event.Event{Kind: event.Started, Reason: strings.Repeat("long", 50_000)})
			end(true)
			if !strings.Contains(log.String(), tt.want) || (log.Len() == 0) != (tt.want == "") || log.Len() > 600 {
				t.Errorf("log: %s", log)
			}
			if s := h.Stats(); s.Run != 1 || (s.Failed == 1) != (tt.want != "") {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestGroupIsKilled: also what the program has started.
func TestGroupIsKilled(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	h, _, end := start(t, Options{Command: []string{script(t, `sleep 600 & echo $! >"$1"; wait`), pid}, Timeout: 500 * time.Millisecond})
	h.Take(event.Event{Kind: event.Started})
	end(true)
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	gone := func() bool { // or a zombie that init has not buried yet
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
		return syscall.Kill(n, 0) != nil || strings.Contains(string(stat), ") Z ")
	}
	for i := 0; !gone(); i++ {
		if i == 1000 {
			t.Fatalf("%d lives", n)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// TestSlowProgramBlocksNobody: what does not fit is counted, and the next that fits says so.
func TestSlowProgramBlocksNobody(t *testing.T) {
	h := New(Options{Kinds: []event.Kind{event.Opened}, Command: []string{"/bin/true"}})
	for i := range maxQueue + 5 {
		h.Take(event.Event{Kind: event.Opened, Device: fmt.Sprint(i)})
		h.Take(event.Event{Kind: event.Closed}) // not wanted
	}
	if e, ok := h.first(); !ok || e.Device != "0" || h.Stats().Lost != 5 {
		t.Errorf("%+v, %+v", e, h.Stats())
	}
	h.Take(event.Event{Kind: event.Opened})
	if last := h.queue[len(h.queue)-1]; last.Lost != 5 || len(h.queue) != maxQueue {
		t.Errorf("%+v", last)
	}
}

func TestEndWithoutGrace(t *testing.T) {
	h, _, end := start(t, Options{Command: []string{script(t, "sleep 600")}, Timeout: time.Hour})
	h.Take(event.Event{Kind: event.Started})
	h.Take(event.Event{Kind: event.Stopped})
	for h.Stats().Waiting > 1 {
		<-time.After(time.Millisecond)
	}
	end(false)
	if s := h.Stats(); s.Run != 1 || s.Waiting != 1 && s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCheck(t *testing.T) {
	good := script(t, "")
	link, open := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Symlink(good, link), os.Mkdir(open, 0o700), os.Symlink(good, filepath.Join(open, "link")),
		os.WriteFile(filepath.Join(open, "program"), nil, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path, want string
		mode             os.FileMode
	}{
		{"good", good, "", 0o755},
		{"not to be executed", good, "chmod +x", 0o644},
		{"others may change it", good, "chmod go-w", 0o757},
		{"by a link", link, "", 0o755},
		{"by a link, others may change it", link, "chmod go-w", 0o775},
		{"in a folder of others", filepath.Join(open, "program"), "/open\" may be changed by others", 0},
		{"by a link in a folder of others", filepath.Join(open, "link"), "/open\" may be changed by others", 0o755},
		{"a folder", filepath.Dir(good), "no program", 0},
		{"none", good + "-", "no such file", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.mode != 0 {
				if err := os.Chmod(good, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			err := Check(tt.path)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Error(err)
			}
		})
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(good, 12345, 0); err != nil {
			t.Fatal(err)
		}
		_ = os.Chmod(good, 0o755)
		if err := Check(good); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Error(err)
		}
	}
}
