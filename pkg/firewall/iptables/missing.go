package iptables

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// Missing lists what a ruleset needs and iptables or the kernel lacks, and what can't be told. It only reads: unlike New it
// lists no table that is not there, which would make it. An error says that there is no iptables that could be used.
func Missing(o Options, rules firewall.Ruleset) (missing, untold []string, err error) {
	if err := look(o); err != nil {
		return nil, nil, fmt.Errorf("looking for iptables: %w", explain(err))
	}
	sets, err := dialSets(o.NetNS)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to ipset: %w", explain(err))
	}
	sets.close()
	for _, module := range []string{"ip_set_hash_ip", "ip_set_hash_net"} {
		switch have, sure := loadable(module); {
		case !have && sure:
			missing = append(missing, "sets of addresses (module "+module+", OpenWrt: kmod-ipt-ipset)")
		case !have:
			untold = append(untold, module)
		}
	}
	registered := registeredNames()
	for _, f := range features {
		if !f.neededBy(rules) {
			continue
		}
		switch have, sure := f.has(registered); {
		case !have && sure:
			missing = append(missing, f.name)
		case !have:
			untold = append(untold, f.modules()...)
		}
	}
	return missing, untold, nil
}

// neededBy reports whether a ruleset needs the feature: some are for some services only.
func (f feature) neededBy(r firewall.Ruleset) bool {
	some := func(of func(firewall.Service) bool) bool { return slices.ContainsFunc(r.Services, of) }
	switch {
	case slices.Contains(f.modules(), "xt_connlabel"):
		return some(labels)
	case slices.Contains(f.modules(), "xt_MASQUERADE"):
		return some(r.Hairpins)
	case f.table == "filter":
		return some(func(s firewall.Service) bool { return s.Guard == firewall.GuardReject })
	}
	return true
}

// look finds the programs that New would use, without listing a table.
func look(o Options) error {
	var errs error
	for _, name := range programNames[o.Variant] {
		err := lookAt(name, o)
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

func lookAt(name string, o Options) error {
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
			return err
		}
		is, err := p.variant()
		if err != nil {
			return err
		}
		if o.Variant != "" && is != o.Variant {
			return fmt.Errorf("%s is the %s variant, not %s", program, is, o.Variant)
		}
	}
	return nil
}

// modules are those that the feature's name names.
func (f feature) modules() (names []string) {
	words := strings.FieldsFunc(f.name, func(r rune) bool { return strings.ContainsRune(" ,:()", r) })
	for _, word := range words {
		if kind, _, _ := strings.Cut(word, "_"); kind == "xt" || kind == "ipt" || kind == "ip6t" {
			names = append(names, word)
		}
	}
	return names
}

// has reports whether one of the feature's modules is there, or the kernel says that it has what is in it.
func (f feature) has(registered []string) (have, sure bool) {
	sure = true
	for _, module := range f.modules() {
		_, word, _ := strings.Cut(module, "_")
		if slices.Contains(registered, word) {
			return true, true
		}
		there, certain := loadable(module)
		if there {
			return true, true
		}
		sure = sure && certain
	}
	return false, sure
}

// registeredNames are the matches and targets that the kernel has at the moment, built in or loaded.
func registeredNames() (names []string) {
	for _, file := range []string{"ip_tables_matches", "ip_tables_targets", "ip6_tables_matches", "ip6_tables_targets"} {
		text, err := os.ReadFile("/proc/net/" + file)
		if err == nil {
			names = append(names, strings.Fields(string(text))...)
		}
	}
	return names
}

// loadable reports whether a module is loaded, built in, or in the folder of modules. It can't be sure that it is not
// where there is no such folder, as in a container: the host's may have it.
func loadable(module string) (have, sure bool) {
	if _, err := os.Stat("/sys/module/" + module); err == nil {
		return true, true
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false, false
	}
	dir := filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]))
	found := false
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(e.Name(), ".ko")
		if found = name == module && !e.IsDir(); found {
			return fs.SkipAll
		}
		return nil
	})
	if built, err := os.ReadFile(filepath.Join(dir, "modules.builtin")); err == nil {
		found = found || strings.Contains(string(built), "/"+module+".ko")
	}
	return found, err == nil
}
