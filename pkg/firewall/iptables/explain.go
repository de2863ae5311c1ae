package iptables

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	xtables "github.com/coreos/go-iptables/iptables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// lockExit is how iptables ends when it could not have its lock, and for want of other things that may come back.
const lockExit = 4

// explain says what an error of the programs or of the kernel's sets means here, and what to do.
func explain(err error) error {
	if err == nil {
		return nil
	}
	said := err.Error()
	contains := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(said, t) {
				return true
			}
		}
		return false
	}
	number, isErrno := errno(err)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("iptables is not complete here: install it (the package iptables, with ip6tables and the -restore programs), "+
			"or choose another firewall: %w", err)
	case contains("open lock file"):
		return fmt.Errorf("iptables may not open its lock /run/xtables.lock, whatever capabilities it has: run spad as root, or let its "+
			"user open it, as tmpfiles.d/spad.conf does, which comes with spad.service: %w", err)
	case contains("you must be root", "Can't open socket to ipset", "Operation not permitted", "Permission denied") || isErrno && (number == unix.EPERM || number == unix.EACCES):
		return fmt.Errorf("spad needs the capabilities CAP_NET_ADMIN and CAP_NET_RAW: run it as root, or let systemd give them "+
			"(iptables.conf, which comes with spad.service, has the lines): %w", err)
	case tooLong(err):
		return fmt.Errorf("the rules are longer than the socket's buffer: raise net.core.wmem_max: %w", err)
	case contains("currently holding the xtables lock"):
		return fmt.Errorf("another program has held the lock of iptables for %v: see which with: fuser -v /run/xtables.lock: %w", lockPatience, err)
	case errors.Is(err, nl.IPSetError(nl.IPSET_ERR_FIND_TYPE)):
		return fmt.Errorf("the kernel has no sets of that type: load or install the modules ip_set_hash_ip and ip_set_hash_net "+
			"(OpenWrt: kmod-ipt-ipset): %w", err)
	case isErrno && number == unix.ENOENT:
		return fmt.Errorf("a set of spad's is gone, another program removed it: apply the ruleset again: %w", err)
	case isErrno && (number == unix.EINVAL || number == unix.EOPNOTSUPP || number == unix.EPROTONOSUPPORT):
		return fmt.Errorf("the kernel has no ipset: load or install the module ip_set (OpenWrt: kmod-ipt-ipset), or choose another firewall: %w", err)
	case errors.Is(err, nl.IPSetError(nl.IPSET_ERR_TYPE_SPECIFIC)):
		return fmt.Errorf("the set is full, it takes %d doors: %w", maxElements, err)
	}
	return err
}

// tooLong reports whether a transaction did not fit into the socket's buffer.
func tooLong(err error) bool { return err != nil && strings.Contains(err.Error(), "Message too long") }

// exitOf returns the exit code of a program in an error, or 0.
func exitOf(err error) int {
	var library *xtables.Error
	var program *exec.ExitError
	switch {
	case errors.As(err, &library):
		return library.ExitStatus()
	case errors.As(err, &program):
		return program.ExitCode()
	}
	return 0
}

// feature is something that can be left out of a kernel or of iptables.
type feature struct{ name, table, rule string }

var features = []feature{
	{"comments in rules (module xt_comment)", "mangle", "-m comment --comment spad"},
	{"sets in rules (module xt_set, OpenWrt: kmod-ipt-ipset)", "mangle", "-m set --match-set %s src"},
	{"connection tracking (module xt_conntrack)", "mangle", isReply},
	{"address types (module xt_addrtype)", "mangle", passing},
	{"marks (module xt_mark)", "mangle", "-j MARK --set-xmark 0x1/0x1"},
	{"reject (module ipt_REJECT or ip6t_REJECT)", "filter", "-p tcp -j REJECT --reject-with tcp-reset"},
	{"masquerading (module xt_MASQUERADE, for lan)", "nat", "-j MASQUERADE"},
	{"connection labels (module xt_connlabel, for guard off with cut)", "mangle", addLabel},
}

// diagnose finds what is missing by trying each feature alone in a chain that nothing leads to.
func (b *Backend) diagnose(err error) error {
	if explained := explain(err); explained != err {
		return explained
	}
	if exitOf(err) == 0 {
		return err
	}
	for _, f := range b.families {
		var missing []string
		set := familyPrefix(f.v6) + ".probe"
		if b.sets.create(set, setKind{v6: f.v6, timed: true}) != nil {
			continue
		}
		for _, one := range features {
			if (one.table != "nat" || f.noNAT == nil) && f.lacks(one, set) {
				missing = append(missing, one.name)
			}
		}
		_ = b.sets.destroy(set)
		if len(missing) > 0 {
			return fmt.Errorf("%s or the kernel has no %s: load or install what is missing, or choose another firewall: %w",
				f.table, strings.Join(missing, ", no "), err)
		}
	}
	return err
}

const probeChain = "spad.probe"

func (f family) lacks(one feature, set string) bool {
	rule := strings.ReplaceAll(one.rule, "%s", set)
	err := f.table.restore(fmt.Sprintf("*%s\n:%s - [0:0]\n-A %s %s\nCOMMIT\n", one.table, probeChain, probeChain, rule))
	_ = f.table.restore(fmt.Sprintf("*%s\n-F %s\n-X %s\nCOMMIT\n", one.table, probeChain, probeChain)) // fails if there is none
	return err != nil
}
