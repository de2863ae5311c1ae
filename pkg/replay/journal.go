package replay

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"spad/keys"
)

// growth is how many bytes the file may grow beyond its last snapshot.
const growth = 256 << 10

// ErrClosed is returned by every call on a journal that was closed.
var ErrClosed = errors.New("the replay journal is closed")

// Options say how a journal is opened.
type Options struct {
	// Path is the journal's file. Its folder must exist.
	Path string
	// Window is how far a fresh time may be from the knock clock, either way; 0 means [DefaultWindow].
	Window time.Duration
	// Known are the keys of all devices, configured and enrolled. If the journal is
	// missing or did not end in good order they, and all keys found in it, get a start
	// floor, the knock clock at start: a time at or below it is [ClockOff] at best,
	// for ever. A key first seen later has none.
	Known []keys.DevicePublic
	// System is the system clock, nil for the real one.
	System func() time.Time
	// Mono is any monotonic clock, nil for the real one.
	Mono func() time.Duration
	// Log gets what an operator should know; nil for nothing.
	Log *slog.Logger
}

// Journal remembers spent times and runs the knock clock. It is safe for concurrent
// use. Callers that spend at the same time share one fdatasync.
//
// When the disk fails, Spend and Raise return errors and nothing is fresh; the next
// call tries to write everything anew, so it heals with the disk.
type Journal struct {
	path  string
	clock *clock
	log   *slog.Logger

	io      sync.Mutex // taken before mu, never after; held while the disk works
	disk    disk
	torn    bool  // the file is not ours yet, or may end in a half record: replace it, never append
	failing bool  // the last write failed
	size    int64 // of the file
	bound   int64 // the size beyond which it is replaced

	mu     sync.Mutex
	table  *table
	width  int64  // of the window, in ms
	batch  *batch // what no one has begun to write yet
	closed bool
}

// batch is a group of records that go to disk in one write.
type batch struct {
	data []byte
	done bool  // guarded by io
	err  error // guarded by io
}

// Open reads the journal, or starts one, and puts a snapshot in its place. It fails
// if the journal can't be read, is of an unknown version, or its folder may not be
// written. A disk that is full or broken does not fail Open: until it is well again
// every Spend does.
func Open(o Options) (*Journal, error) {
	j, err := open(o, &file{path: o.Path})
	if err != nil {
		return nil, fmt.Errorf("opening the replay journal %q: %w", o.Path, err)
	}
	return j, nil
}

func open(o Options, d disk) (*Journal, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t, end, err := read(d)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		path: o.Path, clock: newClock(o.System, o.Mono, t.saved), log: o.Log,
		disk: d, torn: true, table: t, batch: &batch{},
	}
	j.SetWindow(o.Window)
	j.begin(end, o.Known)
	if err := j.rewrite(); errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return j, nil
}

// read loads the journal; a missing one is empty and not clean.
func read(d disk) (*table, ending, error) {
	f, err := d.Open()
	if errors.Is(err, fs.ErrNotExist) {
		return newTable(), ending{trouble: missing}, nil
	}
	if err != nil {
		return nil, ending{}, err
	}
	defer f.Close()
	return load(f)
}

// begin sets the start floors, unless the journal ended in good order.
func (j *Journal) begin(end ending, known []keys.DevicePublic) {
	if end.clean {
		return
	}
	ks := make([]key, len(known))
	for i, k := range known {
		ks[i] = k.Bytes()
	}
	j.table.startFloor(ks, j.clock.now())
	if end.trouble == missing && len(known) == 0 {
		return // a new router
	}
	j.log.Warn("replay journal: knocks made before this start won't open", "path", j.path, "reason", end.trouble)
}

// NowMS returns the knock clock in milliseconds since 1970-01-01 UTC.
func (j *Journal) NowMS() int64 { return j.clock.now() }

// SetWindow changes how far a fresh time may be from the knock clock; 0 means [DefaultWindow].
func (j *Journal) SetWindow(w time.Duration) {
	if w <= 0 {
		w = DefaultWindow
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.width = w.Milliseconds()
}

// Spend judges the time of a packet that device k signed, in milliseconds since 1970,
// and spends it unless it is [Refused]. It returns when that is on disk. If it can't
// be written the verdict is Refused with an error, and the time stays spent as long
// as this process lives.
func (j *Journal) Spend(k keys.DevicePublic, timeMS int64) (Verdict, error) {
	if timeMS < 0 || timeMS > maxMS {
		return Refused, nil
	}
	v, b, err := j.spend(k.Bytes(), timeMS)
	if v == Refused || err != nil {
		return Refused, err
	}
	if err := j.flush(b); err != nil {
		return Refused, err
	}
	return v, nil
}

// spend is the part of Spend that happens in memory. The batch is to be flushed.
func (j *Journal) spend(k key, timeMS int64) (Verdict, *batch, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return Refused, nil, ErrClosed
	}
	v, r := j.table.spend(k, timeMS, j.clock.now(), j.width)
	if v == Refused {
		return Refused, nil, nil
	}
	j.batch.data = r.encode(j.batch.data)
	return v, j.batch, nil
}

// Raise lifts the floor of device k to timeMS, milliseconds since 1970, as an accepted
// close does: every time at or below it is spent. It returns when that is on disk.
func (j *Journal) Raise(k keys.DevicePublic, timeMS int64) error {
	return j.add(func(int64) record { return record{kind: kindDevice, key: k.Bytes(), floor: within(timeMS)} })
}

// Save writes the knock clock down, for the next start to begin with.
func (j *Journal) Save() error {
	return j.add(func(now int64) record { return record{kind: kindClock, save: now} })
}

// Close saves the knock clock, marks the journal as ended in good order, and closes it.
func (j *Journal) Close() error {
	err := j.add(func(now int64) record {
		j.closed = true
		return record{kind: kindClean, save: now}
	})
	if errors.Is(err, ErrClosed) {
		return err
	}
	j.io.Lock()
	defer j.io.Unlock()
	return errors.Join(err, j.disk.Close())
}

// add applies the record that build returns for the knock clock now, and writes it.
func (j *Journal) add(build func(now int64) record) error {
	b, err := j.append(build)
	if err != nil {
		return err
	}
	return j.flush(b)
}

func (j *Journal) append(build func(now int64) record) (*batch, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, ErrClosed
	}
	r := build(j.clock.now())
	j.table.apply(r)
	j.batch.data = r.encode(j.batch.data)
	return j.batch, nil
}
