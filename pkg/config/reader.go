package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// reader turns the text of one file into a Config, and collects what is wrong with it.
type reader struct {
	file     string
	lines    lines
	problems *Problems
}

// problem notes what is wrong with a key, on the line of that key or of what should hold it.
func (r *reader) problem(path []string, what, remedy string) {
	r.problemAt(r.lines.of(path...), path, what, remedy)
}

func (r *reader) problemAt(line int, path []string, what, remedy string) {
	r.problems.List = append(r.problems.List, Problem{File: r.file, Line: line, Key: dotted(path), What: what, Remedy: remedy})
}

// decode returns the file as a table, unless it is no TOML.
func (r *reader) decode(data []byte) (table, bool) {
	switch at := invalidUTF8(data); {
	case len(data) > MaxSize:
		r.problemAt(1, nil, fmt.Sprintf("the file is larger than %d bytes", MaxSize), "make it smaller")
		return table{}, false
	case at >= 0:
		r.problemAt(1+bytes.Count(data[:at], []byte("\n")), nil, "the file is not UTF-8 here", "save it as UTF-8 text")
		return table{}, false
	}
	if r.lines = locate(data); r.lines.tooDeep > 0 {
		r.problemAt(r.lines.tooDeep, nil, "keys or lists lie in each other deeper than any setting does", "check the brackets and dots")
		return table{}, false
	}
	top := map[string]any{}
	if _, err := toml.Decode(string(data), &top); err != nil {
		r.syntax(err, bytes.Count(data, []byte("\n"))+1)
		return table{}, false
	}
	return table{reader: r, kind: topKind, keys: top}, true
}

// syntax notes what the decoder does not understand. The file has so many lines; at its end the decoder may count one
// more or less.
func (r *reader) syntax(err error, lines int) {
	what, line := err.Error(), 1
	var at toml.ParseError
	if errors.As(err, &at) {
		what, line = at.Message, at.Position.Line
	}
	remedy := `texts stand in quotes, lists in [ ], and a section begins with a line such as [service.ssh]`
	if strings.Contains(what, "already") {
		remedy = "keep one of the two"
	}
	r.problemAt(min(max(line, 1), lines), nil, plain(what), remedy)
}

// invalidUTF8 returns the place of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for at := 0; at < len(data); {
		c, size := utf8.DecodeRune(data[at:])
		if c == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}
