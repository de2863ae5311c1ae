package replay

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDiskFails runs a journal on a disk that fails and heals.
func TestDiskFails(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		for part := range 65 {
			d := &fakeDisk{}
			r := newRouter(t, d)
			r.spends(alice, noon, Fresh)
			d.fail, d.part = fault, part
			for at := int64(noon + 1); at < noon+5; at++ {
				if v, err := r.Spend(alice, at); v != Refused || err == nil {
					t.Fatalf("%v after %d bytes: %v, %v; want an error", fault, part, v, err)
				}
			}
			if err := r.Raise(bob, noon); err == nil {
				t.Fatalf("%v after %d bytes: Raise says it is on disk", fault, part)
			}
			d.fail = nil
			r.spends(alice, noon+2, Refused) // stays spent
			r.spends(alice, noon+5, Fresh)   // heals
			r.restart()
			for at := int64(noon); at < noon+6; at++ {
				r.spends(alice, at, Refused)
			}
			r.spends(bob, noon, Refused)
			if log := r.log.String(); strings.Count(log, "can't be written") != 1 || strings.Count(log, "again") != 1 {
				t.Fatalf("log does not say once that it broke and healed:\n%s", log)
			}
		}
	}
}

func TestDiskFailsAtOpen(t *testing.T) {
	d := &fakeDisk{fail: syscall.ENOSPC}
	r := newRouter(t, d, alice) // lives
	if v, err := r.Spend(alice, noon+1); v != Refused || err == nil {
		t.Errorf("%v, %v; want an error", v, err)
	}
	if d.data != nil {
		t.Error("something was written")
	}
	d.fail = nil
	r.spends(alice, noon+2, Fresh)
	r.restart()
	r.spends(alice, noon+1, Refused)
	r.spends(alice, noon+2, Refused)
}

func TestDiskFailsAtClose(t *testing.T) {
	d := &fakeDisk{}
	r := newRouter(t, d)
	r.spends(alice, noon, Fresh)
	d.fail = syscall.EIO
	if err := r.Close(); err == nil {
		t.Error("Close says that the mark is on disk")
	}
	d.fail = nil
	r.restart()
	if !strings.Contains(r.log.String(), killed) {
		t.Errorf("without a mark the end is clean: %s", r.log)
	}
	r.spends(alice, noon, Refused)
}

// TestCloseHeals closes a torn journal on a disk that is well again.
func TestCloseHeals(t *testing.T) {
	d := &fakeDisk{part: 10}
	r := newRouter(t, d)
	d.fail = syscall.ENOSPC
	_, _ = r.Spend(alice, noon)
	d.fail = nil
	r.stop()
	r.log.Reset()
	r.restart()
	if r.log.Len() != 0 {
		t.Errorf("the end is not clean: %s", r.log)
	}
	r.spends(alice, noon, Refused)
}

// TestRealDiskFails takes the folder of a real file away, and gives it back.
func TestRealDiskFails(t *testing.T) {
	r := newRouter(t, nil)
	dir := filepath.Dir(r.opts.Path)
	r.spends(alice, noon, Fresh)
	r.bound = 0 // the next write needs the folder
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if v, err := r.Spend(alice, noon+1); v != Refused || err == nil {
		t.Errorf("%v, %v; want an error", v, err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	r.spends(alice, noon+2, Fresh)
	r.restart()
	for at := int64(noon); at < noon+3; at++ {
		r.spends(alice, at, Refused)
	}
}

func TestAppendNeedsReplace(t *testing.T) {
	d := &file{path: filepath.Join(t.TempDir(), "j")}
	if err := d.Append([]byte("x")); err == nil {
		t.Error("appended to a file that is not open")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := d.Replace([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = d.f.Close()
	if err := d.Append([]byte("x")); err == nil {
		t.Error("appended to a closed file")
	}
}

// TestAppendSyncs appends to a pipe, which takes bytes but can't be synced.
func TestAppendSyncs(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	d := &file{path: "pipe", f: out}
	if err := d.Append([]byte("x")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("appending to a pipe: %v, want %v", err, syscall.EINVAL)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestFileStaysSmall spends much more than fits.
func TestFileStaysSmall(t *testing.T) {
	d := &fakeDisk{}
	r := newRouter(t, d)
	largest, smallest := 0, growth
	for i := range int64(3 * growth / blockSize) {
		r.run(1e6)
		r.spends(alice, noon+i, Fresh)
		largest, smallest = max(largest, len(d.data)), min(smallest, len(d.data))
	}
	if limit := growth + (3+64)*blockSize; largest > limit || largest < growth || smallest > limit-growth {
		t.Errorf("the file had %d to %d bytes, want at most %d", smallest, largest, limit)
	}
	before := r.table
	r.restart()
	before.startFloor(nil, r.NowMS())
	before.age(r.NowMS(), r.width)
	if diff := cmp.Diff(before, r.table, windows); diff != "" {
		t.Errorf("compaction lost something: %s", diff)
	}
}

// TestSnapshotForgetsOldTimes lets remembered times pass into the floor.
func TestSnapshotForgetsOldTimes(t *testing.T) {
	d := &fakeDisk{}
	r := newRouter(t, d)
	for i := range int64(50) {
		r.spends(alice, noon+i, Fresh)
	}
	r.run(2 * DefaultWindow)
	r.stop()
	r.restart()
	if want := 3 * blockSize; len(d.data) != want {
		t.Errorf("the snapshot of one device at rest has %d bytes, want %d", len(d.data), want)
	}
	r.spends(alice, noon+49, Refused)
	r.spends(alice, noon+50, ClockOff)
}

func TestLeftoversAreRemoved(t *testing.T) {
	r := newRouter(t, nil)
	dir := filepath.Dir(r.opts.Path)
	for _, name := range []string{".replay.journal123", ".replay.journal", ".replay.journal12x", ".devices.json5"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.restart()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".devices.json5", ".replay.journal", ".replay.journal12x", "replay.journal"}, names); diff != "" {
		t.Error(diff)
	}
}

// TestWorkersShareAWrite holds the disk until all workers have spent in memory: what
// was not in the first write is all in the second.
func TestWorkersShareAWrite(t *testing.T) {
	const workers = 16
	d := &fakeDisk{hold: make(chan struct{})}
	r := newRouter(t, d)
	var wg sync.WaitGroup
	for i := range int64(workers) {
		wg.Go(func() { r.spends(alice, noon+i, Fresh) })
	}
	for spent := 0; spent != workers; runtime.Gosched() {
		r.mu.Lock()
		if w := r.table.windows[alice.Bytes()]; w != nil {
			spent = len(w.spent)
		}
		r.mu.Unlock()
	}
	close(d.hold)
	wg.Wait()
	if d.appends > 2 {
		t.Errorf("%d writes, want at most 2", d.appends)
	}
}

// TestOneOfManyIsFresh lets workers spend the same times at once, while others work
// with the journal, and counts.
func TestOneOfManyIsFresh(t *testing.T) {
	const workers, times = 8, 40
	r := newRouter(t, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := map[int64]int{}
	for range workers {
		wg.Go(func() {
			for at := int64(noon); at < noon+times; at++ {
				v, err := r.Spend(alice, at)
				if err != nil {
					t.Error(err)
				}
				if v == Fresh {
					mu.Lock()
					fresh[at]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Go(func() {
		for range times {
			if err := r.Raise(bob, noon); err != nil {
				t.Error(err)
			}
			r.SetWindow(DefaultWindow)
			r.NowMS()
		}
	})
	wg.Wait()
	for at := int64(noon); at < noon+times; at++ {
		if fresh[at] != 1 {
			t.Errorf("noon%+d was fresh %d times", at-noon, fresh[at])
		}
	}
	r.restart()
	for at := int64(noon); at < noon+times; at++ {
		r.spends(alice, at, Refused)
	}
}
