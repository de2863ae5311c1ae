package capture

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const inside = "SPAD_TEST_INSIDE"

// inNamespace runs the test once more in a process with a user and a network namespace of its own, which needs no root,
// and says whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case err == nil:
	case cmd.ProcessState == nil && os.Getenv("CI") == "": // it never started
		t.Skipf("no user namespaces here: %v", err)
	default:
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wire makes a second namespace, joined to this one by a veth pair: "here" with two addresses per family, "there" with
// one. It returns a function that runs another in the second.
func wire(t *testing.T) (there func(func())) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	away, err := netns.New()
	must(t, err)
	must(t, netns.Set(home))
	pair := netlink.NewVeth(netlink.LinkAttrs{Name: "here"})
	pair.PeerName, pair.PeerNamespace = "there", netlink.NsFd(away)
	must(t, netlink.LinkAdd(pair))
	there = func(f func()) {
		runtime.LockOSThread() // a subtest is a goroutine of its own
		defer runtime.UnlockOSThread()
		must(t, netns.Set(away))
		defer func() { must(t, netns.Set(home)) }()
		f()
	}
	configure(t, "lo")
	configure(t, "here", "10.9.0.1/24", "10.9.0.2/24", "fd09::1/64", "fd09::2/64", "fe80::1/64")
	there(func() { configure(t, "there", "10.9.0.3/24", "fd09::3/64", "fe80::3/64") })
	t.Cleanup(func() { home.Close(); away.Close() })
	return there
}

func configure(t *testing.T, name string, addrs ...string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		must(t, err)
		addr.Flags = unix.IFA_F_NODAD // usable at once
		must(t, netlink.AddrAdd(link, addr))
	}
	must(t, netlink.LinkSetUp(link))
}

func TestAnswersLeaveFromWhereThePacketWent(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	there := wire(t)
	u := listen(t, ":0")
	got := start(t, u)
	for _, tt := range []struct{ to, from, local string }{
		{"10.9.0.1", "10.9.0.3", "10.9.0.1"},
		{"10.9.0.2", "10.9.0.3", "10.9.0.2"},
		{"fd09::1", "fd09::3", "fd09::1"},
		{"fd09::2", "fd09::3", "fd09::2"},
		{"fe80::1%there", "fe80::3%here", "fe80::1"},
	} {
		t.Run(tt.to, func(t *testing.T) {
			there(func() {
				c := dial(t, net.JoinHostPort(tt.to, fmt.Sprint(u.Port())))
				send(t, c, packet('a'))
				r := next(t, got)
				if r.From.Addr() != netip.MustParseAddr(tt.from) || r.Local != netip.MustParseAddr(tt.local) || r.Link == 0 {
					t.Errorf("from %v, local %v, link %d", r.From, r.Local, r.Link)
				}
				must(t, u.Reply(r.Datagram, []byte("answer")))
				c.SetReadDeadline(time.Now().Add(patience))
				buf := make([]byte, 100)
				if n, err := c.Read(buf); err != nil || string(buf[:n]) != "answer" {
					t.Errorf("answer %q, %v", buf[:n], err)
				}
			})
		})
	}
}

func TestBroadcastIsIgnored(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	there := wire(t)
	u := listen(t, ":0")
	got := start(t, u)
	there(func() {
		for _, group := range []string{"10.9.0.255", "255.255.255.255%there", "224.0.0.1%there", "ff02::1%there"} {
			sendGroup(t, group, u.Port())
		}
		// On the same link, so behind them in the queues of both families.
		for _, to := range []string{"10.9.0.1", "fd09::1"} {
			send(t, dial(t, net.JoinHostPort(to, fmt.Sprint(u.Port()))), packet('u'))
			if r := next(t, got); r.payload != string(packet('u')) {
				t.Errorf("a packet to %v was handled", r.Local)
			}
		}
	})
	for _, s := range u.socks { // and they did arrive: else this proves nothing
		if s.ignored.Load() == 0 {
			t.Errorf("no broadcast came to the socket of ipv4=%t", s.v4)
		}
	}
}

// sendGroup sends one packet to a broadcast or multicast address, out of the interface after the %.
func sendGroup(t *testing.T, group string, port uint16) {
	t.Helper()
	addr, dev, _ := strings.Cut(group, "%")
	ip := netip.MustParseAddr(addr)
	family, to := unix.AF_INET, unix.Sockaddr(nil)
	if ip.Is4() {
		to = &unix.SockaddrInet4{Addr: ip.As4(), Port: int(port)}
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: ip.As16(), Port: int(port)}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	if dev != "" {
		must(t, unix.BindToDevice(fd, dev))
	}
	err = unix.ENETUNREACH
	for began := time.Now(); err == unix.ENETUNREACH && time.Since(began) < patience; time.Sleep(time.Millisecond) {
		err = unix.Sendto(fd, packet('b'), 0, to) // the route appears a moment after the link is up
	}
	must(t, err)
}
