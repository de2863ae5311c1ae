package doctor

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"spad/pkg/capture"
	"spad/pkg/config"
	"spad/pkg/firewall/foreign"
	"spad/pkg/firewall/iptables"
	"spad/pkg/firewall/nftables"
)

// World is what is looked at of the machine. Every part only reads.
type World struct {
	Files   Files
	Network Network
	Disk    Disk
	// Clock returns the time, and whether the kernel says that it follows a source.
	Clock func() (now time.Time, synchronised bool, err error)
	// Rules are those of other programs.
	Rules func() *foreign.Rules
	// Lacking returns what the packet filter needs and is not there, and what can't be told.
	Lacking func() (missing, untold []string, err error)
	// Queue returns how long the queue of packets should be, and is, in bytes.
	Queue func() (wanted, got int, err error)
}

// Files reads what the kernel shows under /proc.
type Files interface {
	// Read returns a file's text.
	Read(path string) (string, error)
	// Owner names the process that has a socket, by its inode: "nginx (pid 812)"; empty if it can't be told.
	Owner(inode string) string
}

// Link is a network link.
type Link struct {
	Name  string
	Index int
}

// Address is an address of this machine.
type Address struct {
	Link Link
	Addr netip.Addr
}

// Network is how this machine is connected.
type Network interface {
	// Addresses returns all addresses, but for those of the loopback link.
	Addresses() ([]Address, error)
	// Uplinks returns the links that a default route of a family leaves by.
	Uplinks(v6 bool) ([]Link, error)
	// Toward returns the link by which packets to an address leave.
	Toward(a netip.Addr) (Link, error)
	// PolicyRules reports whether routes depend on more than the destination.
	PolicyRules() (bool, error)
	// Lookup asks the resolver for a name's addresses of one family.
	Lookup(ctx context.Context, v6 bool, host string) ([]netip.Addr, error)
}

// Disk is where the state is.
type Disk interface {
	// Space returns how many bytes and files may still be written in a folder.
	Space(dir string) (bytes, files uint64, err error)
	// Writable returns nil if this process may write there.
	Writable(dir string) error
}

// machine is this machine.
func machine(cfg *config.Config) *World {
	return &World{
		Files: proc{}, Network: links{}, Disk: disk{}, Clock: systemClock, Queue: capture.Queue,
		Rules:   func() *foreign.Rules { return foreign.Read(0) },
		Lacking: func() (missing, untold []string, err error) { return lacking(cfg) },
	}
}

func lacking(cfg *config.Config) (missing, untold []string, err error) {
	rules := cfg.Ruleset(cfg.Port)
	if cfg.Firewall == "iptables" {
		return iptables.Missing(iptables.Options{Variant: cfg.IPTables}, rules)
	}
	missing, err = nftables.Missing(0, rules)
	return missing, nil, err
}

// systemClock asks the kernel, to which every time daemon reports (adjtimex(2)).
func systemClock() (time.Time, bool, error) {
	var t unix.Timex // no modes: only asks
	state, err := unix.Adjtimex(&t)
	return time.Now(), state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}

type proc struct{}

func (proc) Read(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

func (proc) Owner(inode string) string {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	want := "socket:[" + inode + "]"
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		open := "/proc/" + p.Name() + "/fd"
		files, _ := os.ReadDir(open) // not ours to see
		for _, f := range files {
			if to, _ := os.Readlink(open + "/" + f.Name()); to == want {
				name, _ := os.ReadFile("/proc/" + p.Name() + "/comm")
				return printable(strings.TrimSpace(string(name))) + " (pid " + p.Name() + ")"
			}
		}
	}
	return ""
}

// printable leaves nothing in a name that a terminal would obey: who has a process may call it as they like.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, name)
}

type disk struct{}

func (disk) Space(dir string) (bytes, files uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	if s.Files == 0 { // a file system that does not count them
		s.Ffree = 1 << 20
	}
	return s.Bavail * uint64(s.Bsize), s.Ffree, nil
}

func (disk) Writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
