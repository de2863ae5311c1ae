package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/event"
)

const childVar = "SPAD_JOURNAL_CHILD"

// TestJournal has a journal of its own at the place where systemd's is, in a mount namespace.
func TestJournal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	if os.Getenv(childVar) != "" {
		inNamespace(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestJournal$", "-test.v")
	cmd.Env = append(os.Environ(), childVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestJournal") {
		t.Errorf("%v\n%s", err, out)
	}
}

func inNamespace(t *testing.T) {
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
	}{{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, {"none", "/run", "tmpfs", 0}} {
		if err := syscall.Mount(m.what, m.where, m.kind, m.flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll("/run/systemd/journal", 0o755); err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	log := slog.New(New(slog.NewTextHandler(&plain, nil)))
	log.Info("nobody listens", "a", 1)
	if !strings.Contains(plain.String(), `msg="nobody listens" a=1`) {
		t.Errorf("no fallback: %q", plain.String())
	}
	plain.Reset()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/systemd/journal/socket", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	written(t, c, log)
	if plain.Len() > 0 {
		t.Errorf("twice: %q", plain.String())
	}
}

// written writes lines and compares what the journal gets.
func written(t *testing.T, c *net.UnixConn, log *slog.Logger) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e := event.Event{Kind: event.Moved, Device: "laptop", Session: "s1", Reason: "two\nlines", TTL: 90 * time.Second, Until: noon}
	for _, tt := range []struct {
		name string
		log  func()
		want string
	}{
		{
			"an event",
			func() { log.LogAttrs(t.Context(), slog.LevelWarn, e.Kind.Text(), e.LogAttrs()...) },
			`MESSAGE=moved device=laptop session=s1 reason="two\nlines" ttl=1m30s until=2026-03-01T12:00:00.000Z
PRIORITY=4
SPAD_DEVICE=laptop
SPAD_KIND=moved
SPAD_REASON=two\nlines
SPAD_SESSION=s1
SPAD_TTL=1m30s
SPAD_UNTIL=2026-03-01T12:00:00Z
SYSLOG_IDENTIFIER=spad`,
		},
		{
			"something else, with groups",
			func() { log.With("a-b", 1).WithGroup("g").Error("went wrong", slog.Group("in", "ner", true), "c", 2) },
			`MESSAGE=went wrong a-b=1 g.in.ner=true g.c=2
PRIORITY=3
SPAD_A_B=1
SPAD_G_C=2
SPAD_G_IN_NER=true
SYSLOG_IDENTIFIER=spad`,
		},
	} {
		tt.log()
		b := make([]byte, 64<<10)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, decode(t, b[:n])); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	log.Debug("too quiet")
}

// decode reads the native protocol: NAME=value, or NAME, a length and a value that may have line ends.
func decode(t *testing.T, b []byte) string {
	t.Helper()
	var all []string
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		if name, value, plain := strings.Cut(string(line), "="); plain {
			all, b = append(all, name+"="+value), rest
			continue
		}
		n := binary.LittleEndian.Uint64(rest)
		all, b = append(all, fmt.Sprintf("%s=%s", line, strings.ReplaceAll(string(rest[8:8+n]), "\n", `\n`))), rest[8+n+1:]
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func TestStderr(t *testing.T) {
	var st syscall.Stat_t
	if err := syscall.Fstat(2, &st); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"": false, "1:1": false, "what": false, fmt.Sprintf("%d:%d", st.Dev, st.Ino): true,
	} {
		t.Setenv("JOURNAL_STREAM", text)
		if Stderr() != want {
			t.Errorf("JOURNAL_STREAM=%q: %v", text, !want)
		}
	}
}
