package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// segmentSize is how long a segment grows before the next one is begun, in bytes.
const segmentSize = 1 << 20

// segment is one file of records.
type segment struct {
	number uint64
	size   int64
	live   int // events in it that are not done; guarded by Outbox.mu
}

// suffix ends the name of a segment.
const suffix = ".events"

func (s *segment) path(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", s.number, suffix))
}

// numberOf reads the name of a segment.
func numberOf(name string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, ok && err == nil && len(hex) == 16 && n > 0
}

// record reads one record back.
func (w *writer) record(s *segment, at int64) (record, error) {
	f, err := os.Open(s.path(w.dir))
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	r, _, err := next(io.NewSectionReader(f, at, frame+maxRecord))
	if errors.Is(err, io.EOF) {
		err = errTorn
	}
	return r, err
}

// begin makes a new segment the one that is written to. It is durable, with its name, before anything is in it.
func (w *writer) begin() error {
	w.end()
	w.last++
	s := &segment{number: w.last}
	f, err := os.OpenFile(s.path(w.dir), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	head := record{kind: header, name: w.name, seq: w.seq, lost: w.saved}.appendTo(nil)
	if _, err = f.Write(head); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(w.dir)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(s.path(w.dir)))
	}
	s.size = int64(len(head))
	w.file = f
	w.segments = append(w.segments, s)
	return nil
}

// end closes the segment that is written to, for good.
func (w *writer) end() {
	if w.file != nil {
		_ = w.file.Close() // what counts on it was synced
		w.file = nil
	}
}

// active is the segment that is written to.
func (w *writer) active() *segment { return w.segments[len(w.segments)-1] }

// write adds records to the active segment, or to a new one, and says where they begin. After an error nothing is appended
// to that segment any more.
func (w *writer) write(data []byte, durably bool) (at int64, err error) {
	if len(data) == 0 {
		return 0, nil
	}
	if w.file == nil || w.active().size >= segmentSize {
		if err := w.begin(); err != nil {
			return 0, err
		}
	}
	at = w.active().size
	n, err := w.file.Write(data)
	w.active().size += int64(n)
	if err == nil && durably {
		err = fdatasync(w.file)
	}
	if err != nil {
		w.end()
	}
	return at, err
}

// sweep removes the oldest segments as long as all in them is done.
func (w *writer) sweep() {
	for w.file != nil && len(w.segments) > 1 {
		w.mu.Lock()
		live := w.segments[0].live
		w.mu.Unlock()
		if live > 0 {
			return
		}
		if err := os.Remove(w.segments[0].path(w.dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.o.Log.Warn("a segment of the outbox can't be removed", "err", err)
			return
		}
		w.segments = w.segments[1:]
	}
}

// disk returns the bytes of all segments.
func (w *writer) disk() (n int64) {
	for _, s := range w.segments {
		n += s.size
	}
	return n
}

// slack is how many bytes of done events may lie about before the rest of a segment is moved.
const slack = 4 * segmentSize

// move puts what is left in the oldest segment into the newest, if most of the disk that is used holds what is done.
func (w *writer) move() error {
	w.mu.Lock()
	waiting := w.stats.Bytes
	w.mu.Unlock()
	if len(w.segments) < 2 || w.disk() <= 2*waiting+slack {
		return nil
	}
	oldest := w.segments[0]
	left := w.left(oldest)
	var data []byte
	offsets := make([]int64, len(left))
	for i, e := range left {
		r, err := w.record(oldest, e.at)
		if err != nil {
			return fmt.Errorf("moving events to another segment: %w", err)
		}
		offsets[i] = int64(len(data))
		data = r.appendTo(data)
	}
	at, err := w.write(data, true)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range left {
		if e.done { // meanwhile; its mark comes behind what was moved
			continue
		}
		oldest.live--
		e.seg, e.at = w.active(), at+offsets[i]
		e.seg.live++
	}
	return nil
}

// left returns what is not done in a segment.
func (w *writer) left(s *segment) (left []*entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range w.queues {
		for _, e := range q.entries {
			if e.seg == s {
				left = append(left, e)
			}
		}
	}
	return left
}

// syncDir makes a new name in a folder last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) { // a file system that can't sync a folder
		err = nil
	}
	return errors.Join(err, f.Close())
}

// leftover says whether a segment has bytes behind its last whole record that are not just zeroes, which some file systems
// leave after a power cut.
func leftover(b []byte) bool { return len(bytes.Trim(b, "\x00")) > 0 }
