package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// logTo returns a logger without times, and what it wrote.
func logTo(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func lines(t *testing.T, b *Bus, buf *bytes.Buffer) []string {
	t.Helper()
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(buf.String(), "\n"), "\n")
}

func TestLogLines(t *testing.T) {
	for _, tt := range []struct {
		name  string
		level slog.Level
		e     Event
		want  string
	}{
		{"opened", slog.LevelInfo, Event{Kind: Opened, Device: "a"}, "level=INFO msg=opened device=a"},
		{"accepted is quiet", slog.LevelInfo, Event{Kind: KnockAccepted, Device: "a"}, ""},
		{"accepted for debugging", slog.LevelDebug, Event{Kind: KnockAccepted, Device: "a"}, `level=DEBUG msg="knock accepted" device=a`},
		{"refused", slog.LevelInfo, Event{Kind: KnockRefused, Device: "a", Reason: "not now"}, `level=WARN msg="knock refused" device=a reason="not now"`},
		{"a stranger", slog.LevelDebug, Event{Kind: KnockRefused, Source: "192.0.2.1", Reason: "gate"}, ""},
		{"failure", slog.LevelInfo, Event{Kind: BackendFailed, Reason: "EPERM"}, `level=ERROR msg="backend failed" reason=EPERM`},
		{"one line whatever the text", slog.LevelInfo, Event{Kind: ReloadFailed, Reason: "a\nb"}, `level=ERROR msg="reload failed" reason="a\nb"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var buf bytes.Buffer
			b := NewBus(logTo(&buf, tt.level))
			b.Publish(tt.e)
			if got := lines(t, b, &buf); got[0] != tt.want || len(got) != 1 {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestStrangersReachNobody(t *testing.T) {
	b := NewBus(nil)
	events, leave := b.Subscribe(8)
	defer leave()
	for range 1000 {
		b.Publish(Event{Kind: KnockRefused, Source: "192.0.2.1"})
	}
	b.Publish(Event{Kind: Started})
	if e := <-events; e.Kind != Started || e.Lost != 0 {
		t.Errorf("%+v", e)
	}
	if b.Strangers() != 1000 || b.Dropped() != 0 {
		t.Errorf("strangers %d, dropped %d", b.Strangers(), b.Dropped())
	}
}

func TestRefusalsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf shared
		b := NewBus(logTo(&buf, slog.LevelInfo))
		refuse := func(device string, n int) {
			for range n {
				b.Publish(Event{Kind: KnockRefused, Device: device})
			}
		}
		refuse("b", logBurst+2)
		refuse("a", 10_000)
		refuse("c", logBurst) // none too many: no summary
		b.Publish(Event{Kind: Renewed, Device: "a"})
		synctest.Wait()
		if got := strings.Count(buf.take(), "\n"); got != 3*logBurst+1 {
			t.Errorf("%d lines before the window ends", got)
		}
		time.Sleep(logWindow + 1)
		synctest.Wait()
		want := `level=WARN msg="knock refused more often" device=a suppressed=9995` + "\n" +
			`level=WARN msg="knock refused more often" device=b suppressed=2` + "\n"
		if diff := cmp.Diff(want, buf.take()); diff != "" {
			t.Error(diff)
		}
		refuse("a", 1) // a new window
		synctest.Wait()
		if diff := cmp.Diff(`level=WARN msg="knock refused" device=a`+"\n", buf.take()); diff != "" {
			t.Error(diff)
		}
	})
}

// shared is a buffer that may be looked at while the log is written.
type shared struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

// take returns what was written since the last time.
func (s *shared) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.buf.Reset()
	return s.buf.String()
}

func TestFlushTellsWhatTheWindowHeldBack(t *testing.T) {
	var buf bytes.Buffer
	b := NewBus(logTo(&buf, slog.LevelInfo))
	for range logBurst + 1 {
		b.Publish(Event{Kind: Renewed, Device: "a"})
	}
	got := lines(t, b, &buf)
	if want := `level=INFO msg="renewed more often" device=a suppressed=1`; got[len(got)-1] != want {
		t.Errorf("%q", got)
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if err := NewBus(nil).Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// stalled is a log nobody reads until it is told.
type stalled struct {
	bytes.Buffer
	gate chan struct{}
}

func (s *stalled) Write(p []byte) (int, error) {
	<-s.gate
	return s.Buffer.Write(p)
}

func TestStalledLogBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stalled{gate: make(chan struct{})}
		b := NewBus(logTo(out, slog.LevelInfo))
		b.Publish(Event{Kind: DeviceEnrolled, Session: "first"})
		synctest.Wait() // the writer holds it now
		for range logQueue + 7 {
			b.Publish(Event{Kind: DeviceEnrolled})
		}
		b.Log().Error("nobody waits for this either")
		if b.Dropped() != 8 {
			t.Errorf("dropped %d", b.Dropped())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush: %v", err)
		}
		close(out.gate)
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "msg=\"device enrolled\""); n != logQueue+1 {
			t.Errorf("%d lines", n)
		}
		if !strings.Contains(out.String(), "lost=8") {
			t.Error("nobody told of the lost ones")
		}
	}) // which fails if the writer is left behind
}

func TestLogOfTheBus(t *testing.T) {
	var buf bytes.Buffer
	b := NewBus(logTo(&buf, slog.LevelInfo))
	b.Publish(Event{Kind: Started})
	b.Log().With("a", 1).WithGroup("g").Warn("said", "b", 2)
	b.Log().Debug("too quiet")
	b.Publish(Event{Kind: Stopped})
	want := []string{"level=INFO msg=started", "level=WARN msg=said a=1 g.b=2", "level=INFO msg=stopped"}
	if diff := cmp.Diff(want, lines(t, b, &buf)); diff != "" {
		t.Error(diff)
	}
	NewBus(nil).Log().Error("to nobody")
	(*Bus)(nil).Log().Error("to nobody")
}

func TestSubscribers(t *testing.T) {
	b := NewBus(nil)
	slow, leaveSlow := b.Subscribe(2)
	fast, leaveFast := b.Subscribe(100)
	for i := range 5 {
		b.Publish(Event{Kind: Opened, Session: fmt.Sprint(i), Time: noon})
	}
	want := []Event{{Kind: Opened, Session: "0", Time: noon}, {Kind: Opened, Session: "1", Time: noon}}
	if diff := cmp.Diff(want, []Event{<-slow, <-slow}); diff != "" {
		t.Error(diff)
	}
	b.Publish(Event{Kind: Closed, Time: noon})
	b.Publish(Event{Kind: Closed, Time: noon})
	if diff := cmp.Diff([]Event{{Kind: Closed, Time: noon, Lost: 3}, {Kind: Closed, Time: noon}}, []Event{<-slow, <-slow}); diff != "" {
		t.Error(diff)
	}
	if b.Dropped() != 3 || len(fast) != 7 {
		t.Errorf("dropped %d, the fast one has %d", b.Dropped(), len(fast))
	}
	leaveSlow()
	leaveSlow() // harmless
	if _, open := <-slow; open {
		t.Error("the channel is open after the end")
	}
	b.Publish(Event{Kind: Stopped})
	if len(fast) != 8 {
		t.Error("the one that stayed missed an event")
	}
	leaveFast()
}

// taken is a sink that keeps what it takes.
type taken struct{ kinds []Kind }

func (t *taken) Take(e Event) { t.kinds = append(t.kinds, e.Kind) }

func TestAttach(t *testing.T) {
	b := NewBus(nil)
	var one, other taken
	leave := b.Attach(&one)
	b.Attach(&other)
	b.Publish(Event{Kind: Opened})
	b.Publish(Event{Kind: KnockRefused}) // a stranger's
	leave()
	leave() // harmless
	b.Publish(Event{Kind: Closed})
	b.Publish(Event{Kind: Closed})
	if diff := cmp.Diff([]Kind{Opened}, one.kinds); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Kind{Opened, Closed, Closed}, other.kinds); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[Kind]uint64{Opened: 1, Closed: 2}, b.Published()); diff != "" {
		t.Error(diff)
	}
}

func TestPublishFillsTime(t *testing.T) {
	b := NewBus(nil)
	events, leave := b.Subscribe(0)
	defer leave()
	before := time.Now()
	b.Publish(Event{Kind: Started})
	if e := <-events; e.Time.Before(before) || e.Time.After(time.Now()) {
		t.Errorf("time %v", e.Time)
	}
	(*Bus)(nil).Publish(Event{Kind: Started})
	if err := (*Bus)(nil).Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBusFromManySides(t *testing.T) {
	b := NewBus(logTo(io.Discard, slog.LevelInfo))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				b.Publish(Event{Kind: KnockRefused, Device: fmt.Sprint("d", i)})
			}
		})
		wg.Go(func() {
			for range 50 {
				events, leave := b.Subscribe(1)
				b.Publish(Event{Kind: Opened})
				<-events
				leave()
			}
		})
	}
	wg.Wait()
	if err := b.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}
