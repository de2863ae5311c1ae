package config

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func TestLocate(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want map[string]int // by dotted path
	}{
		"pairs":          {"a = 1\nb = 2\n\n  c=3", map[string]int{"a": 1, "b": 2, "c": 4}},
		"comments":       {"# x = 1\na = 1 # b = 2\n# c\nd = '#'\ne = 1", map[string]int{"a": 2, "d": 4, "e": 5, "x": 1, "b": 1}},
		"table":          {"\n[a]\nb = 1\n[c.d] # e\nf = 2\n", map[string]int{"a": 2, "a.b": 3, "c": 4, "c.d": 4, "c.d.f": 5}},
		"spaced table":   {"[ a . 'b' ]\nc = 1", map[string]int{"a.b": 1, "a.b.c": 2}},
		"dotted key":     {"\na.b.c = 1\na.b.d = 2\n", map[string]int{"a": 2, "a.b": 2, "a.b.c": 2, "a.b.d": 3}},
		"quoted keys":    {"\"a\" = 1\n'b' = 2\n\"\\u0063\" = 3\n'd\\u0063' = 4", map[string]int{"a": 1, "b": 2, "c": 3, `d\u0063`: 4}},
		"tricky quotes":  {"'a=\"[#' = 1\n\"b\\\"]\" = 2\nc = 3", map[string]int{`a="[#`: 1, `b"]`: 2, "c": 3}},
		"list":           {"a = [\n 1, # ]\n\n [2,\n 3], ']' ]\nb = 1", map[string]int{"a": 1, "a.0": 2, "a.1": 4, "a.1.0": 4, "a.1.1": 5, "a.2": 5, "b": 6}},
		"inline table":   {"a = { b = 1, c.d = [\n2 ] }\ne = 1", map[string]int{"a.b": 1, "a.c.d": 1, "a.c.d.0": 2, "e": 3}},
		"inline lines":   {"a = {\n b = 1, # }\n c = 2,\n}\nd = 1", map[string]int{"a": 1, "a.b": 2, "a.c": 3, "d": 5}},
		"long string":    {"a = \"\"\"\nb = 1\n\\\"\"\" \"\"\nc = 2\"\"\"\"\"\nd = 1", map[string]int{"a": 1, "b": 1, "c": 1, "d": 5}},
		"long raw":       {"a = '''\nb = 1\\'''\nc = '''x'''''\nd = 1", map[string]int{"a": 1, "b": 1, "c": 3, "d": 4}},
		"short strings":  {"a = \"\\\\\"\nb = '\\'\nc = \"\"\nd = ''\ne = 1", map[string]int{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}},
		"table array":    {"[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 1\n[[a.e]]\nf = 1", map[string]int{"a": 1, "a.0.b": 2, "a.1": 3, "a.1.b": 4, "a.1.c.d": 6, "a.1.e.0.f": 8}},
		"crlf":           {"a = 1\r\n\r\n[b]\r\nc = [\r\n2,\r\n]\r\nd = 1\r\n", map[string]int{"a": 1, "b": 3, "b.c.0": 5, "b.d": 7}},
		"mark":           {"\xef\xbb\xbfa = 1\nb = 2", map[string]int{"a": 1, "b": 2}},
		"dates":          {"a = 2027-01-01 00:00:00\nb = [2027-01-01 00:00:00,\n07:00:00]", map[string]int{"a": 1, "b.0": 2, "b.1": 3}},
		"parent's line":  {"\n[a.b]\nc = 1", map[string]int{"a.b.d": 2, "a.x.y": 2, "z": 1}},
		"empty":          {"", map[string]int{"a": 1}},
		"no end of list": {"a = [1,\n2\nb", map[string]int{"a": 1, "a.1": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			l := locate([]byte(tt.text))
			for path, want := range tt.want {
				if got := l.of(strings.Split(path, ".")...); got != want {
					t.Errorf("%s: line %d, want %d", path, got, want)
				}
			}
			if l.tooDeep != 0 {
				t.Errorf("too deep in line %d", l.tooDeep)
			}
		})
	}
}

func TestLocateTooDeep(t *testing.T) {
	for name, text := range map[string]string{
		"list":        "\na = " + strings.Repeat("[", 1000),
		"closed list": "\na = " + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
		"inline":      "\na = " + strings.Repeat("{b = ", 1000),
		"key":         "\na" + strings.Repeat(".a", 1000) + " = 1",
		"header":      "\n[a" + strings.Repeat(".a", 1000) + "]\nb = 1",
		"both":        "[a" + strings.Repeat(".a", maxDepth-1) + "]\nb = 1",
	} {
		t.Run(name, func(t *testing.T) {
			if got := locate([]byte(text)).tooDeep; got != 2 {
				t.Errorf("too deep in line %d, want 2", got)
			}
		})
	}
	if text := "a = " + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1); locate([]byte(text)).tooDeep != 0 {
		t.Error("as deep as allowed is called too deep")
	}
}

// FuzzLines: of what the decoder reads, each key and element is found, in the line where it stands; and what is deeper
// than the decoder should be asked about is called so.
func FuzzLines(f *testing.F) {
	seed(f)
	for _, text := range []string{"a.\"b\\n\".c = [[1], {d = ''}]\n[[e]]\nf=1\n[[e]]\n[e.f]\ng=2", "a=\"\"\"\\\"\"\"\"\"\"\nb=1"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 4096 {
			return
		}
		l := locate(text)
		if l.tooDeep != 0 {
			return
		}
		var top map[string]any
		if _, err := toml.Decode(string(text), &top); err != nil {
			return
		}
		walk(top, nil, func(path []string) {
			line, ok := l.line[join(path)]
			if !ok {
				t.Fatalf("%q was not found", path)
			}
			all := bytes.Split(text, []byte("\n"))
			if line < 1 || line > len(all) {
				t.Fatalf("%q is in line %d of %d", path, line, len(all))
			}
			key := path[len(path)-1]
			if _, err := strconv.Atoi(key); err != nil && dotted(path[len(path)-1:]) == key && !bytes.Contains(all[line-1], []byte(key)) &&
				!bytes.ContainsRune(all[line-1], '\\') {
				t.Fatalf("%q is not in line %d: %q", path, line, all[line-1])
			}
		})
	})
}

// walk calls back for each key and element of a decoded text.
func walk(v any, path []string, visit func([]string)) {
	if path != nil {
		visit(path)
	}
	switch v := v.(type) {
	case map[string]any:
		for key, in := range v {
			walk(in, append(slices.Clone(path), key), visit)
		}
	case []map[string]any:
		for i, in := range v {
			walk(in, append(slices.Clone(path), strconv.Itoa(i)), visit)
		}
	case []any:
		for i, in := range v {
			walk(in, append(slices.Clone(path), strconv.Itoa(i)), visit)
		}
	}
}
