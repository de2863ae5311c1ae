package main

import (
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/client"
)

// built builds a package, or a file, as make build does, and returns the program.
func built(b *testing.B, what, name string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), name)
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-tags", "urfave_cli_no_docs", "-ldflags", "-s -w", "-o", path, what)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("building %s: %v\n%s", what, err, out)
	}
	return path
}

const hello = `package main

import "fmt"

func main() { fmt.Println("hello, world") }
`

// enrolled returns a configuration folder that knows a router at this address.
func enrolled(b *testing.B, addr string) string {
	b.Helper()
	dir := b.TempDir()
	secret, err := keys.GenerateRouter(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	text := "[router.home]\naddr = \"" + addr + "\"\nkey = \"" + secret.Public().String() + "\"\nservices = [\"nas\"]\n"
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	c, err := client.New(client.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := c.Device(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// runs are how long a program took, by the clock and of the processor.
type runs struct{ wall, cpu []time.Duration }

func (r *runs) add(b *testing.B, name string, args ...string) {
	cmd := exec.Command(name, args...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s: %v\n%s", name, err, out)
	}
	r.wall = append(r.wall, time.Since(start))
	r.cpu = append(r.cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
}

func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2]) / float64(time.Millisecond)
}

// BenchmarkNoAnswer reports how long the real program runs to send one packet, its time stored on disk before, against a
// program that prints one line, in turns; and against that and one append to a file with sync on the same disk, which
// others may keep busy.
func BenchmarkNoAnswer(b *testing.B) {
	router, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer router.Close()
	source := filepath.Join(b.TempDir(), "hello.go")
	if err := os.WriteFile(source, []byte(hello), 0o600); err != nil {
		b.Fatal(err)
	}
	knock, floor, dir := built(b, "spad/knock", "knock"), built(b, source, "hello"), enrolled(b, router.LocalAddr().String())
	file, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	var ours, bare runs
	var disk []time.Duration
	buf := make([]byte, 512)
	for b.Loop() {
		bare.add(b, floor)
		ours.add(b, knock, "nas", "--no-answer", "--config", dir)
		router.SetReadDeadline(time.Now().Add(time.Second))
		if n, _, err := router.ReadFrom(buf); err != nil || n != 160 {
			b.Fatalf("no packet came: %d bytes, %v", n, err)
		}
		start := time.Now()
		if _, err := file.Write(buf[:200]); err != nil {
			b.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			b.Fatal(err)
		}
		disk = append(disk, time.Since(start))
	}
	b.ReportMetric(median(ours.wall), "ms/knock")
	b.ReportMetric(median(bare.wall), "ms/hello")
	b.ReportMetric(median(disk), "ms/disk")
	b.ReportMetric(median(ours.wall)/median(bare.wall), "ratio")
	b.ReportMetric(median(ours.wall)/(median(bare.wall)+median(disk)), "disk-ratio")
	b.ReportMetric(median(ours.cpu), "cpu-ms/knock")
	b.ReportMetric(median(bare.cpu), "cpu-ms/hello")
	b.ReportMetric(median(ours.cpu)/median(bare.cpu), "cpu-ratio")
}
