package event

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	logQueue  = 1024        // lines that may wait for a slow log
	logWindow = time.Minute // what a device can repeat at will is limited per window …
	logBurst  = 5           // … to so many lines of each kind …
	doorBurst = 60          // … or so many, where each line is a change that was made
)

// bursts are the kinds that a device can cause as often as it likes, and how many lines of each it gets in a window.
var bursts = map[Kind]uint64{
	KnockRefused: logBurst, Renewed: logBurst, BackendFailed: logBurst, JournalFailed: logBurst, BackendHealed: 1,
	Opened: doorBurst, Moved: doorBurst, Closed: doorBurst,
}

// repeater is a device and a kind of event that it can cause as often as it likes.
type repeater struct {
	device string
	kind   Kind
}

// logSink writes one line per event. A stalled log (a pipe nobody reads) must not stall the daemon, so lines wait in a
// bounded queue and a goroutine that lives only while there are any writes them.
type logSink struct {
	log     *slog.Logger
	dropped *atomic.Uint64

	mu      sync.Mutex
	queue   []line
	lost    uint64        // lines that did not fit, not yet told
	idle    chan struct{} // closed when the writer ends; nil if there is none
	repeats map[repeater]uint64
	window  *time.Timer // ends the window; nil if nothing is counted
}

type line struct {
	log   *slog.Logger
	at    slog.Level
	msg   string
	attrs []slog.Attr
}

func newLogSink(log *slog.Logger, dropped *atomic.Uint64) *logSink {
	return &logSink{log: log, dropped: dropped, repeats: map[repeater]uint64{}}
}

func (l *logSink) take(e Event) {
	level := e.Kind.level()
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if bursts[e.Kind] > 0 && !l.allow(repeater{e.Device, e.Kind}) {
		return
	}
	if l.room() {
		l.push(line{l.log, level, e.Kind.Text(), e.LogAttrs()})
	}
}

// allow counts one more of r and says whether it may still have a line of its own in this window. The map is as small
// as the number of devices: strangers never get here, and it is emptied with each window.
func (l *logSink) allow(r repeater) bool {
	if l.window == nil {
		l.window = time.AfterFunc(logWindow, l.endWindow)
	}
	l.repeats[r]++
	return l.repeats[r] <= bursts[r.kind]
}

func (l *logSink) endWindow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.summarise()
}

// summarise writes a line for everything the window held back, and starts afresh.
func (l *logSink) summarise() {
	byName := func(a, b repeater) int { return strings.Compare(a.device+string(a.kind), b.device+string(b.kind)) }
	for _, r := range slices.SortedFunc(maps.Keys(l.repeats), byName) {
		if n, burst := l.repeats[r], bursts[r.kind]; n > burst {
			attrs := []slog.Attr{slog.String("device", r.device), slog.Uint64("suppressed", n-burst)}
			if l.room() {
				l.push(line{l.log, r.kind.level(), r.kind.Text() + " more often", attrs})
			}
		}
	}
	clear(l.repeats)
	if l.window != nil {
		l.window.Stop()
		l.window = nil
	}
}

// room says whether one more line can wait, and counts it as lost if not. Lines are made only where there is room: with
// 100,000 doors to restore, most have none.
func (l *logSink) room() bool {
	if len(l.queue) < logQueue {
		return true
	}
	l.lost++
	l.dropped.Add(1)
	return false
}

func (l *logSink) push(n line) {
	l.queue = append(l.queue, n)
	if l.idle == nil {
		l.idle = make(chan struct{})
		go l.write()
	}
}

// write empties the queue and ends.
func (l *logSink) write() {
	for {
		l.mu.Lock()
		lines, lost := l.queue, l.lost
		l.queue, l.lost = nil, 0
		if len(lines) == 0 {
			close(l.idle)
			l.idle = nil
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for _, n := range lines {
			n.log.LogAttrs(context.Background(), n.at, n.msg, n.attrs...)
		}
		if lost > 0 {
			l.log.Warn("log too slow, events not written", "lost", lost)
		}
	}
}

// queued is a slog.Handler whose lines wait in the log's queue, for those who must not wait for the log.
type queued struct {
	sink *logSink
	log  *slog.Logger
}

func (q queued) Enabled(ctx context.Context, l slog.Level) bool { return q.log.Enabled(ctx, l) }

func (q queued) WithAttrs(attrs []slog.Attr) slog.Handler {
	return queued{q.sink, slog.New(q.log.Handler().WithAttrs(attrs))}
}

func (q queued) WithGroup(name string) slog.Handler {
	return queued{q.sink, slog.New(q.log.Handler().WithGroup(name))}
}

func (q queued) Handle(_ context.Context, r slog.Record) error {
	attrs := make([]slog.Attr, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	q.sink.mu.Lock()
	defer q.sink.mu.Unlock()
	if q.sink.room() {
		q.sink.push(line{q.log, r.Level, r.Message, attrs})
	}
	return nil
}

// flush writes the summary of the running window too.
func (l *logSink) flush(ctx context.Context) error {
	l.mu.Lock()
	l.summarise()
	idle := l.idle
	l.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
