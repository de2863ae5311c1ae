package iptables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	xtables "github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"
)

// tables is what a Backend needs of one family's iptables.
type tables interface {
	String() string                      // the program, for errors
	list(table string) ([]string, error) // as iptables -S does: -P and -N lines, then -A lines
	insert(h hook) error                 // the rule that leads from the builtin chain to ours, before all others
	remove(table, rule string) error     // a rule as it is listed
	restore(text string) error           // what iptables-restore reads, added to what is there; each table as a whole
	info(table string) (string, error)   // of legacy: changes when the table does, with few exceptions
}

// lockPatience is how long the lock is waited for that all programs of iptables share.
const lockPatience = 5 * time.Second

// programPatience is how long a program may take; a test has less of it.
var programPatience = 30 * time.Second

// sbin is where programs are looked for besides PATH, which for a daemon may not lead there.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

// program runs iptables or ip6tables by way of go-iptables, and the -restore beside it, which that library lacks: a
// thousand services are ten thousand rules, 3 ms each if every rule is a process of its own, and not there all at once.
type program struct {
	name     string
	path     string
	restorer string
	waits    bool // iptables-restore knows --wait: since 1.6.2
	v6       bool
	ipt      *xtables.IPTables
	netns    int
}

func newProgram(name string, v6 bool, netns int) (*program, error) {
	path, err := find(name)
	if err != nil {
		return nil, err
	}
	restorer, err := find(name + "-restore")
	if err != nil {
		return nil, err
	}
	family := xtables.ProtocolIPv4
	if v6 {
		family = xtables.ProtocolIPv6
	}
	p := &program{name: name, path: path, restorer: restorer, v6: v6, netns: netns}
	err = p.do(func() (err error) {
		p.ipt, err = xtables.New(xtables.IPFamily(family), xtables.Path(path), xtables.Timeout(int(lockPatience/time.Second)))
		return err
	})
	if err != nil {
		return nil, err
	}
	major, minor, patch := p.ipt.GetIptablesVersion()
	p.waits = slices.Compare([]int{major, minor, patch}, []int{1, 6, 2}) >= 0
	return p, nil
}

// find looks for a program.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range sbin {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	return path, nil
}

func (p *program) String() string { return p.name }

// do runs f, which starts a program, in the network namespace, and gives it up after a time: a program that hangs must
// not stop all doors.
func (p *program) do(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- within(p.netns, f) }()
	select {
	case err := <-done:
		return err
	case <-time.After(programPatience):
		return fmt.Errorf("%s has not returned for %v: see what it waits for, and end it", p.name, programPatience)
	}
}

// probe reports whether there is a table, by listing a chain that each has and we do not use.
func (p *program) probe(table string) error {
	return p.do(func() error { _, err := p.ipt.List(table, "OUTPUT"); return err })
}

// list runs the program itself: go-iptables lists one chain for each process.
func (p *program) list(table string) ([]string, error) {
	said, err := p.run(p.path, "", "-t", table, "-S", "--wait", strconv.Itoa(int(lockPatience/time.Second)))
	return slices.Collect(strings.Lines(said)), err
}

func (p *program) insert(h hook) error {
	return p.do(func() error {
		return p.ipt.Insert(h.table, h.builtin, 1, "-m", "comment", "--comment", "spad", "-j", h.chain)
	})
}

// remove leaves it to iptables-restore to read a rule: a comment may have quotes.
func (p *program) remove(table, rule string) error {
	return p.restore(fmt.Sprintf("*%s\n-D%s\nCOMMIT\n", table, strings.TrimPrefix(rule, "-A")))
}

func (p *program) restore(text string) error {
	args := []string{"--noflush"}
	if p.waits {
		args = append(args, "--wait", strconv.Itoa(int(lockPatience/time.Second)))
	}
	_, err := p.run(p.restorer, text, args...)
	return err
}

// run runs a program and returns what it says; if it is given up, nobody looks at that any more. What it says when it
// fails is in the error.
func (p *program) run(path, stdin string, args ...string) (string, error) {
	said := make(chan string, 1)
	err := p.do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), programPatience)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Stdin = strings.NewReader(stdin)
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("running %s: %w: %s", filepath.Base(path), err, strings.TrimSpace(errs.String()))
		}
		said <- out.String()
		return nil
	})
	if err != nil {
		return "", err
	}
	return <-said, nil
}

// within runs f on a thread in a network namespace: what f starts is in it too.
func within(netns int, f func() error) error {
	if netns == 0 {
		return f()
	}
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		defer home.Close()
		err = unix.Setns(netns, unix.CLONE_NEWNET)
	}
	if err != nil {
		return fmt.Errorf("entering the network namespace: %w", err) // the thread ends with the goroutine
	}
	defer func() {
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// programNames are the programs that may be a variant, the likeliest first.
var programNames = map[string][]string{
	"":       {"iptables", "iptables-nft", "iptables-legacy"},
	"nft":    {"iptables-nft", "iptables"},
	"legacy": {"iptables-legacy", "iptables"},
}

// choose finds the programs of a variant for all families that the kernel has, and tries whether they work.
func choose(o Options) (string, []family, error) {
	names := programNames[o.Variant]
	if names == nil {
		return "", nil, fmt.Errorf("%q is no iptables: want nft or legacy", o.Variant)
	}
	var errs error
	for _, name := range names {
		variant, families, err := try(name, o)
		if err == nil {
			return variant, families, nil
		}
		if !errors.Is(err, exec.ErrNotFound) || errs == nil {
			errs = errors.Join(errs, err)
		}
	}
	return "", nil, explain(errs)
}

func try(name string, o Options) (variant string, families []family, err error) {
	for _, v6 := range []bool{false, true} {
		if v6 && !hasIPv6() {
			continue
		}
		program := name
		if v6 {
			program = "ip6" + strings.TrimPrefix(name, "ip")
		}
		p, err := newProgram(program, v6, o.NetNS)
		if err != nil {
			return "", nil, err
		}
		is, err := p.variant()
		if err != nil {
			return "", nil, err
		}
		want := cmp.Or(o.Variant, variant) // both families the same, or spad down would not find all of it again
		if want != "" && is != want {
			return "", nil, fmt.Errorf("%s is the %s variant, not %s", program, is, want)
		}
		f := family{v6: v6, table: p}
		for _, table := range []string{"mangle", "filter"} {
			if err := p.probe(table); err != nil {
				return "", nil, err
			}
		}
		if f.noNAT = p.probe("nat"); exitOf(f.noNAT) == lockExit {
			return "", nil, f.noNAT // there is one, and rules of ours may be in it
		}
		variant, families = is, append(families, f)
	}
	return variant, families, nil
}

// variant asks the program what it is: 1.8 and later say so behind their version, earlier ones are legacy.
func (p *program) variant() (string, error) {
	said, err := p.run(p.path, "", "--version")
	if err != nil {
		return "", err
	}
	if strings.Contains(said, "nf_tables") {
		return "nft", nil
	}
	return "legacy", nil
}

// hasIPv6 reports whether the kernel speaks IPv6 at all; then a guard for IPv4 alone would hide nothing.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}
