package firewalltest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Do runs f in the host's namespace: sockets that f makes belong to it, wherever they are used later. It runs in the
// calling goroutine, so f may call t.Fatal; goroutines that f starts are not in the namespace.
func (h *Host) Do(f func()) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		err = unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		panic(fmt.Sprintf("entering the namespace of %s: %v", h.Name, err))
	}
	defer func() {
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with the goroutine, and nobody else gets it
		}
		_ = home.Close()
	}()
	f()
}

// NetNS returns a file descriptor of the host's namespace, open until the test ends.
func (h *Host) NetNS() int { return int(h.ns.Fd()) }

// Command is exec.Command in the host's namespace. The caller may set what it likes; further ExtraFiles come after the
// one that is there (so they begin at descriptor 4, and descriptor 3 is closed). The command is killed when the test
// ends, however that happens.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	path, err := exec.LookPath(name)
	cmd := exec.Command("/proc/self/exe", append([]string{execArg, "3", path, name}, args...)...)
	cmd.ExtraFiles = []*os.File{h.ns}
	// Not Pdeathsig: it strikes when the thread that started the command ends, and threads of namespaces do.
	h.lab.tb.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	cmd.Err = err
	h.lab.tb.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill() // an error if it has ended
		}
	})
	return cmd
}

// Listen is net.Listen in the host's namespace.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	var err error
	h.Do(func() { l, err = net.Listen(network, address) })
	return l, err
}

// ListenPacket is net.ListenPacket in the host's namespace.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	var err error
	h.Do(func() { c, err = net.ListenPacket(network, address) })
	return c, err
}

// Dial is net.DialTimeout in the host's namespace; the address must be numeric.
func (h *Host) Dial(network, address string, timeout time.Duration) (net.Conn, error) {
	return h.DialFrom(netip.AddrPort{}, network, address, timeout)
}

// DialFrom is Dial from one of the host's addresses; port 0 is any, the zero AddrPort leaves both to the kernel.
func (h *Host) DialFrom(from netip.AddrPort, network, address string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	d.SetMultipathTCP(false)
	if from.Addr().IsValid() {
		if network[:3] == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var c net.Conn
	var err error
	h.Do(func() { c, err = d.DialContext(ctx, network, address) })
	return c, err
}

// At returns "address:port" of the host for Dial.
func (h *Host) At(v6 bool, port uint16) string {
	return net.JoinHostPort(h.Addr(v6).String(), strconv.Itoa(int(port)))
}
