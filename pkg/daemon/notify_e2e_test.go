package daemon_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the end of NOTIFY_SOCKET that a service manager has.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{t, conn, path}
}

// next returns the next message, as assignments; a beat of the watchdog is passed over unless it is what is wanted.
func (m *manager) next(want string) map[string]string {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 4096)
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", want, err)
		}
		said := map[string]string{}
		for line := range strings.SplitSeq(string(buf[:n]), "\n") {
			name, value, ok := strings.Cut(line, "=")
			if !ok {
				m.t.Errorf("no assignment: %q", line)
			}
			said[name] = value
		}
		if said[want] == "1" {
			return said
		}
		if said["WATCHDOG"] != "1" {
			m.t.Fatalf("got %q, want %s", said, want)
		}
	}
}

// The service manager hears of the start when knocks are answered and not before, of every reload with its time, of how
// many doors are open, and of the stop.
func TestServiceManager(t *testing.T) {
	r := newRig(t, services)
	m := newManager(t)
	r.env = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=" + strconv.Itoa(int((200 * time.Millisecond).Microseconds()))}
	r.start()
	if said := m.next("READY"); said["STATUS"] != "answering knocks, doors open: 0" {
		t.Errorf("ready with status %q", said["STATUS"])
	}
	r.enrol(r.Laptop, "web")
	r.expectKnock(r.Laptop, 0, "web", "-4")
	r.eventually("the watchdog's beat counts the door", func() bool {
		return m.next("WATCHDOG")["STATUS"] == "answering knocks, doors open: 1"
	})

	before := monotonic(t)
	r.must("reload")
	at, err := strconv.ParseInt(m.next("RELOADING")["MONOTONIC_USEC"], 10, 64)
	if err != nil || at < before || at > monotonic(t) {
		t.Errorf("a reload after %d µs began at %d, %v", before, at, err)
	}
	m.next("READY")

	if err := os.WriteFile(r.dir+"/spad.toml", []byte("listen = 1\nnonsense = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.daemon.Process.Signal(syscall.SIGHUP)
	m.next("RELOADING")
	status := m.next("READY")["STATUS"]
	if !strings.HasPrefix(status, "the old configuration is kept (") || !strings.Contains(status, "; ") || !strings.HasSuffix(status, "doors open: 1") {
		t.Errorf("after a refused reload of two problems: %q", status)
	}

	r.kill(syscall.SIGTERM)
	m.next("STOPPING")
	r.sees(r.Stranger, 8080, "", "")
}

// A program of that name which is not the one watched must not feed the watchdog; without one nothing is sent at all.
func TestServiceManagerOfAnother(t *testing.T) {
	r := newRig(t, services)
	m := newManager(t)
	r.env = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=1000", fmt.Sprintf("WATCHDOG_PID=%d", os.Getpid())}
	r.start()
	m.next("READY")
	r.kill(syscall.SIGTERM)
	buf := make([]byte, 4096)
	m.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := m.conn.Read(buf); err != nil || string(buf[:n]) != "STOPPING=1" {
		t.Errorf("after READY=1: %q, %v; want STOPPING=1 alone", buf[:n], err)
	}
}

func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / int64(time.Microsecond)
}
