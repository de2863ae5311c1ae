package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/event"
)

func open(t testing.TB, o Options) *Outbox {
	t.Helper()
	if o.Kinds == nil {
		o.Kinds = []event.Kind{event.Opened, event.Closed, event.Started}
	}
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// put takes events of sessions, by name: "a1" is of session a.
func put(t testing.TB, b *Outbox, names ...string) {
	t.Helper()
	for _, n := range names {
		b.Take(event.Event{Kind: event.Opened, Session: strings.Trim(n, "0123456789"), Device: n})
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// device is the name of an event that put took, or what it is instead.
func device(t testing.TB, m Message) string {
	t.Helper()
	var e event.Event
	if err := json.Unmarshal(m.Body, &e); err != nil {
		t.Fatalf("%q: %v", m.Body, err)
	}
	if e.Kind == event.EventsLost {
		return fmt.Sprintf("lost %d", e.Lost)
	}
	return e.Device
}

func take(t testing.TB, b *Outbox) Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := b.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// drain delivers everything there is.
func drain(t testing.TB, b *Outbox) (got []string) {
	t.Helper()
	for b.Stats().Waiting > 0 {
		m := take(t, b)
		got = append(got, device(t, m))
		b.Done(m)
	}
	return got
}

func nothing(t testing.TB, b *Outbox) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := b.Next(ctx); err == nil {
		t.Errorf("handed out %s", device(t, m))
	}
}

func TestOrderIsKeptWithinASession(t *testing.T) {
	b := open(t, Options{Dir: t.TempDir()})
	put(t, b, "a1", "a2", "b1", "a3", "b2", "1", "2")
	a1, b1, c1 := take(t, b), take(t, b), take(t, b)
	if diff := cmp.Diff([]string{"a1", "b1", "1"}, []string{device(t, a1), device(t, b1), device(t, c1)}); diff != "" {
		t.Fatal(diff)
	}
	nothing(t, b) // all three sessions are under way
	b.Done(b1)
	b2 := take(t, b)
	b.Retry(a1, time.Hour)
	b.Retry(a1, 0) // once is enough
	nothing(t, b)
	b.Done(c1)
	b.Done(c1) // once is enough
	if got := device(t, take(t, b)); got != "2" {
		t.Errorf("got %s: the session that waits holds up another, or a second Done counts", got)
	}
	b.Hurry()
	again := take(t, b)
	if again.ID != a1.ID || again.Attempt != 2 || string(again.Body) != string(a1.Body) {
		t.Errorf("%+v, first %+v", again, a1)
	}
	b.Done(again)
	if got := device(t, take(t, b)); got != "a2" {
		t.Error(got)
	}
	b.Done(b2)
	nothing(t, b)
}

func TestRetryLater(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, Options{Dir: dir})
		put(t, b, "a1")
		b.Retry(take(t, b), time.Minute)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if m, err := b.Next(ctx); err != nil || m.Attempt != 2 || time.Since(began) != time.Minute {
			t.Errorf("%+v, %v after %v", m, err, time.Since(began))
		}
		b.Close()
	})
}

func TestOnlyTheKindsThatAreWanted(t *testing.T) {
	b := open(t, Options{Dir: t.TempDir(), Kinds: []event.Kind{event.Closed}})
	put(t, b, "a1")
	b.SetKinds([]event.Kind{event.Opened})
	put(t, b, "a2")
	if diff := cmp.Diff([]string{"a2"}, drain(t, b)); diff != "" {
		t.Error(diff)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	b := open(t, Options{Dir: dir})
	put(t, b, "a1", "a2", "b1", "b2")
	a1 := take(t, b)
	b1 := take(t, b)
	b.Done(b1)
	b.Close()
	if _, err := b.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	b.Take(event.Event{Kind: event.Opened}) // too late, and harmless
	b = open(t, Options{Dir: dir})
	again := take(t, b)
	if again.ID != a1.ID || device(t, again) != "a1" {
		t.Errorf("%+v", again)
	}
	b.Retry(again, 0)
	put(t, b, "a3")
	if diff := cmp.Diff([]string{"b2", "a1", "a2", "a3"}, drain(t, b)); diff != "" {
		t.Error(diff)
	}
	b.Close()
	b = open(t, Options{Dir: dir})
	if n := b.Stats().Waiting; n != 0 {
		t.Errorf("%d wait", n)
	}
	put(t, b, "c1")
	if m := take(t, b); m.ID != strings.TrimSuffix(a1.ID, "_1")+"_6" {
		t.Errorf("id %s follows %s", m.ID, a1.ID)
	}
}

func TestFull(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
	}{
		{"of events", Options{MaxEvents: 10}},
		{"of bytes", Options{MaxBytes: 10*260 + 200}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Dir = t.TempDir()
			b := open(t, tt.o)
			for i := range 15 {
				b.Take(event.Event{Kind: event.Opened, Device: fmt.Sprint(i)})
			}
			if err := b.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			stats := b.Stats()
			if stats.Lost == 0 || int(stats.Lost)+stats.Waiting != 15 {
				t.Fatalf("%+v", stats)
			}
			for range 2 { // the count outlives it, also in a second segment
				b.Close()
				b = open(t, tt.o)
				b.Done(take(t, b))
			}
			got := drain(t, b)
			if want := fmt.Sprintf("lost %d", stats.Lost); len(got) != stats.Waiting-1 || got[len(got)-1] != want {
				t.Errorf("%q, want %s", got, want)
			}
			put(t, b, "a1")
			b.Close()
			b = open(t, tt.o)
			if diff := cmp.Diff([]string{"a1"}, drain(t, b)); diff != "" {
				t.Error("told twice, or still full:", diff)
			}
		})
	}
}

// TestFullIsLeftOnlyWithRoom: at the edge every event that goes would else let one in, and one that tells of a lost one.
func TestFullIsLeftOnlyWithRoom(t *testing.T) {
	b := open(t, Options{Dir: t.TempDir(), MaxEvents: 20})
	put(t, b, make([]string, 21)...)
	b.Done(take(t, b))
	put(t, b, "late")
	if s := b.Stats(); s.Lost != 2 {
		t.Errorf("%+v", s)
	}
	for range 2 {
		b.Done(take(t, b))
	}
	put(t, b, "1")
	if got := drain(t, b); len(got) != 19 || got[17] != "lost 2" || got[18] != "1" {
		t.Errorf("%q", got)
	}
}

func TestLongReasonIsCut(t *testing.T) {
	b := open(t, Options{Dir: t.TempDir()})
	b.Take(event.Event{Kind: event.Started, Reason: strings.Repeat("ä\x00", 1<<20)})
	m := take(t, b)
	if len(m.Body) > 8*maxReason || !json.Valid(m.Body) {
		t.Errorf("%d bytes", len(m.Body))
	}
}

// TestSegmentsGo: what is done takes no disk, and one event that nobody takes does not keep all that came after it.
func TestSegmentsGo(t *testing.T) {
	dir := t.TempDir()
	b := open(t, Options{Dir: dir})
	put(t, b, "stuck1")
	stuck := take(t, b)
	reason := strings.Repeat("x", 4000)
	const events = 3000 // 12 MB
	for range events / 100 {
		for range 100 {
			b.Take(event.Event{Kind: event.Opened, Reason: reason})
		}
		for range 100 {
			b.Done(take(t, b))
		}
	}
	put(t, b, "last1")
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if s := b.Stats(); s.Disk > slack+2*segmentSize || len(names) > 7 || s.Waiting != 2 || err != nil {
		t.Errorf("%+v in %d files", s, len(names))
	}
	b.Close()
	b = open(t, Options{Dir: dir})
	if m := take(t, b); m.ID != stuck.ID || string(m.Body) != string(stuck.Body) {
		t.Errorf("%+v", m)
	}
}

func TestDiskFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "box")
	b := open(t, Options{Dir: dir})
	if err := os.Rename(dir, dir+"-"); err != nil { // so that no segment can be begun
		t.Fatal(err)
	}
	for i := range 3 {
		b.Take(event.Event{Kind: event.Opened, Device: fmt.Sprint(i)})
	}
	for ; !b.Stats().Failing; time.Sleep(time.Millisecond) {
	}
	if s := b.Stats(); s.Waiting != 3 || s.Unstored != 3 || s.Stored != 0 {
		t.Errorf("%+v", s)
	}
	if err := os.Rename(dir+"-", dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0", "1", "2"}, drain(t, b)); diff != "" || b.Stats().Failing {
		t.Error(diff, b.Stats())
	}
}

func TestDamagedEventIsTold(t *testing.T) {
	dir := t.TempDir()
	b := open(t, Options{Dir: dir})
	put(t, b, "a1", "a2")
	path := filepath.Join(dir, "0000000000000001.events")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[strings.Index(string(data), `"a1"`)+1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got := drain(t, b)
	if diff := cmp.Diff([]string{"a2", "lost 1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "0000000000000001.events")
	head := record{kind: header}.appendTo(nil)
	newer := record{kind: header}.appendTo(nil)
	newer[frame+1] = 2
	copy(newer[4:], checksum(newer[frame:]))
	for _, tt := range []struct {
		name, dir, want string
		data            []byte
	}{
		{"no folder above", filepath.Join(dir, "none", "box"), "no such file", head},
		{"a file", file, "not a directory", head},
		{"a newer version", dir, "version 2", newer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(file, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := Open(Options{Dir: tt.dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "opening the outbox") {
				t.Error(b, err)
			}
		})
	}
}
