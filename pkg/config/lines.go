package config

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxDepth is how many keys and lists may lie in each other. No key of ours is deeper than five, and the decoder takes
// time that grows with the square of the depth (a 1 MiB key of dots: minutes), so that it is asked only about less.
const maxDepth = 12

// lines says on which line of a TOML text each key stands. The decoder has positions for syntax errors only.
type lines struct {
	line    map[string]int // by the key path, joined
	tooDeep int            // the first line where something is nested deeper than maxDepth; 0: none
}

// of returns the line of a key or list element, else of what it is in, else 1.
func (l lines) of(path ...string) int {
	for n := len(path); n > 0; n-- {
		if line, ok := l.line[join(path[:n])]; ok {
			return line
		}
	}
	return 1
}

func join(path []string) string { return strings.Join(path, "\x00") }

// locate reads a TOML text. It expects the decoder to be content with the text, or to say why not: of a text that is no
// TOML it makes what it can. It takes time in proportion to the length, and stops at the first thing that is too deep.
func locate(text []byte) lines {
	s := locator{
		text: bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), // a byte order mark, as some editors write
		at:   1,
		out:  lines{line: map[string]int{}},
		last: map[string]int{},
	}
	var table []string
	for s.blank(); s.pos < len(s.text) && s.out.tooDeep == 0; s.blank() {
		if s.next('[') {
			table = s.header()
		} else {
			s.pair(table)
		}
	}
	return s.out
}

// locator walks over a TOML text.
type locator struct {
	text []byte
	pos  int
	at   int // the line of pos
	out  lines
	last map[string]int // index of the newest table in an array of tables
}

// step takes n bytes, as far as there are any, and counts the lines.
func (s *locator) step(n int) {
	for ; n > 0 && s.pos < len(s.text); n-- {
		if s.text[s.pos] == '\n' {
			s.at++
		}
		s.pos++
	}
}

// is reports whether the text goes on with a prefix.
func (s *locator) is(prefix string) bool { return bytes.HasPrefix(s.text[s.pos:], []byte(prefix)) }

// next takes a byte if it is the next one.
func (s *locator) next(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.step(1)
		return true
	}
	return false
}

// until takes everything before the first of the stop bytes.
func (s *locator) until(stop string) string {
	n := bytes.IndexAny(s.text[s.pos:], stop)
	if n < 0 {
		n = len(s.text) - s.pos
	}
	start := s.pos
	s.step(n)
	return string(s.text[start:s.pos])
}

// blank takes white space, line ends and comments.
func (s *locator) blank() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.step(1)
		case '#':
			s.until("\n")
		default:
			return
		}
	}
}

// space takes white space within a line.
func (s *locator) space() {
	for s.next(' ') || s.next('\t') {
	}
}

// note records that a key or element begins on a line, unless it began before.
func (s *locator) note(path []string, line int) {
	if len(path) > maxDepth {
		if s.out.tooDeep == 0 {
			s.out.tooDeep = line
		}
		return
	}
	if key := join(path); s.out.line[key] == 0 {
		s.out.line[key] = line
	}
}

// header takes the rest of a [table] or [[table]] and returns the path of what follows it.
func (s *locator) header() []string {
	line, array := s.at, s.next('[')
	keys := s.dotted()
	var path []string
	for i, key := range keys {
		path = append(path, key)
		s.note(path, line)
		name := join(path)
		if array && i == len(keys)-1 {
			s.last[name]++
		}
		if n := s.last[name]; n > 0 {
			path = append(path, strconv.Itoa(n-1))
			s.note(path, line)
		}
	}
	s.until("\n")
	return path
}

// pair takes a key, the equals sign and the value.
func (s *locator) pair(table []string) {
	start, line := s.pos, s.at
	path := slices.Clip(table)
	for _, key := range s.dotted() {
		path = append(path, key)
		s.note(path, line)
	}
	if s.next('=') {
		s.space()
		s.value(path)
	}
	if s.pos == start { // no TOML: go on somewhere
		s.step(1)
	}
}

// dotted takes a key of one or more parts, up to one more than maxDepth.
func (s *locator) dotted() []string {
	var parts []string
	for len(parts) <= maxDepth {
		s.space()
		parts = append(parts, s.part())
		s.space()
		if !s.next('.') {
			break
		}
	}
	return parts
}

// part takes one part of a key.
func (s *locator) part() string {
	if s.is(`"`) || s.is(`'`) {
		start := s.pos
		s.shortString()
		return unquote(s.text[start:s.pos])
	}
	start := s.pos
	for s.pos < len(s.text) && bare(rune(s.text[s.pos])) {
		s.step(1)
	}
	return string(s.text[start:s.pos])
}

// unquote returns what a quoted key says. The decoder knows the escapes best.
func unquote(quoted []byte) string {
	if !bytes.ContainsRune(quoted, '\\') {
		return strings.Trim(string(quoted), string(quoted[0]))
	}
	var key struct{ Is string }
	if _, err := toml.Decode("is = "+string(quoted), &key); err != nil {
		return string(quoted)
	}
	return key.Is
}

// value takes a value and notes the elements of lists and the keys of inline tables below the path.
func (s *locator) value(path []string) {
	switch {
	case s.out.tooDeep != 0:
	case s.is(`"""`), s.is(`'''`):
		s.longString()
	case s.is(`"`), s.is(`'`):
		s.shortString()
	case s.next('['):
		s.list(path)
	case s.next('{'):
		for s.blank(); s.pos < len(s.text) && !s.next('}') && s.out.tooDeep == 0; s.blank() {
			if !s.next(',') {
				s.pair(path)
			}
		}
	default:
		s.until(",]}#\n")
	}
}

// list takes the elements of a list and its end.
func (s *locator) list(path []string) {
	i := 0
	for s.blank(); s.pos < len(s.text) && !s.next(']') && s.out.tooDeep == 0; s.blank() {
		if s.next(',') {
			continue
		}
		start := s.pos
		element := append(slices.Clip(path), strconv.Itoa(i))
		s.note(element, s.at)
		s.value(element)
		i++
		if s.pos == start { // no TOML: go on somewhere
			s.step(1)
		}
	}
}

// shortString takes a string of one line, quotes included.
func (s *locator) shortString() {
	mark := s.text[s.pos]
	s.step(1)
	for s.pos < len(s.text) && s.text[s.pos] != '\n' && !s.next(mark) {
		s.escape(mark)
	}
}

// longString takes a string of many lines, quotes included.
func (s *locator) longString() {
	mark := s.text[s.pos]
	end := strings.Repeat(string(mark), 3)
	for s.step(3); s.pos < len(s.text) && !s.is(end); {
		s.escape(mark)
	}
	s.step(3)
	for extra := 0; extra < 2 && s.next(mark); extra++ { // up to two quotes may stand before the closing three
	}
}

// escape takes one byte, or two if the first is a backslash in a string that has escapes.
func (s *locator) escape(mark byte) {
	if mark == '"' && s.is(`\`) {
		s.step(1)
	}
	s.step(1)
}
