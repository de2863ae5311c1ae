package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// table is one table of the file while it is turned into typed values. Its methods read one key each, and note a problem
// if the value is not what it should be; the last result says whether there is a value to go on with.
type table struct {
	*reader
	kind string   // a key of schema
	path []string // where it stands
	keys map[string]any
}

// at returns the path of something in the table.
func (t table) at(parts ...string) []string { return slices.Concat(t.path, parts) }

// bad notes a problem with a key of the table.
func (t table) bad(key, what, remedy string) {
	t.problem(t.at(key), what, remedy)
}

// badItem notes a problem with an element of a list.
func (t table) badItem(key string, i int, what, remedy string) {
	t.problemAt(t.itemLine(key, i), t.at(key), what, remedy)
}

// itemLine returns the line of an element of a list.
func (t table) itemLine(key string, i int) int { return t.lines.of(t.at(key, strconv.Itoa(i))...) }

// unknown notes the keys that a table of this kind does not have.
func (t table) unknown() {
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		if !slices.Contains(schema[t.kind], key) {
			t.bad(key, "unknown key", unknownKey(key, t.kind))
		}
	}
}

// planned notes a key that this version can't serve yet.
func (t table) planned(key, what, remedy string) {
	if _, ok := t.keys[key]; ok {
		t.bad(key, what+" is planned, but this version does not have it yet", remedy)
	}
}

// value returns the value of a key if it has the type that is wanted.
func value[T any](t table, key, want string) (T, bool) {
	v, present := t.keys[key]
	typed, ok := v.(T)
	if present && !ok {
		t.bad(key, "is "+typeOf(v), "write "+want)
	}
	return typed, ok
}

// typeOf names the type of a TOML value.
func typeOf(v any) string {
	switch v.(type) {
	case string:
		return "a text"
	case int64:
		return "a number"
	case float64:
		return "a fraction"
	case bool:
		return "true or false"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a list"
}

// text reads a string. The example stands in the remedy.
func (t table) text(key, example string) (string, bool) {
	return value[string](t, key, fmt.Sprintf("a text in quotes, such as %s = %q", key, example))
}

// truth reads a boolean, which has a default.
func (t table) truth(key string, normal bool) bool {
	if v, ok := value[bool](t, key, key+" = true or "+key+" = false, without quotes"); ok {
		return v
	}
	return normal
}

// number reads an integer within bounds.
func (t table) number(key string, least, most int64) (int64, bool) {
	n, ok := value[int64](t, key, fmt.Sprintf("a whole number from %d to %d, without quotes", least, most))
	if ok && (n < least || n > most) {
		t.bad(key, fmt.Sprintf("%d is out of bounds", n), fmt.Sprintf("write a number from %d to %d", least, most))
		return 0, false
	}
	return n, ok
}

// choice reads one of several words, of which some are planned. The first is the default.
func (t table) choice(key string, words []string, planned ...string) string {
	word, ok := t.text(key, words[0])
	if !ok {
		return words[0]
	}
	if slices.Contains(words, word) {
		return word
	}
	remedy := "use " + alternatives(words)
	switch near := nearest(word, words); {
	case slices.Contains(planned, word):
		t.bad(key, quote(word)+" is planned, but this version does not have it yet", remedy)
	case near != "":
		t.bad(key, "unknown value "+quote(word), fmt.Sprintf("did you mean %q?", near))
	default:
		t.bad(key, "unknown value "+quote(word), remedy)
	}
	return words[0]
}

func alternatives(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = strconv.Quote(word)
	}
	return strings.Join(quoted, " or ")
}

// item is one string of a list, with its index.
type item struct {
	i    int
	text string
}

// texts reads a list of strings, each at most once. Elements of another type are noted and left out.
func (t table) texts(key, example string) []item {
	list, ok := value[[]any](t, key, fmt.Sprintf("a list, such as %s = [%q]", key, example))
	if !ok {
		return nil
	}
	var items []item
	seen := map[string]bool{}
	for i, v := range list {
		text, isText := v.(string)
		switch {
		case !isText:
			t.badItem(key, i, "one of the list is "+typeOf(v), fmt.Sprintf("write texts in quotes, such as [%q]", example))
		case seen[text]:
			t.badItem(key, i, quote(text)+" is there twice", "drop one of the two")
		default:
			seen[text] = true
			items = append(items, item{i, text})
		}
	}
	return items
}

// table reads a table within this one.
func (t table) table(key, kind, want string) (table, bool) {
	keys, ok := value[map[string]any](t, key, want)
	in := table{t.reader, kind, t.at(key), keys}
	if ok {
		in.unknown()
	}
	return in, ok
}

// tables reads a table of named tables, by name.
func (t table) tables(key, kind string) []table {
	named, ok := value[map[string]any](t, key, "a section "+kind+" for each")
	if !ok {
		return nil
	}
	var all []table
	outer := table{t.reader, kind, t.at(key), named}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if in, ok := outer.table(name, kind, "a section "+kind+" with its keys on the lines below it"); ok {
			all = append(all, in)
		}
	}
	return all
}

// name returns the last part of the table's path.
func (t table) name() string { return t.path[len(t.path)-1] }

// duration reads a time within bounds, which has a default.
func (t table) duration(key string, normal, least, most time.Duration) (time.Duration, bool) {
	text, ok := t.text(key, short(normal))
	if !ok {
		_, present := t.keys[key]
		return normal, !present
	}
	d, good := parseDuration(text)
	switch {
	case !good:
		t.bad(key, quote(text)+" is no time", `write hours, minutes and seconds as in "1h30m", "15m" or "90s"`)
	case d < least || d > most:
		t.bad(key, quote(text)+" is out of bounds", fmt.Sprintf("write a time from %q to %q", short(least), short(most)))
	default:
		return d, true
	}
	return normal, false
}
