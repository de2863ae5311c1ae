package daemon_test

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/firewall/firewalltest"
	"spad/pkg/wire"
)

// release builds spad as make build does: static and stripped.
func release(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "spad")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", "urfave_cli_no_docs", "-ldflags", "-s -w", "-o", path, "spad/spad")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("building spad: %v\n%s", err, out)
	}
	return path
}

// resident returns a line of /proc/PID/status in MB: VmRSS, or its parts RssAnon and RssFile.
func resident(b *testing.B, pid int, name string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), name+":")
	kb, _, _ := strings.Cut(rest, "kB")
	n, err := strconv.Atoi(strings.TrimSpace(kb))
	if err != nil {
		b.Fatalf("%s of %d: %v", name, pid, err)
	}
	return float64(n) / 1000
}

// still waits until a process neither takes nor gives back memory for half a second.
func still(b *testing.B, pid int) {
	b.Helper()
	was, same := 0.0, 0
	for deadline := time.Now().Add(20 * time.Second); same < 10; time.Sleep(50 * time.Millisecond) {
		now := resident(b, pid, "VmRSS")
		if same++; now != was {
			was, same = now, 0
		}
		if time.Now().After(deadline) {
			b.Fatal("never still")
		}
	}
}

// BenchmarkIdle reports how much memory the real daemon has resident with a few services and devices, nf_tables set up:
// after its start, and after forty knocks, when what they ran is mapped.
func BenchmarkIdle(b *testing.B) {
	lab := firewalltest.NewLab(b)
	dir, bin := b.TempDir(), release(b)
	router, err := keys.GenerateRouter(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	if err := keys.WriteRouterFile(filepath.Join(dir, "router.key"), router); err != nil {
		b.Fatal(err)
	}
	text := fmt.Sprintf("listen = \":%d\"\nhostname = \"router.test\"\n%s", knockPort, services)
	var devices []keys.DeviceSecret
	for _, name := range []string{"laptop", "phone", "tablet", "desktop", "work"} {
		secret, err := keys.GenerateDevice(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		devices = append(devices, secret)
		text += fmt.Sprintf("[device.%s]\nkey = %q\nallow = [\"web\", \"group:family\"]\n", name, secret.Public())
	}
	if err := os.WriteFile(filepath.Join(dir, "spad.toml"), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		log := &lockedBuffer{}
		cmd := lab.Router.Command(bin, "run", "--config", dir+"/spad.toml", "--state", dir+"/state", "--socket", dir+"/spad.sock")
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { cmd.Process.Kill() })
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "msg=started"); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				b.Fatalf("spad does not start:\n%s", log)
			}
		}
		pid := cmd.Process.Pid
		still(b, pid)
		for _, name := range []string{"VmRSS", "RssAnon", "RssFile"} {
			b.ReportMetric(resident(b, pid, name), "MB-"+name)
		}
		c, err := lab.Laptop.Dial("udp", lab.Router.At(false, knockPort), time.Second)
		if err != nil {
			b.Fatal(err)
		}
		for i := range 40 {
			opened(b, c, router.Public(), devices[i%len(devices)])
		}
		c.Close()
		still(b, pid)
		b.ReportMetric(resident(b, pid, "VmRSS"), "MB-knocked")
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// opened knocks once and wants the door open. It keeps to the budget of its address: that is what paces it.
func opened(b *testing.B, c net.Conn, router keys.RouterPublic, by keys.DeviceSecret) {
	b.Helper()
	buf := make([]byte, 512)
	for range 20 {
		m := open("web")
		m.WantAnswer, m.TimeMS = true, time.Now().UnixMilli()
		p, w, err := wire.NewSealer(router).Seal(m, by, rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		c.Write(p[:])
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Read(buf)
		if err != nil {
			continue
		}
		if a, err := w.OpenAnswer(buf[:n]); err == nil && a.Status == wire.Opened {
			return
		}
	}
	b.Fatal("no knock opened the door")
}
