package webhook

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestReceiverOfTheDocument runs the receiver that EVENTS.md shows: it was written from the page, not from this package.
func TestReceiverOfTheDocument(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	doc, err := os.ReadFile("../../../EVENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	program := regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(doc)
	if program == nil {
		t.Fatal("EVENTS.md has no receiver")
	}
	dir := t.TempDir()
	secret, script := filepath.Join(dir, "secret"), filepath.Join(dir, "receiver.py")
	for name, data := range map[string][]byte{secret: []byte(testSecret + "\n"), script: program[1]} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a port that is free
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	cmd := exec.Command(python, script, secret, strconv.Itoa(addr.Port))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	r := newRig(t, t.TempDir(), Options{URL: "http://" + addr.String() + "/", pace: pace{
		least: 10 * time.Millisecond, most: 100 * time.Millisecond, tell: time.Minute,
	}}, nil)
	r.publish("s1", "s2")
	lines := bufio.NewScanner(out)
	for range 2 {
		if !lines.Scan() || !strings.Contains(lines.Text(), "'kind': 'opened'") {
			t.Fatalf("it says %q, the log %s", lines.Text(), r.log)
		}
	}
	r.end()
}
