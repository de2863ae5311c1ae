package outbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"spad/pkg/event"
)

func checksum(content []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(content, castagnoli))
}

// history is a segment, and what is true after each of its records: what waits, by size of the file.
func history(t *testing.T) (data []byte, waiting map[int][]string, names map[string]string) {
	dir := t.TempDir()
	b := open(t, Options{Dir: dir, MaxEvents: 6})
	path := filepath.Join(dir, "0000000000000001.events")
	waiting, names = map[int][]string{}, map[string]string{}
	var live []string
	note := func() {
		settled := func() bool { // the writer has written the marks too
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.taken)+len(b.marks) == 0 && !b.writer.busy
		}
		for ; !settled(); time.Sleep(time.Millisecond) {
		}
		data, _ = os.ReadFile(path)
		waiting[len(data)] = slices.Clone(live)
	}
	for i := range 4 {
		name := fmt.Sprintf("%c%d", 'a'+i%2, i)
		put(t, b, name)
		live = append(live, name)
		note()
		if i > 0 {
			m := take(t, b)
			name := device(t, m)
			names[name] = m.ID
			if i == 2 {
				b.Done(m)
				live = slices.DeleteFunc(live, func(n string) bool { return n == name })
				note()
			} else {
				b.Retry(m, 0)
			}
		}
	}
	b.Close()
	return data, waiting, names
}

// TestCutAtEveryByte: whatever a crash leaves of the last segment, everything before is there, in order, under its old id;
// the outbox goes on, and an id never comes to mean something else.
func TestCutAtEveryByte(t *testing.T) {
	data, waiting, names := history(t)
	if len(waiting) < 5 || len(names) < 2 {
		t.Fatalf("%v %v", waiting, names)
	}
	states := 0
	var want []string
	for n := range len(data) + 1 {
		if live, ok := waiting[n]; ok {
			want = live
			states++
		}
		for _, garbage := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\xff\x00garbage"} {
			tail := slices.Concat(data[:n], []byte(garbage))
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "0000000000000001.events"), tail, 0o600); err != nil {
				t.Fatal(err)
			}
			b := open(t, Options{Dir: dir})
			put(t, b, "new1")
			ids := map[string]string{}
			var got []string
			for b.Stats().Waiting > 0 {
				m := take(t, b)
				name := device(t, m)
				if old, known := names[name]; known && old != m.ID {
					t.Errorf("cut at %d: %s is %s, was %s", n, name, m.ID, old)
				}
				ids[m.ID] = name
				got = append(got, name)
				b.Done(m)
			}
			b.Close()
			if len(ids) != len(got) || !sameOrder(got, append(slices.Clone(want), "new1")) {
				t.Fatalf("cut at %d of %d: got %q, want %q", n, len(data), got, want)
			}
		}
	}
	if states != len(waiting) {
		t.Errorf("%d of %d states seen", states, len(waiting))
	}
}

// sameOrder says whether both hold the same, each session in the same order.
func sameOrder(a, b []string) bool {
	split := func(names []string) map[string][]string {
		by := map[string][]string{}
		for _, n := range names {
			s := strings.Trim(n, "0123456789")
			by[s] = append(by[s], n)
		}
		return by
	}
	return fmt.Sprint(split(a)) == fmt.Sprint(split(b))
}

// TestTwoCrashes: what stands in two segments is put together in order, also if one is there twice.
func TestTwoCrashes(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		b := open(t, Options{Dir: dir})
		put(t, b, fmt.Sprintf("a%d", 2*i), fmt.Sprintf("a%d", 2*i+1))
		b.Close()
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%016x.events", i+1)), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(f, "half a rec")
		f.Close()
	}
	first := filepath.Join(dir, fmt.Sprintf("%016x.events", 1))
	data, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%016x.events", 9)), data, 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, Options{Dir: dir})
	if got := fmt.Sprint(drain(t, b)); got != "[a0 a1 a2 a3 a4 a5]" {
		t.Error(got)
	}
}

func FuzzSegment(f *testing.F) {
	good := record{kind: header, name: [8]byte{1}, seq: 3}.appendTo(nil)
	good = record{kind: event_, seq: 3, session: "s", body: []byte(`{}`)}.appendTo(good)
	good = record{kind: marker, seq: 4, body: []byte(`{}`)}.appendTo(good)
	good = record{kind: lost, lost: 7}.appendTo(record{kind: done, seq: 3}.appendTo(good))
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		in, again := bytes.NewReader(data), []byte(nil)
		for {
			r, size, err := next(in)
			if err != nil {
				break
			}
			again = r.appendTo(again)
			if at := int64(len(data)) - int64(in.Len()); at != int64(len(again)) || size <= frame {
				t.Fatalf("%d bytes read, %d written", at, len(again))
			}
		}
		if !bytes.HasPrefix(data, again) {
			t.Error("what is read is written differently")
		}
	})
}

// BenchmarkTake is what an event costs whoever opens a door.
func BenchmarkTake(b *testing.B) {
	box := open(b, Options{Dir: b.TempDir(), MaxEvents: 1 << 30, MaxBytes: 1 << 50})
	e := event.Event{Kind: event.Opened, Device: "laptop", Service: "nas", Session: "k3v9", Source: "192.0.2.1"}
	b.ReportAllocs()
	for b.Loop() {
		box.Take(e)
	}
}

// BenchmarkOpen is what a start costs with a full outbox: 100,000 events, each of a session of its own.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	box := open(b, Options{Dir: dir})
	for i := range DefaultMaxEvents {
		box.Take(event.Event{Kind: event.Opened, Device: "laptop", Service: "nas", Session: fmt.Sprint("s", i), Source: "192.0.2.1"})
	}
	if err := box.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	box.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		var err error
		if box, err = Open(Options{Dir: dir}); err != nil {
			b.Fatal(err)
		}
		box.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
	b.ReportMetric(float64(box.Stats().Disk)/1e6, "MB-disk")
}
