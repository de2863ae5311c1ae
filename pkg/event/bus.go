package event

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// sink takes events in the order they are published. It is called with the bus locked and must not block.
type sink interface{ take(Event) }

// Sink takes events in the order they are published. Take is called with the bus locked, often by the goroutine that opens
// doors: it must not block.
type Sink interface{ Take(Event) }

// attached is a sink from outside this package.
type attached struct{ Sink }

func (a *attached) take(e Event) { a.Take(e) }

// Bus hands events to its sinks. It is safe for concurrent use. Publishing on a nil Bus does nothing.
type Bus struct {
	mu        sync.Mutex
	sinks     []sink
	log       *logSink // nil without a log; also among the sinks
	published map[Kind]uint64
	dropped   atomic.Uint64
	strangers atomic.Uint64
}

// NewBus returns a bus that writes to log, or, if log is nil, to no log.
func NewBus(log *slog.Logger) *Bus {
	b := &Bus{published: map[Kind]uint64{}}
	if log != nil {
		b.log = newLogSink(log, &b.dropped)
		b.sinks = append(b.sinks, b.log)
	}
	return b
}

// Publish hands e to every sink and never blocks. A zero time becomes now.
func (b *Bus) Publish(e Event) {
	if b == nil {
		return
	}
	if e.Kind == KnockRefused && e.Device == "" {
		b.strangers.Add(1)
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.published[e.Kind]++
	for _, s := range b.sinks {
		s.take(e)
	}
}

// Subscribe returns a channel that holds at most size events (at least 1), and the function that ends the subscription
// and closes the channel. An event that finds the channel full is dropped; the next one that fits says in its Lost how
// many were.
func (b *Bus) Subscribe(size int) (<-chan Event, func()) {
	s := &subscriber{ch: make(chan Event, max(size, 1)), dropped: &b.dropped}
	b.join(s)
	return s.ch, sync.OnceFunc(func() {
		b.leave(s)
		close(s.ch)
	})
}

// Attach hands every event from now on to s too, and returns the function that ends that: after it s is called no more.
func (b *Bus) Attach(s Sink) (detach func()) {
	a := &attached{s}
	b.join(a)
	return func() { b.leave(a) }
}

func (b *Bus) join(s sink) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sinks = append(b.sinks, s)
}

func (b *Bus) leave(s sink) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sinks = slices.DeleteFunc(b.sinks, func(other sink) bool { return other == s })
}

// Published returns how many events of each kind there were. Those of strangers, who are not told of, are not among them.
func (b *Bus) Published() map[Kind]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.published)
}

// Dropped returns how many events did not fit a sink's queue, all sinks together.
func (b *Bus) Dropped() uint64 { return b.dropped.Load() }

// Strangers returns how many refusals without a device were counted and handed to nobody.
func (b *Bus) Strangers() uint64 { return b.strangers.Load() }

// Log returns the bus's log for those who must not wait for it, such as sinks: lines stand in one queue with events.
func (b *Bus) Log() *slog.Logger {
	if b == nil || b.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(queued{b.log, b.log.log})
}

// Flush waits until the log holds everything published before, or ctx ends. Call it last thing before the program does.
func (b *Bus) Flush(ctx context.Context) error {
	if b == nil || b.log == nil {
		return nil
	}
	return b.log.flush(ctx)
}

// subscriber is a sink that somebody reads from a channel.
type subscriber struct {
	ch      chan Event
	lost    uint64 // since the last event that fitted
	dropped *atomic.Uint64
}

func (s *subscriber) take(e Event) {
	e.Lost = s.lost
	select {
	case s.ch <- e:
		s.lost = 0
	default:
		s.lost++
		s.dropped.Add(1)
	}
}
