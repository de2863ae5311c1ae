package nftables

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
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

// Missing lists what a ruleset needs and the kernel of a network namespace (by its file descriptor, 0 for the process's own)
// lacks. It changes nothing: what it asks for is never taken over. An error says that it can't be asked at all.
func Missing(netns int, rules firewall.Ruleset) ([]string, error) {
	b, err := New(Options{NetNS: netns})
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }()
	return b.missing(rules), nil
}

func (b *Backend) missing(rules firewall.Ruleset) (missing []string) {
	if lacks(&batch{}, b.try) {
		return []string{"tables of the family inet (module nf_tables, CONFIG_NF_TABLES_INET)"}
	}
	for _, f := range features {
		probe := &batch{}
		f.use(probe)
		if (f.needs == nil || f.needs(rules)) && lacks(probe, b.try) {
			missing = append(missing, f.name)
		}
	}
	return missing
}

// feature is something that can be left out of a kernel, or stay unloaded where a container may not load modules.
type feature struct {
	name  string
	use   func(*batch)
	needs func(firewall.Ruleset) bool // only by such; nil: by all
}

const probeChain, probeSet = "probe", "probe"

var features = []feature{
	{name: "inet tables with hooks (CONFIG_NF_TABLES_INET)", use: func(b *batch) {
		b.addChain(probeChain, "", &hook{nftables.ChainTypeFilter, *nftables.ChainHookPrerouting, -110})
	}},
	{name: "nat chains (module nft_chain_nat)", needs: forwards, use: func(b *batch) {
		b.addChain(probeChain, "", &hook{nftables.ChainTypeNAT, *nftables.ChainHookPrerouting, -101})
	}},
	{name: "timeouts in sets (CONFIG_NF_TABLES)", use: func(b *batch) {
		b.addSet(set{name: probeSet, key: nftables.TypeIPAddr, flags: unix.NFT_SET_TIMEOUT})
	}},
	{name: "interval maps (CONFIG_NF_TABLES)", use: func(b *batch) {
		b.addSet(set{name: probeSet, key: nftables.TypeInetService, flags: unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP})
	}},
	probeRule("connection tracking (module nft_ct)", *nftables.ChainHookPrerouting, nftables.ChainTypeFilter, nil, direction(reply)),
	probeRule("fib lookup (module nft_fib_inet)", *nftables.ChainHookPrerouting, nftables.ChainTypeFilter, nil, passing()),
	probeRule("reject in prerouting (module nft_reject_inet, kernel 5.9)",
		*nftables.ChainHookPrerouting, nftables.ChainTypeFilter, rejects, unreachable()),
	probeRule("destination NAT (module nft_nat)", *nftables.ChainHookPrerouting, nftables.ChainTypeNAT, forwards,
		[]part{
			express(&expr.Immediate{Register: 1, Data: make([]byte, 4)}),
			express(&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}),
		}),
	{name: "masquerading (module nft_masq, for lan)", needs: masquerades, use: func(b *batch) {
		b.addChain(probeChain, "", new(bases[srcnatChain].hook))
		b.addRule(probeChain, masquerade()...)
	}},
	probeRule("connection labels (CONFIG_NF_CONNTRACK_LABELS, for guard off with cut)",
		*nftables.ChainHookPrerouting, nftables.ChainTypeFilter, tags, addLabel()),
}

// What rulesets need some of the features.
func forwards(r firewall.Ruleset) bool    { return slices.ContainsFunc(r.Services, translates) }
func masquerades(r firewall.Ruleset) bool { return slices.ContainsFunc(r.Services, r.Hairpins) }
func tags(r firewall.Ruleset) bool        { return slices.ContainsFunc(r.Services, labels) }
func rejects(r firewall.Ruleset) bool {
	return slices.ContainsFunc(r.Services, func(s firewall.Service) bool { return s.Guard == firewall.GuardReject })
}

func probeRule(name string, number nftables.ChainHook, kind nftables.ChainType, needs func(firewall.Ruleset) bool, rule []part) feature {
	use := func(b *batch) {
		b.addChain(probeChain, "", &hook{kind, number, -110})
		b.addRule(probeChain, rule...)
	}
	return feature{name: name, use: use, needs: needs}
}
