// Package outbox keeps events on disk until somebody has taken them over: at least once, in order, within bounds.
//
//	Take -> memory -> writer: one write, one fdatasync -> a queue for each session -> Next … Done or Retry
//
// Take never waits for the disk; whoever publishes may be about to open a door. The writer takes all that has come together and
// makes it durable in one stroke. An event gets its id when it is written, and is handed out only when it is durable: so an id
// that somebody has seen never comes to mean another event, whatever breaks.
//
// # On disk
//
// A folder of segments, numbered from 1, each a row of records: a length, a CRC-32C, a kind, a content. Nothing is ever
// overwritten. A segment begins with the name of the outbox (random, the same in all), the next event's number and how many
// lost events are untold. Events and the numbers of those that are done follow. A segment whose events are all done is removed,
// the oldest first, so that no mark outlives what it hides; if a few events keep a segment long, they move to the newest. What
// follows the last whole record of a segment is left out. Every start, and every failed write, begins a new segment: nothing is
// appended to what might be torn.
//
// # What can be lost
//
// kill -9 loses what was taken less than a moment ago and not written; a power cut what was not yet synced, and can bring back
// what was just done. Over the bounds the newest events are refused and counted; when there is room again an events_lost event
// tells how many. The count outlives restarts.
package outbox

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"spad/pkg/event"
)

// The bounds if Options say nothing: of events that wait, and of their bytes. 100,000 events take about 30 MB.
const (
	DefaultMaxEvents = 100_000
	DefaultMaxBytes  = 64 << 20
)

// ErrClosed is returned by Next and Flush on an outbox that was closed.
var ErrClosed = errors.New("the outbox is closed")

// Options say how an outbox is opened.
type Options struct {
	Dir       string       // of its own; made if it is not there, but not the one above
	Kinds     []event.Kind // what Take takes; the others are passed over
	MaxEvents int          // that wait; 0 is the default
	MaxBytes  int64        // of those; 0 is the default
	Log       *slog.Logger // what an operator should know; it must not block; nil for nothing
}

// Outbox is a durable queue of events. It is safe for concurrent use, but a folder has one at a time.
type Outbox struct {
	o       Options
	writer  writer
	kick    chan struct{} // to the writer: there is something to do
	stop    chan struct{} // to the writer: the last stroke
	stopped chan struct{} // from it: that is done

	mu      sync.Mutex
	kinds   map[event.Kind]bool
	taken   []item // not yet written
	marks   []uint64
	queues  map[string]*queue // by session
	ready   []*queue
	held    map[*queue]*time.Timer
	wake    chan struct{} // closed and made anew whenever Next should look again
	flushes []flush
	stats   Stats
	untold  uint64 // lost events that no marker tells of
	full    bool
	closed  bool
}

// Stats say how an outbox is.
type Stats struct {
	Waiting  int    // events that are not done, on disk or about to be
	Unstored int    // of those, not durable yet
	Bytes    int64  // of all that wait
	Stored   uint64 // events made durable since Open
	Done     uint64 // since Open
	Lost     uint64 // refused since Open because the outbox was full
	Disk     int64  // bytes of all segments
	Failing  bool   // the disk can't be written
}

// item is an event that was taken and is not durable yet.
type item struct {
	e    event.Event
	size int64  // as it was charged
	seq  uint64 // 0 until the writer has tried it
}

type flush struct {
	target uint64 // of Stats.Stored
	ok     chan struct{}
}

// Open opens an outbox, with all that is in it, and starts its writer. Close ends that.
func Open(o Options) (*Outbox, error) {
	if o.MaxEvents <= 0 {
		o.MaxEvents = DefaultMaxEvents
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Outbox{
		o: o, kick: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
		queues: map[string]*queue{}, held: map[*queue]*time.Timer{}, wake: make(chan struct{}),
	}
	b.SetKinds(o.Kinds)
	b.writer = writer{Outbox: b, dir: o.Dir}
	if err := b.load(); err != nil {
		return nil, fmt.Errorf("opening the outbox %q: %w", o.Dir, err)
	}
	go b.writer.run()
	return b, nil
}

// SetKinds changes what Take takes.
func (b *Outbox) SetKinds(kinds []event.Kind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kinds = map[event.Kind]bool{}
	for _, k := range kinds {
		b.kinds[k] = true
	}
}

// Take implements event.Sink.
func (b *Outbox) Take(e event.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || !b.kinds[e.Kind] {
		return
	}
	e.Reason = cut(e.Reason)
	size := charge(e)
	if b.full || b.stats.Waiting >= b.o.MaxEvents || b.stats.Bytes+size > b.o.MaxBytes {
		b.refuse()
		return
	}
	b.accept(e, size)
}

// maxReason bounds the one text of an event that can be long: a reload may have a thousand problems.
const maxReason = 8 << 10

func cut(reason string) string {
	if len(reason) > maxReason {
		return reason[:maxReason] + "…" // a rune that was cut in two is mended by the encoder
	}
	return reason
}

// charge is what an event is taken to need on disk: its JSON has about 200 bytes around its texts.
func charge(e event.Event) int64 {
	return 256 + int64(len(e.Device)+len(e.Service)+2*len(e.Session)+len(e.Source)+len(e.From)+len(e.Reason)+len(e.By))
}

func (b *Outbox) accept(e event.Event, size int64) {
	b.taken = append(b.taken, item{e: e, size: size})
	b.stats.Waiting++
	b.stats.Bytes += size
	b.nudge()
}

// refuse counts one more that there is no room for.
func (b *Outbox) refuse() {
	if !b.full {
		b.full = true
		b.o.Log.Error("outbox is full, events are lost", "dir", b.o.Dir, "waiting", b.stats.Waiting)
	}
	b.untold++
	b.stats.Lost++
	b.nudge()
}

// relieve ends the state of being full, a tenth below the bounds: else every second event would be one of lost ones.
func (b *Outbox) relieve() {
	if !b.full || b.closed || !b.roomy() {
		return
	}
	b.full = false
	b.o.Log.Warn("outbox has room again", "dir", b.o.Dir, "lost", b.untold)
	b.tell("the outbox was full")
}

func (b *Outbox) roomy() bool {
	return b.stats.Waiting < b.o.MaxEvents-b.o.MaxEvents/10 && b.stats.Bytes <= b.o.MaxBytes/10*9
}

// tell puts in the event that tells the receiver how many are lost.
func (b *Outbox) tell(reason string) {
	if b.untold == 0 {
		return
	}
	e := event.Event{Time: time.Now(), Kind: event.EventsLost, Lost: b.untold, Reason: reason}
	b.untold = 0
	b.accept(e, charge(e))
}

// nudge tells the writer that there is something to do.
func (b *Outbox) nudge() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// Stats says how the outbox is.
func (b *Outbox) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Unstored = len(b.taken) + b.writer.inHand
	return s
}

// id is the name of an event, for ever: that of the outbox and its number there.
func id(name [8]byte, seq uint64) string {
	return fmt.Sprintf("evt_%s_%d", hex.EncodeToString(name[:]), seq)
}
