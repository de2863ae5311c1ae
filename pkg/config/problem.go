package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File   string // as it was named by the caller
	Line   int    // from 1; 0 if the file could not be read at all
	Key    string // dotted, as service.ssh.ttl; empty if the problem is with the file or its syntax
	What   string // what is wrong
	Remedy string // what would be right

	cause error // of a file that could not be read
}

// Error returns the problem in one line: FILE:LINE: key: what is wrong; what would be right.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File + ":")
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:", p.Line)
	}
	if p.Key != "" {
		b.WriteString(" " + p.Key + ":")
	}
	b.WriteString(" " + p.What + "; " + p.Remedy)
	return b.String()
}

// Unwrap returns the error of the file system behind the problem, or nil.
func (p Problem) Unwrap() error { return p.cause }

// Problems is everything that is wrong with a configuration: the error of Load and Parse. It is never empty.
type Problems struct {
	List []Problem // by line
}

// Error returns all problems, a line each.
func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, one := range p.List {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems one by one.
func (p *Problems) Unwrap() []error {
	all := make([]error, len(p.List))
	for i, one := range p.List {
		all[i] = one
	}
	return all
}

// sort brings the problems into the order of the file.
func (p *Problems) sort() {
	slices.SortStableFunc(p.List, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key), cmp.Compare(a.What, b.What))
	})
}

// quote returns foreign text so that it can stand in a message: in quotes, escaped, and not too long.
func quote(text string) string {
	const longest = 64
	if len(text) <= longest {
		return strconv.QuoteToGraphic(text)
	}
	cut := longest
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strconv.QuoteToGraphic(text[:cut]) + "…"
}

// plain returns the text of another program's error in one line without control characters.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) && r != utf8.RuneError {
			return r
		}
		return ' '
	}, text)
	const longest = 200
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return strings.TrimRight(strings.TrimSpace(text), ".;")
}

// dotted returns a key as it would be written in a message: bare parts as they are, others quoted.
func dotted(path []string) string {
	parts := make([]string, len(path))
	for i, part := range path {
		if parts[i] = part; part == "" || strings.ContainsFunc(part, func(r rune) bool { return !bare(r) }) || len(part) > 64 {
			parts[i] = quote(part)
		}
	}
	return strings.Join(parts, ".")
}

// bare reports whether a character may stand in a TOML key without quotes.
func bare(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
}
