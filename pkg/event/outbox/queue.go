package outbox

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// entry is an event on disk that is not done.
type entry struct {
	seq     uint64
	seg     *segment
	at      int64 // of its record in the segment
	size    int64 // as it was charged
	attempt int
	done    bool
}

// queue is what waits of one session, in order. At most its first entry is handed out.
type queue struct {
	session string
	entries []*entry
	busy    bool // its first is handed out, or held until later: it is not in ready
}

// Message is an event that Next has handed out. It comes back with Done or Retry, and until then nothing else of its session
// is handed out.
type Message struct {
	ID      string // the same at each attempt
	Session string // whose order is kept; empty for all that has none
	Body    []byte // the event as JSON
	Attempt int    // from 1, since the start

	q *queue
	e *entry
}

// enqueue adds an entry behind those of its session.
func (b *Outbox) enqueue(session string, e *entry) {
	q := b.queues[session]
	if q == nil {
		q = &queue{session: session}
		b.queues[session] = q
	}
	q.entries = append(q.entries, e)
	if len(q.entries) == 1 {
		b.ready = append(b.ready, q)
	}
}

// Next returns the next event whose turn it is, when there is one. It fails with ErrClosed or the context's error.
func (b *Outbox) Next(ctx context.Context) (Message, error) {
	for {
		m, wake, err := b.pick()
		if err != nil || m.q != nil {
			return m, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

// retryRead is how long an event waits that the disk would not give out.
const retryRead = 10 * time.Second

// pick returns a message, or what to wait for.
func (b *Outbox) pick() (Message, <-chan struct{}, error) {
	for {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return Message{}, nil, ErrClosed
		}
		if len(b.ready) == 0 {
			wake := b.wake
			b.mu.Unlock()
			return Message{}, wake, nil
		}
		q := b.ready[0]
		b.ready = b.ready[1:]
		q.busy = true
		e := q.entries[0]
		e.attempt++
		m := Message{ID: id(b.writer.name, e.seq), Session: q.session, Attempt: e.attempt, q: q, e: e}
		b.mu.Unlock()
		if b.read(&m) {
			return m, nil, nil
		}
	}
}

// read gets the message's body from the disk. The segment may go while it is read, since its events move to another.
func (b *Outbox) read(m *Message) bool {
	for {
		b.mu.Lock()
		seg, at := m.e.seg, m.e.at
		b.mu.Unlock()
		r, err := b.writer.record(seg, at)
		b.mu.Lock()
		moved := m.e.seg != seg
		b.mu.Unlock()
		switch {
		case err == nil && r.seq == m.e.seq:
			m.Body = r.body
			return true
		case moved:
		case err == nil, errors.Is(err, errTorn), errors.Is(err, fs.ErrNotExist):
			b.o.Log.Error("an event in the outbox is damaged and lost", "dir", b.o.Dir, "id", m.ID)
			b.damaged(*m)
			return false
		default:
			b.o.Log.Error("the outbox can't be read", "dir", b.o.Dir, "err", err)
			b.Retry(*m, retryRead)
			return false
		}
	}
}

// damaged counts an event that can't be delivered any more as lost.
func (b *Outbox) damaged(m Message) {
	b.Done(m)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.untold++
	b.stats.Lost++
	if !b.full && !b.closed {
		b.tell("the disk damaged them")
	}
}

// Done says that a message was delivered.
func (b *Outbox) Done(m Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.q == nil || len(m.q.entries) == 0 || m.q.entries[0] != m.e {
		return // twice
	}
	m.q.entries[0] = nil
	m.q.entries = m.q.entries[1:]
	m.e.done = true
	m.e.seg.live--
	b.marks = append(b.marks, m.e.seq)
	b.stats.Waiting--
	b.stats.Bytes -= m.e.size
	b.stats.Done++
	if len(m.q.entries) == 0 {
		delete(b.queues, m.q.session)
	} else {
		b.release(m.q)
	}
	b.relieve()
	b.nudge()
}

// Retry says that a message was not delivered: it is handed out again after a time, and before all others of its session.
func (b *Outbox) Retry(m Message, after time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.q == nil || b.closed || len(m.q.entries) == 0 || m.q.entries[0] != m.e || b.held[m.q] != nil {
		return
	}
	b.held[m.q] = time.AfterFunc(after, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.held[m.q] != nil {
			b.release(m.q)
		}
	})
}

// Hurry ends the waiting of all that was to be tried again later.
func (b *Outbox) Hurry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for q := range b.held {
		b.release(q)
	}
}

// release makes a queue's first entry available.
func (b *Outbox) release(q *queue) {
	if t := b.held[q]; t != nil {
		t.Stop()
		delete(b.held, q)
	}
	if q.busy && !b.closed {
		q.busy = false
		b.ready = append(b.ready, q)
		b.rouse()
	}
}

// rouse lets everyone in Next look again.
func (b *Outbox) rouse() {
	close(b.wake)
	b.wake = make(chan struct{})
}

// Flush waits until everything taken before is durable, or ctx ends.
func (b *Outbox) Flush(ctx context.Context) error {
	b.mu.Lock()
	if len(b.taken) == 0 && !b.writer.busy {
		b.mu.Unlock()
		return nil
	}
	f := flush{b.stats.Stored + uint64(len(b.taken)+b.writer.inHand), make(chan struct{})}
	b.flushes = append(b.flushes, f)
	b.mu.Unlock()
	select {
	case <-f.ok:
		return nil
	case <-b.stopped:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what was taken, if the disk takes it, and ends the outbox. What is not done stays for the next Open.
func (b *Outbox) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		<-b.stopped
		return nil
	}
	b.closed = true
	for q, t := range b.held {
		t.Stop()
		delete(b.held, q)
	}
	b.rouse()
	b.mu.Unlock()
	close(b.stop)
	<-b.stopped
	return b.writer.ended
}
