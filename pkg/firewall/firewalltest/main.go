package firewalltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const (
	insideArg = "-firewalltest.inside" // the test binary again, in namespaces of its own
	execArg   = "-firewalltest.exec"   // a command in a host's namespace: NETNS-FD PATH ARGV...
)

// missing says why labs can't be had; set by Main.
var missing = "TestMain does not run the tests through firewalltest.Main"

// Main runs the tests of a package that uses labs, in a user, network and mount namespace of their own, where they are
// root over a network that nobody else sees. It needs no rights where user namespaces are allowed, and works as root
// where they are not. A goroutine that is left when all have passed is a failure. TestMain calls it first, and exits
// with its result:
//
//	func TestMain(m *testing.M) { os.Exit(firewalltest.Main(m)) }
//
// Where namespaces can't be had, the tests that want a Lab are skipped with the reason; with CI=true the run fails.
// The working folder and the environment stay as they are; of all users only the current one exists, as root.
func Main(m *testing.M) int {
	switch {
	case len(os.Args) > 3 && os.Args[1] == execArg:
		fmt.Fprintln(os.Stderr, "firewalltest:", enter(os.Args[2], os.Args[3], os.Args[4:]))
		return 127
	case len(os.Args) > 1 && os.Args[1] == insideArg:
		os.Args = slices.Delete(os.Args, 1, 2)
		if err := settle(); err != nil {
			return without(m, err)
		}
		missing = ""
		return run(m)
	}
	code, err := reenter()
	if err != nil {
		return without(m, err)
	}
	return code
}

// without runs the tests that need no lab.
func without(m *testing.M, err error) int {
	missing = fmt.Sprintf("no network namespaces here: %v", err)
	if os.Getenv("CI") == "true" {
		fmt.Fprintln(os.Stderr, "firewalltest:", missing)
		return 1
	}
	return run(m)
}

// run runs the tests, which must not leave a goroutine behind, and prints what the conformance suite found, if it is
// among them.
func run(m *testing.M) (code int) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(c int) { code = c }))
	var rows []string
	for _, c := range conformance {
		rows = append(rows, c.name)
	}
	results.print(os.Stdout, rows)
	return code
}

// reenter runs this binary again in new namespaces and returns its exit code. An error means that it never ran.
func reenter() (int, error) {
	user := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	root := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	runtime.LockOSThread() // the child dies with this thread
	defer runtime.UnlockOSThread()
	cmd, err := start(user)
	if err != nil && os.Geteuid() == 0 {
		cmd, err = start(root)
	}
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT)
	go func() {
		for s := range signals {
			if s != syscall.SIGINT { // the terminal tells both
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "firewalltest:", err)
		return 1, nil
	}
	return 0, nil
}

func start(attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	attr.Pdeathsig = syscall.SIGKILL
	cmd := exec.Command("/proc/self/exe", append([]string{insideArg}, os.Args[1:]...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	return cmd, cmd.Start()
}

// settle makes the new namespaces usable, and finds out whether they are: some systems hand out user namespaces that
// may do nothing.
func settle() error {
	// A program with the race detector sleeps for a second before it ends, and tests start hundreds of them.
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	// The lock that all iptables share is there, and the tests of another process may hold it.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("giving the tests a /run of their own: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("looking for the loopback link: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("setting the loopback link up: %w", err)
	}
	probe := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1"}
	if err := netlink.LinkAdd(probe); err != nil {
		return fmt.Errorf("making a veth pair: %w", err)
	}
	return netlink.LinkDel(probe)
}

// enter turns this process into a command in the network namespace behind the file descriptor; it returns only if that
// fails. The thread that calls exec is the one whose namespace the new program gets.
func enter(fd, path string, argv []string) error {
	runtime.LockOSThread()
	n, err := strconv.Atoi(fd)
	if err != nil {
		return err
	}
	if err := unix.Setns(n, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	if err := unix.Close(n); err != nil {
		return err
	}
	return fmt.Errorf("running %s: %w", path, unix.Exec(path, argv, os.Environ()))
}
