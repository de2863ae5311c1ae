package replay

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/keys"
)

const noon = 1_800_000_000_000 // the time of most tests, ms

// deviceKey returns a device's public key, the same for the same n.
func deviceKey(n byte) keys.DevicePublic { return keys.NewDeviceSecret([32]byte{n}).Public() }

// router is a journal with clocks that a test moves, on a disk of its own.
type router struct {
	*Journal
	*hands
	t    *testing.T
	opts Options
	disk disk
	log  *bytes.Buffer
}

// newRouter opens a journal at noon; a nil disk is a file.
func newRouter(t *testing.T, d disk, known ...keys.DevicePublic) *router {
	t.Helper()
	r := &router{t: t, hands: &hands{system: noon}, disk: d, log: new(bytes.Buffer)}
	r.opts = Options{
		Path: filepath.Join(t.TempDir(), "replay.journal"), Known: known,
		System: func() time.Time { return time.UnixMilli(r.system) },
		Mono:   func() time.Duration { return r.mono },
		Log:    slog.New(slog.NewTextHandler(r.log, nil)),
	}
	r.restart()
	return r
}

// restart opens the journal anew, as after kill -9 unless it was closed.
func (r *router) restart() {
	r.t.Helper()
	d := r.disk
	if d == nil {
		d = &file{path: r.opts.Path}
	}
	var err error
	if r.Journal, err = open(r.opts, d); err != nil {
		r.t.Fatalf("opening the journal: %v", err)
	}
}

func (r *router) stop() {
	r.t.Helper()
	if err := r.Close(); err != nil {
		r.t.Fatalf("closing the journal: %v", err)
	}
}

// run lets both clocks run.
func (r *router) run(d time.Duration) {
	r.system += d.Milliseconds()
	r.mono += d
}

// spends asserts a verdict without an error.
func (r *router) spends(k keys.DevicePublic, at int64, want Verdict) {
	r.t.Helper()
	if got, err := r.Spend(k, at); got != want || err != nil {
		r.t.Errorf("spending noon%+d at noon%+d: %v, %v; want %v", at-noon, r.NowMS()-noon, got, err, want)
	}
}

var alice, bob = deviceKey(1), deviceKey(2)

func TestSpendOnce(t *testing.T) {
	r := newRouter(t, nil)
	r.spends(alice, noon, Fresh)
	r.spends(alice, noon, Refused)
	r.spends(bob, noon, Fresh)
	r.spends(alice, noon-1, Fresh)
	r.spends(alice, noon+60_000, Fresh)
	r.spends(alice, noon+60_001, ClockOff)
	r.run(time.Second)
	r.spends(alice, noon+60_001, Refused)
	r.spends(alice, noon-59_000, Fresh)
	r.spends(alice, noon-59_001, ClockOff)
	for _, impossible := range []int64{-1, -1 << 63, maxMS + 1, 1<<63 - 1} {
		r.spends(alice, impossible, Refused)
	}
	r.spends(alice, maxMS, ClockOff)
}

func TestSetWindow(t *testing.T) {
	r := newRouter(t, nil)
	r.SetWindow(time.Second)
	r.spends(alice, noon-1001, ClockOff)
	r.spends(alice, noon-1000, Fresh)
	r.SetWindow(0)
	r.spends(alice, noon-60_000, Fresh)
}

func TestRaise(t *testing.T) {
	r := newRouter(t, nil)
	r.spends(alice, noon, Fresh)
	if err := r.Raise(alice, noon+10); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.spends(alice, noon+5, Refused)
		r.spends(alice, noon+10, Refused)
		r.restart()
	}
	r.spends(alice, noon+11, Fresh)
	r.spends(bob, noon+5, Fresh)
}

// TestRestartKeepsTheMemory fills all parts of the memory and opens it again, after a
// clean stop and after a crash.
func TestRestartKeepsTheMemory(t *testing.T) {
	r := newRouter(t, nil, alice)
	r.run(time.Second)
	for i := range int64(100) {
		r.spends(alice, noon+1000+i, Fresh)
		r.spends(bob, noon+1_000_000+i, ClockOff)
	}
	r.stop()
	before := r.table
	r.restart()
	if diff := cmp.Diff(before, r.table, windows); diff != "" {
		t.Errorf("a clean restart changed the memory: %s", diff)
	}
	if len(before.windows[alice.Bytes()].spent) != 64 || len(before.windows[bob.Bytes()].aside) != 16 {
		t.Errorf("the memory is not full: %+v", before)
	}
	r.restart()
	before.startFloor(nil, noon+1000)
	if diff := cmp.Diff(before, r.table, windows); diff != "" {
		t.Errorf("a crash changed more than the start floors: %s", diff)
	}
}

func TestStartFloor(t *testing.T) {
	r := newRouter(t, nil, alice) // no journal, so alice may have knocked before
	carol := deviceKey(3)
	r.spends(alice, noon, ClockOff)
	r.spends(alice, noon, Refused)
	r.spends(alice, noon+1, Fresh)
	r.spends(carol, noon-30_000, Fresh) // first seen later
	r.run(time.Second)
	r.stop()
	r.restart()
	r.spends(alice, noon-1, ClockOff) // survives a clean stop
	r.spends(alice, noon+1, Refused)
	r.spends(alice, noon+500, Fresh)
	r.spends(carol, noon-20_000, Fresh) // a clean stop sets none
	r.run(time.Second)
	r.restart() // kill -9
	r.spends(carol, noon+2000, ClockOff)
	r.spends(carol, noon-20_000, Refused)
	r.spends(carol, noon+2001, Fresh)
	r.spends(alice, noon+2000, ClockOff)
}

func TestStartFloorIsNeverAheadOfTheClock(t *testing.T) {
	r := newRouter(t, nil, alice)
	r.system, r.mono = noon-1_000_000, 0 // wrong at the first start, then right, and no knock between
	r.restart()
	if now := r.NowMS(); now != noon {
		t.Errorf("the clock starts at noon%+d", now-noon)
	}
	r.spends(alice, noon+1, Fresh)
}

func TestKnockClockIsSaved(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *router)
		want int64
	}{
		{"at stop", func(r *router) { r.stop() }, noon + 5000},
		{"by Save", func(r *router) { _ = r.Save() }, noon + 5000},
		{"with a spent packet, at its time", func(r *router) { r.spends(alice, noon+3000, Fresh) }, noon + 3000},
		{"not ahead of the clock", func(r *router) { r.spends(alice, noon+9000, Fresh) }, noon + 5000},
		{"not ahead of the clock, by a clock far off", func(r *router) { r.spends(alice, maxMS, ClockOff) }, noon + 5000},
		{"never back", func(r *router) { _ = r.Save(); r.spends(alice, noon-3000, Fresh) }, noon + 5000},
		{"not by a refused one", func(r *router) { r.spends(alice, 0, Refused) }, noon - 50_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRouter(t, nil)
			r.system = noon - 50_000
			r.Journal = nil
			_ = os.Remove(r.opts.Path)
			r.restart()
			if err := r.Save(); err != nil {
				t.Fatal(err)
			}
			r.run(55 * time.Second)
			c.do(r)
			r.system = 0
			r.restart()
			if got := r.NowMS(); got != c.want {
				t.Errorf("with the system clock lost it starts at noon%+d, want noon%+d", got-noon, c.want-noon)
			}
		})
	}
}

func TestClosed(t *testing.T) {
	r := newRouter(t, nil)
	r.stop()
	v, err := r.Spend(alice, noon)
	for name, err := range map[string]error{"Spend": err, "Raise": r.Raise(alice, 1), "Save": r.Save(), "Close": r.Close()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want %v", name, err, ErrClosed)
		}
	}
	if v != Refused {
		t.Errorf("verdict %v", v)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		path string
		make func(path string) error
		want string
	}{
		{"a newer version", "newer", func(p string) error { return os.WriteFile(p, header(2), 0o600) }, "run the spad that wrote it"},
		{"a directory", "dir", func(p string) error { return os.Mkdir(p, 0o700) }, "directory"},
		{"a folder that is not there", "no/journal", func(string) error { return nil }, "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.path)
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			_, err := Open(Options{Path: path})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with %q and the path", err, c.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}

// lockedDisk can't be opened, or fails while it is read.
type lockedDisk struct {
	disk
	open, read error
}

func (d lockedDisk) Open() (io.ReadCloser, error) { return io.NopCloser(d), d.open }
func (d lockedDisk) Read([]byte) (int, error)     { return 0, d.read }

func TestOpenFailsWhenItCannotRead(t *testing.T) {
	for name, d := range map[string]lockedDisk{
		"no permission":         {open: fs.ErrPermission},
		"error in the header":   {read: fs.ErrPermission},
		"not treated as an end": {open: io.ErrUnexpectedEOF},
	} {
		if _, err := open(Options{}, d); !errors.Is(err, cmpOr(d.open, d.read)) {
			t.Errorf("%s: %v, want %v", name, err, cmpOr(d.open, d.read))
		}
	}
}

func cmpOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func TestOpenLogs(t *testing.T) {
	r := newRouter(t, nil)
	if r.log.Len() != 0 {
		t.Errorf("a new router logs %q", r.log)
	}
	r.stop()
	r.restart()
	if r.log.Len() != 0 {
		t.Errorf("a clean restart logs %q", r.log)
	}
	r.restart()
	if !strings.Contains(r.log.String(), killed) {
		t.Errorf("a restart after kill -9 logs %q", r.log)
	}
	if r := newRouter(t, nil, alice); !strings.Contains(r.log.String(), missing) {
		t.Errorf("a journal lost logs %q", r.log)
	}
}

func TestFileMode(t *testing.T) {
	r := newRouter(t, nil)
	info, err := os.Stat(r.opts.Path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestVerdictString(t *testing.T) {
	if Fresh.String() != "fresh" || ClockOff.String() != "clock off" || Verdict(0).String() != "refused" {
		t.Error("verdicts are misnamed")
	}
}
