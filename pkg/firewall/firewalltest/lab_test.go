package firewalltest_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"spad/pkg/firewall/firewalltest"
)

func TestMain(m *testing.M) { os.Exit(firewalltest.Main(m)) }

// whoami answers every TCP connection with the address it came from.
func whoami(t *testing.T, h *firewalltest.Host, port string) {
	t.Helper()
	l, err := h.Listen("tcp", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			io.WriteString(c, host)
			c.Close()
		}
	}()
}

func ask(t *testing.T, c net.Conn, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddr(string(b)).Unmap().String()
}

func TestLabReachesEverybody(t *testing.T) {
	l := firewalltest.NewLab(t)
	home := l.AddHome(1)
	second := l.AddHost("second", home, "10.1.0.2", "2001:db8:101::2")
	servers := []*firewalltest.Host{l.Router, l.LANHost, l.Stranger}
	for _, s := range servers {
		whoami(t, s, "80")
	}
	families := []bool{false}
	if l.Router.HasIPv6() {
		families = append(families, true)
	}
	for _, v6 := range families {
		for _, s := range servers {
			for _, c := range []*firewalltest.Host{l.Laptop, l.Stranger, l.Router, l.LANHost, second} {
				want := c.Addr(v6).String()
				if c == second && !v6 {
					want = home.IP4.String()
				}
				if c == l.Router && s == l.LANHost {
					want = "" // the router's own choice of address towards its LAN
				}
				conn, err := c.Dial("tcp", s.At(v6, 80), 5*time.Second)
				if got := ask(t, conn, err); want != "" && got != want {
					t.Errorf("%s sees %s as %s, want %s", s.Name, c.Name, got, want)
				}
			}
		}
	}
}

func TestLabAddresses(t *testing.T) {
	l := firewalltest.NewLab(t)
	whoami(t, l.Router, "80")
	if err := l.Laptop.AddAddr(netip.MustParseAddr("10.0.0.12")); err != nil {
		t.Fatal(err)
	}
	c, err := l.Laptop.DialFrom(netip.MustParseAddrPort("10.0.0.12:0"), "tcp", l.Router.At(false, 80), 5*time.Second)
	if got := ask(t, c, err); got != "10.0.0.12" {
		t.Errorf("came from %s", got)
	}
	for _, a := range []string{"198.51.100.7", "2001:db8:77::7"} {
		to := netip.MustParseAddr(a)
		if to.Is6() && !l.Laptop.HasIPv6() {
			continue
		}
		if err := l.Laptop.MoveTo(to); err != nil {
			t.Fatal(err)
		}
		c, err := l.Laptop.Dial("tcp", l.Router.At(to.Is6(), 80), 5*time.Second)
		if got := ask(t, c, err); got != a || l.Laptop.Addr(to.Is6()) != to {
			t.Errorf("came from %s after moving to %s", got, a)
		}
	}
	c, err = l.Laptop.Dial("tcp", net.JoinHostPort(firewalltest.RouterLAN4.String(), "80"), 5*time.Second)
	if got := ask(t, c, err); got != "198.51.100.7" {
		t.Errorf("the router's LAN address sees %s", got)
	}
}

func TestLabCommand(t *testing.T) {
	l := firewalltest.NewLab(t)
	cmd := l.Laptop.Command("cat", "/proc/self/net/fib_trie")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte("203.0.113.10")) || bytes.Contains(out, []byte("203.0.113.66")) {
		t.Errorf("not in the laptop's namespace: %v\n%s", err, out)
	}
	if err := l.Laptop.Command("sh", "-c", "exit 7").Run(); err == nil || !strings.Contains(err.Error(), "7") {
		t.Errorf("exit code is lost: %v", err)
	}
	if err := l.Laptop.Command("no-such-command").Run(); err == nil {
		t.Error("a command that does not exist runs")
	}
}

func TestCommandOutlivesWhatComesAfter(t *testing.T) {
	l := firewalltest.NewLab(t)
	var started []*exec.Cmd
	for range 8 {
		cmd := l.Laptop.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started = append(started, cmd)
		l.AddHost("late", l.Internet, "", "")
	}
	for _, cmd := range started {
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("a command died: %v", err)
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			t.Errorf("a command died: %s, %v", b, err)
		}
	}
}

func TestLabsAreApart(t *testing.T) {
	a, b := firewalltest.NewLab(t), firewalltest.NewLab(t)
	whoami(t, a.Router, "80")
	if c, err := b.Laptop.Dial("tcp", b.Router.At(false, 80), time.Second); err == nil {
		c.Close()
		t.Error("a laptop of one lab reaches the router of the other")
	}
}
