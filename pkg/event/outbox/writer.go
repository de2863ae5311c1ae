package outbox

import (
	"encoding/json"
	"os"
	"time"
)

// writer is the one goroutine that changes files.
type writer struct {
	*Outbox
	dir      string
	name     [8]byte // random, of the outbox
	segments []*segment
	file     *os.File // the last segment's, for appending; nil: begin a new one
	last     uint64   // number of the last segment
	seq      uint64   // of the next event
	saved    uint64   // untold losses, as they stand on disk
	ended    error    // of the last stroke

	busy   bool // guarded by mu: a stroke is under way …
	inHand int  // … with so many events
}

// retryWrite is how long the writer waits after the disk failed.
const retryWrite = time.Second

// run writes whenever there is something to write, until the outbox is closed.
func (w *writer) run() {
	defer close(w.stopped)
	var again <-chan time.Time
	for {
		closing := false
		select {
		case <-w.kick:
			if again != nil {
				continue // it waits in memory until the disk has had its second
			}
		case <-again:
		case <-w.stop:
			closing = true
		}
		err := w.stroke()
		w.report(err)
		again = nil
		if err != nil {
			again = time.After(retryWrite)
		}
		if closing {
			w.ended = err
			w.end()
			return
		}
	}
}

// report tells when the disk begins to fail, and when it is well again.
func (w *writer) report(err error) {
	w.mu.Lock()
	was := w.stats.Failing
	w.stats.Failing = err != nil
	w.mu.Unlock()
	switch {
	case err != nil && !was:
		w.o.Log.Error("outbox can't be written, events wait in memory", "dir", w.dir, "err", err)
	case err == nil && was:
		w.o.Log.Info("outbox is written again", "dir", w.dir)
	}
}

// work is what one stroke writes.
type work struct {
	items  []item
	marks  []uint64
	untold uint64
}

// stroke writes all there is, and puts it back if that fails: then it is still in memory.
func (w *writer) stroke() error {
	k := w.begun()
	data, entries := w.encode(k)
	at, err := w.write(data, len(entries) > 0)
	if err != nil {
		w.putBack(k)
		return err
	}
	w.saved = k.untold
	w.stored(k, entries, at)
	if err := w.move(); err != nil {
		return err
	}
	w.sweep()
	w.mu.Lock()
	w.stats.Disk = w.disk()
	w.mu.Unlock()
	return nil
}

// begun takes what there is to write.
func (w *writer) begun() work {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := work{w.taken, w.marks, w.untold}
	w.taken, w.marks, w.busy, w.inHand = nil, nil, true, len(k.items)
	return k
}

// encode makes the bytes of a stroke, and entries whose places are relative to the first of them.
func (w *writer) encode(k work) (data []byte, entries []*entry) {
	untold := w.saved
	for _, seq := range k.marks {
		data = record{kind: done, seq: seq}.appendTo(data)
	}
	for i := range k.items {
		it := &k.items[i]
		if it.seq == 0 {
			it.seq = w.seq
			w.seq++
		}
		r := record{kind: event_, seq: it.seq, session: it.e.Session}
		if it.e.Kind == lostKind {
			r.kind, untold = marker, 0
		}
		r.body, _ = json.Marshal(it.e) // can't fail: texts, times and numbers
		e := &entry{seq: it.seq, at: int64(len(data))}
		data = r.appendTo(data)
		e.size = int64(len(data)) - e.at
		entries = append(entries, e)
	}
	if k.untold != untold {
		data = record{kind: lost, lost: k.untold}.appendTo(data)
	}
	return data, entries
}

// putBack returns to memory what could not be written, before what has come since.
func (w *writer) putBack(k work) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(k.items, w.taken...)
	w.marks = append(k.marks, w.marks...)
	w.busy, w.inHand = false, 0
}

// stored makes what was written available to Next.
func (w *writer) stored(k work, entries []*entry, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range entries {
		e.seg, e.at = w.active(), at+e.at
		e.seg.live++
		w.stats.Bytes += e.size - k.items[i].size // what it really has
		w.enqueue(k.items[i].e.Session, e)
	}
	w.stats.Stored += uint64(len(entries))
	w.busy, w.inHand = false, 0
	if len(entries) > 0 {
		w.rouse()
	}
	left := w.flushes[:0]
	for _, f := range w.flushes {
		if f.target > w.stats.Stored {
			left = append(left, f)
			continue
		}
		close(f.ok)
	}
	w.flushes = left
}
