package replay

import (
	"bytes"
	"maps"
	"slices"
)

// table is all that the journal remembers. Whatever changes it is a record first, so
// that reading the records again gives the same table.
type table struct {
	windows map[key]*window
	saved   int64 // what a restart may start the knock clock from
}

func newTable() *table { return &table{windows: map[key]*window{}} }

// spend judges time and, unless it is refused, spends it and returns the record of that.
func (t *table) spend(k key, time, now, width int64) (Verdict, record) {
	w := t.windows[k]
	if w == nil {
		w = &window{}
	}
	r := record{key: k, time: time, floor: w.aged(now, width), now: now, save: max(t.saved, min(time, now))}
	v := w.judge(time, now, width)
	switch v {
	case Fresh:
		r.kind = kindFresh
	case ClockOff:
		r.kind = kindAside
	default:
		return Refused, record{}
	}
	t.apply(r)
	return v, r
}

// apply does what the record says.
func (t *table) apply(r record) {
	t.saved = max(t.saved, r.save)
	if r.kind == kindClock || r.kind == kindClean {
		return
	}
	w := t.windows[r.key]
	if w == nil {
		w = &window{}
		t.windows[r.key] = w
	}
	w.raise(r.floor)
	switch r.kind {
	case kindDevice:
		w.start = max(w.start, r.time)
	case kindFresh:
		w.remember(r.time)
	case kindAside:
		w.setAside(r.time, r.now)
	}
}

// startFloor gives every key of the table, and those known besides, the start floor
// now. The clock is saved with it: no start floor is ever ahead of the knock clock,
// which would shut its device out.
func (t *table) startFloor(known []key, now int64) {
	for _, k := range slices.Concat(slices.Collect(maps.Keys(t.windows)), known) {
		t.apply(record{kind: kindDevice, key: k, time: now, save: now})
	}
}

// age moves the remembered times that are older than the window into the floors.
func (t *table) age(now, width int64) {
	for _, w := range t.windows {
		w.raise(w.aged(now, width))
	}
}

// snapshot returns a whole journal that says what the table holds, the same bytes for the same table.
func (t *table) snapshot() []byte {
	b := record{kind: kindClock, save: t.saved}.encode(header(version))
	for _, k := range slices.SortedFunc(maps.Keys(t.windows), func(a, b key) int { return bytes.Compare(a[:], b[:]) }) {
		w := t.windows[k]
		b = record{kind: kindDevice, key: k, time: w.start, floor: w.floor}.encode(b)
		for _, s := range w.spent {
			b = record{kind: kindFresh, key: k, time: s}.encode(b)
		}
		for _, s := range w.aside {
			b = record{kind: kindAside, key: k, time: s}.encode(b)
		}
	}
	return b
}
