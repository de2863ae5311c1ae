package iptables

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Table is one table of one family, as iptables -S lists it.
type Table struct {
	Name  string
	Lines []string
}

// LegacyTables lists the tables of iptables-legacy that there are in a network namespace, for who looks for what is in the
// way. It makes none: listing one that is not there would.
func LegacyTables(netns int, v6 bool) ([]Table, error) {
	names, err := loadedTables(netns, v6)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	name := "iptables-legacy"
	if v6 {
		name = "ip6tables-legacy"
	}
	path, err := find(name)
	if err != nil { // before 1.8 and on some systems it has the plain name
		if path, err = find(strings.TrimSuffix(name, "-legacy")); err != nil {
			return nil, fmt.Errorf("the kernel has tables %s, and there is no %s to list them", strings.Join(names, ", "), name)
		}
	}
	p := &program{name: name, path: path, v6: v6, netns: netns}
	if is, err := p.variant(); err != nil || is != "legacy" {
		return nil, errors.Join(fmt.Errorf("the kernel has tables %s, and %s is not the program to list them", strings.Join(names, ", "), path), err)
	}
	var tables []Table
	for _, table := range names {
		lines, err := p.list(table)
		if err != nil {
			return nil, explain(err)
		}
		tables = append(tables, Table{table, lines})
	}
	return tables, nil
}

// loadedTables are the legacy tables that the kernel has in this network namespace.
func loadedTables(netns int, v6 bool) (names []string, err error) {
	path := "/proc/thread-self/net/ip_tables_names"
	if v6 {
		path = "/proc/thread-self/net/ip6_tables_names"
	}
	err = within(netns, func() error {
		text, err := os.ReadFile(path)
		names = strings.Fields(string(text))
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, errors.New("run this as root")
	}
	return names, err
}
