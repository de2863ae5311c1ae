package daemon_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spad/pkg/daemon"
	"spad/pkg/session"
	"spad/pkg/wire"
)

// A device that has as many doors as one may have gets no further one, and the log says why; the doors it has outlive a
// restart.
func TestFull(t *testing.T) {
	r := newRig(t, services)
	r.start()
	d := r.newDevice("laptop", "web")
	r.kill(syscall.SIGTERM)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	fmt.Fprintf(&file, "{\"version\":1,\"boot_id\":%q}\n", strings.TrimSpace(string(boot)))
	for i := range session.MaxOwn {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		line, err := json.Marshal(session.Session{
			ID: fmt.Sprintf("%012x", i), Device: "laptop", Key: wire.DeviceIDOf(d.secret.Public()).String(), Service: "web",
			Source: netip.PrefixFrom(a, 32), Fixed: true, By: "knock", Until: time.Duration(now.Nano()) + time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		file.Write(append(line, '\n'))
	}
	if err := os.WriteFile(daemon.SessionsFile(r.dir+"/state"), []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if n := len(r.sessions()); n != session.MaxOwn {
		t.Fatalf("%d sessions are restored, want %d", n, session.MaxOwn)
	}
	if got := d.ask(r.Laptop, open("web")); got != "busy" {
		t.Errorf("one more: %s", got)
	}
	r.sees(r.Laptop, 8080, "", "")
	r.eventually("the log says why", func() bool {
		return strings.Contains(r.log.String(), fmt.Sprintf(`%d by device \"laptop\", which is the most for one`, session.MaxOwn))
	})
	if n := strings.Count(r.must("close", "--device", "laptop"), "closed"); n != session.MaxOwn {
		t.Errorf("%d sessions are closed", n)
	}
	if got := d.ask(r.Laptop, open("web")); got != "opened" {
		t.Errorf("where there is room again: %s", got)
	}
	r.sees(r.Laptop, 8080, "router", "")
}
