package nftables

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// explain says what an error of the kernel means here, and what to do. try is for asking the kernel what it lacks.
func explain(err error, try func(func(kernel) error) error) error {
	is := func(errnos ...unix.Errno) bool {
		for _, e := range errnos {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(unix.EPERM, unix.EACCES):
		return fmt.Errorf("spad needs the capability CAP_NET_ADMIN: run it as root, or let systemd give it "+
			"(AmbientCapabilities=CAP_NET_ADMIN): %w", err)
	case is(unix.EMSGSIZE):
		return fmt.Errorf("the ruleset is longer than the socket's buffer: raise net.core.wmem_max: %w", err)
	case is(unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT):
		return noTables(err)
	case is(unix.ENOENT, unix.EOPNOTSUPP, unix.EINVAL, unix.EPROTOTYPE):
		return diagnose(err, try)
	}
	return err
}

func noTables(err error) error {
	return fmt.Errorf("the kernel has no nf_tables: load or install the module nf_tables "+
		"(OpenWrt: kmod-nft-core), or choose another firewall: %w", err)
}

// diagnose finds what the kernel lacks by asking for each feature alone, in a transaction that is never taken over.
func diagnose(err error, try func(func(kernel) error) error) error {
	if lacks(&batch{}, try) {
		return noTables(err)
	}
	var missing []string
	for _, f := range features {
		b := &batch{}
		f.use(b)
		if lacks(b, try) {
			missing = append(missing, f.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the kernel's nf_tables has no %s: load or install what is missing, or choose another firewall: %w",
			strings.Join(missing, ", no "), err)
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the table inet %s is gone or was changed by another program: apply the ruleset again: %w", tableName, err)
	}
	return err
}

// lacks reports whether the kernel refuses the batch. Its last message creates a table that the first has created, which
// is refused too, but differently: so nothing of it stays.
func lacks(b *batch, try func(func(kernel) error) error) bool {
	all := &batch{}
	all.addTable()
	all.join(b)
	all.addTable()
	last := &all.messages[len(all.messages)-1]
	last.Header.Flags |= unix.NLM_F_EXCL
	err := try(func(k kernel) error { return send(k, all) })
	return !errors.Is(err, unix.EEXIST)
}

// feature is something that can be left out of a kernel, or stay unloaded where a container may not load modules.
type feature struct {
	name string
	use  func(*batch)
}

const probeChain, probeSet = "probe", "probe"

var features = []feature{
	{"inet tables with hooks (CONFIG_NF_TABLES_INET)", func(b *batch) {
		b.addChain(probeChain, "", &hook{nftables.ChainTypeFilter, *nftables.ChainHookPrerouting, -110})
	}},
	{"nat chains (module nft_chain_nat)", func(b *batch) {
		b.addChain(probeChain, "", &hook{nftables.ChainTypeNAT, *nftables.ChainHookPrerouting, -101})
	}},
	{"timeouts in sets (CONFIG_NF_TABLES)", func(b *batch) {
		b.addSet(set{name: probeSet, key: nftables.TypeIPAddr, flags: unix.NFT_SET_TIMEOUT})
	}},
	{"interval maps (CONFIG_NF_TABLES)", func(b *batch) {
		b.addSet(set{name: probeSet, key: nftables.TypeInetService, flags: unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP})
	}},
	probeRule("connection tracking (module nft_ct)", *nftables.ChainHookPrerouting, nftables.ChainTypeFilter, direction(reply)),
	probeRule("fib lookup (module nft_fib_inet)", *nftables.ChainHookPrerouting, nftables.ChainTypeFilter, passing()),
	probeRule("reject in prerouting (module nft_reject_inet, kernel 5.9)",
		*nftables.ChainHookPrerouting, nftables.ChainTypeFilter, unreachable()),
	probeRule("destination NAT (module nft_nat)", *nftables.ChainHookPrerouting, nftables.ChainTypeNAT,
		[]part{
			express(&expr.Immediate{Register: 1, Data: make([]byte, 4)}),
			express(&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}),
		}),
	{"masquerading (module nft_masq, for lan)", func(b *batch) {
		b.addChain(probeChain, "", new(bases[srcnatChain].hook))
		b.addRule(probeChain, masquerade()...)
	}},
	probeRule("connection labels (CONFIG_NF_CONNTRACK_LABELS, for guard off with cut)", *nftables.ChainHookPrerouting, nftables.ChainTypeFilter, addLabel()),
}

func probeRule(name string, number nftables.ChainHook, kind nftables.ChainType, rule []part) feature {
	return feature{name, func(b *batch) {
		b.addChain(probeChain, "", &hook{kind, number, -110})
		b.addRule(probeChain, rule...)
	}}
}
