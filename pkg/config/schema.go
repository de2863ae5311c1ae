package config

import (
	"slices"
	"strings"
)

// The kinds of tables that a configuration has. The word stands in messages.
const (
	topKind     = "the first part of the file"
	serviceKind = "[service.NAME]"
	forwardKind = "forward"
	groupKind   = "[group.NAME]"
	deviceKind  = "[device.NAME]"
	webhookKind = "[webhook.NAME]"
	execKind    = "[exec.NAME]"
	budgetKind  = "budget"
)

// schema lists the keys of each kind of table, in the order of the reference. A key that is not here is a problem; a
// test holds it against reference.toml and against what is read.
var schema = map[string][]string{
	topKind: {
		"listen", "hostname", "external", "key", "remote", "capture", "firewall", "iptables", "mark", "always_allow", "lan",
		"guard", "ipv6_prefix", "window", "log", "test_loopback", "budget", "service", "group", "device", "webhook", "exec",
	},
	budgetKind:  {"source", "burst", "global", "global_burst", "reserved"},
	serviceKind: {"open", "forward", "proxy", "ttl", "max_ttl", "on_expire", "guard", "roam", "ipv6_prefix"},
	forwardKind: {"port", "to", "pinhole"},
	groupKind:   {"services", "from", "hours"},
	deviceKind:  {"key", "allow", "expires", "disabled", "delegate"},
	webhookKind: {"url", "secret_file", "secret", "events", "ca_file", "timeout"},
	execKind:    {"command", "events", "timeout"},
}

// reserved are the names of commands, present and planned, which knock would take a service of that name for.
var reserved = []string{
	"open", "close", "enroll", "list", "key", "forget", "rescue", "doctor", "install", "uninstall", "export", "import",
	"help", "h", "version",
}

// place returns the kinds of tables, other than one, that have a key.
func place(key, not string) []string {
	var kinds []string
	for kind, names := range schema {
		if kind != not && slices.Contains(names, key) {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// unknownKey returns what to do about a key that a kind of table does not have.
func unknownKey(key, kind string) string {
	if near := nearest(key, schema[kind]); near != "" {
		return "did you mean " + near + "?"
	}
	if kinds := place(key, kind); len(kinds) > 0 {
		return "it belongs in " + strings.Join(kinds, " or ") + orAbove(kinds)
	}
	return "here are known: " + strings.Join(schema[kind], ", ")
}

// orAbove explains the most common slip in TOML: a key of the top of the file that stands below a [table].
func orAbove(kinds []string) string {
	if slices.Contains(kinds, topKind) {
		return ", above the first [section]"
	}
	return ""
}

// nearest returns the option that a word is a slip of the pen away from, or "".
func nearest(word string, options []string) string {
	best, found := 3, ""
	if len(word) < 5 {
		best = 2
	}
	for _, option := range options {
		if len(word)-len(option) >= best || len(option)-len(word) >= best {
			continue // and a megabyte is not compared
		}
		if d := distance(word, option); d < best && d < len(option) {
			best, found = d, option
		}
	}
	return found
}

// distance counts the letters to insert, drop, change or swap with their neighbour to make b of a.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
