package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"spad/pkg/config"
	"spad/pkg/firewall"
	"spad/pkg/firewall/iptables"
	"spad/pkg/firewall/nftables"
	"spad/pkg/session"
)

// filter names a packet filter: "nftables", "iptables" (which finds out what it is), "iptables nft", "iptables legacy".
type filter string

const (
	onNFTables filter = "nftables"
	onIPTables filter = "iptables"
)

func filterOf(cfg *config.Config) filter {
	return filter(strings.TrimSpace(cfg.Firewall + " " + cfg.IPTables))
}

// open connects to the filter, and returns it with a name that says what was found out.
func (f filter) open() (firewall.Backend, filter, error) {
	switch kind, variant, _ := strings.Cut(string(f), " "); filter(kind) {
	case onNFTables:
		b, err := nftables.New(nftables.Options{})
		if err != nil {
			return nil, f, err
		}
		return b, f, nil
	case onIPTables:
		b, err := iptables.New(iptables.Options{Variant: variant})
		if err != nil {
			return nil, f, err
		}
		return b, onIPTables + filter(" "+b.Variant()), nil
	}
	return nil, f, fmt.Errorf("no packet filter is called %q", string(f))
}

// down removes everything of ours from the filter.
func (f filter) down() error {
	b, _, err := f.open()
	if err != nil {
		return err
	}
	return errors.Join(b.Down(), b.Close())
}

// filtersFile is where the filters that may hold rules of ours are written down, one a line: a configuration that names
// another one would otherwise leave the old guard behind, which keeps out whom the new doors let in.
func filtersFile(stateDir string) string { return filepath.Join(stateDir, "firewall") }

func readFilters(stateDir string) ([]filter, error) {
	data, err := os.ReadFile(filtersFile(stateDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading which firewall has rules of spad's: %w", err)
	}
	var all []filter
	for line := range strings.Lines(string(data)) {
		all = append(all, filter(strings.TrimSpace(line)))
	}
	return all, nil
}

func writeFilters(stateDir string, all ...filter) error {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintln(&b, f)
	}
	err := renameio.WriteFile(filtersFile(stateDir), []byte(b.String()), 0o600, renameio.WithTempDir(stateDir))
	if err != nil {
		return fmt.Errorf("writing down which firewall has rules of spad's: %w", err)
	}
	return nil
}

// holdFilter writes down that f is about to hold rules. Others that hold some are returned: they go when f holds.
func holdFilter(stateDir string, f filter) (others []filter, err error) {
	all, err := readFilters(stateDir)
	if err != nil {
		return nil, err
	}
	others = slices.DeleteFunc(slices.Clone(all), func(other filter) bool { return other == f })
	if slices.Contains(all, f) {
		return others, nil
	}
	return others, writeFilters(stateDir, append(all, f)...)
}

// dropFilters removes what the others hold, now that f holds. What can't be removed is tried again at the next start.
func (d *Daemon) dropFilters(f filter, others []filter) {
	left := []filter{f}
	for _, other := range others {
		if err := other.down(); err != nil {
			left = append(left, other)
			d.log.Error("rules of spad's are left in another firewall, and keep out whom the doors let in", "firewall", other, "err", err)
			continue
		}
		d.log.Info("took spad's rules out of the firewall that was used before", "firewall", other)
	}
	if len(others) > 0 {
		if err := writeFilters(d.o.StateDir, left...); err != nil {
			d.log.Warn("the next start tries again to clear another firewall", "err", err)
		}
	}
}

// Down removes everything of spad's from every firewall that may hold something: those written down in the state, and the
// one that the configuration names if nothing is; it may be nil. The open sessions are forgotten first, or the next start
// would bring the doors back.
func Down(stateDir string, cfg *config.Config) error {
	held, err := readFilters(stateDir)
	if err != nil {
		return err
	}
	unsure := len(held) == 0 && cfg == nil
	switch {
	case unsure:
		held = []filter{onNFTables, onIPTables + " nft", onIPTables + " legacy"}
	case len(held) == 0:
		held = []filter{filterOf(cfg)}
	}
	if err := errors.Join(session.Forget(SessionsFile(stateDir)), forgetTrial(stateDir)); err != nil {
		return err
	}
	var errs error
	for _, f := range held {
		if err := f.down(); unsure && f != onNFTables && err != nil {
			continue // what can't be had here, as a rule, has no rules
		} else if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", f, err))
		}
	}
	if errs != nil {
		return errs
	}
	if err := os.Remove(filtersFile(stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting which firewall has rules of spad's: %w", err)
	}
	return nil
}

// Filter returns the name of the packet filter that a configuration names, as the state and control.Status have it.
func Filter(cfg *config.Config) string { return string(filterOf(cfg)) }

// Held returns which packet filters may hold rules of spad's, as they are written down in the state.
func Held(stateDir string) (names []string, err error) {
	held, err := readFilters(stateDir)
	for _, f := range held {
		names = append(names, string(f))
	}
	return names, err
}
