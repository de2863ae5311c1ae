package outbox

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"spad/pkg/event"
)

// lostKind is the kind of a marker.
const lostKind = event.EventsLost

// load reads all segments. It changes nothing but makes the folder if there is none.
func (b *Outbox) load() error {
	if err := makeDir(b.o.Dir); err != nil {
		return err
	}
	w := &b.writer
	names, err := os.ReadDir(b.o.Dir)
	if err != nil {
		return err
	}
	l := loading{writer: w, seq: 1, waiting: map[uint64]*found{}}
	for _, n := range names { // in order, since numbers have one length
		if number, ok := numberOf(n.Name()); ok {
			w.last = number
			if err := l.segment(&segment{number: number}); err != nil {
				return fmt.Errorf("reading %q: %w", n.Name(), err)
			}
		}
	}
	if w.seq = l.seq; w.name == [8]byte{} {
		rand.Read(w.name[:]) // never fails
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l.line()
	w.saved, b.untold = l.lost, l.lost
	if b.full = b.untold > 0 && !b.roomy(); !b.full {
		b.tell("the outbox was full")
	}
	b.stats.Disk = w.disk()
	return nil
}

// makeDir makes the folder if there is none, and its name last: a power cut that took it would take all that is in it. The folder
// above may be as new.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	above := filepath.Dir(dir)
	for _, d := range []string{above, filepath.Dir(above)} {
		if err == nil {
			err = syncDir(d)
		}
	}
	return err
}

// found is an event that was read.
type found struct {
	entry
	session string
}

// loading is what is known after some records.
type loading struct {
	*writer
	seq     uint64 // the next one
	lost    uint64
	waiting map[uint64]*found
}

// segment reads one segment up to its end or the first record that is not whole.
func (l *loading) segment(s *segment) error {
	f, err := os.Open(s.path(l.dir))
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	l.segments = append(l.segments, s)
	for {
		r, size, err := next(in)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			return l.torn(s, f)
		case err != nil:
			return err
		}
		l.apply(r, s, size)
		s.size += size
	}
}

// torn tells what of a segment is left out.
func (l *loading) torn(s *segment, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	rest := make([]byte, min(info.Size()-s.size, maxRecord))
	n, err := f.ReadAt(rest, s.size)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if leftover(rest[:n]) {
		l.o.Log.Warn("the end of a segment of the outbox is not whole and left out, as after a crash or a power cut",
			"path", s.path(l.dir), "bytes", info.Size()-s.size)
	}
	s.size = info.Size() // so much of the disk it takes
	return nil
}

// apply follows one record.
func (l *loading) apply(r record, s *segment, size int64) {
	switch r.kind {
	case header:
		if l.name == [8]byte{} {
			l.name = r.name
		}
		l.seq, l.lost = max(l.seq, r.seq), r.lost
	case event_, marker:
		l.seq = max(l.seq, r.seq+1)
		if r.kind == marker {
			l.lost = 0
		}
		// One that is there already was moved, or written once more after a failed sync: the later place counts.
		l.waiting[r.seq] = &found{entry{seq: r.seq, seg: s, at: s.size, size: size}, r.session}
	case done:
		l.seq = max(l.seq, r.seq+1)
		delete(l.waiting, r.seq)
	case lost:
		l.lost = r.lost
	}
}

// line puts what is not done into the queues of its sessions, in the order in which it happened.
func (l *loading) line() {
	all := make([]*found, 0, len(l.waiting))
	for _, e := range l.waiting {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *found) int { return cmp.Compare(a.seq, b.seq) })
	for _, f := range all {
		e := f.entry
		e.seg.live++
		l.enqueue(f.session, &e)
		l.stats.Waiting++
		l.stats.Bytes += e.size
	}
}
