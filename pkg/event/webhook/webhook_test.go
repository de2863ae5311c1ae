package webhook

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spad/keys"
	"spad/pkg/event"
	"spad/pkg/event/outbox"
)

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// rig is a webhook whose requests answer gets.
type rig struct {
	*Webhook
	box *outbox.Outbox
	log *buffer
	end func()
}

func newRig(t testing.TB, dir string, o Options, answer http.RoundTripper) *rig {
	t.Helper()
	box, err := outbox.Open(outbox.Options{Dir: dir, Kinds: event.Kinds()})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := keys.ParseWebhookSecret(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{box: box, log: &buffer{}}
	o.Name, o.Outbox, o.Secret, o.Log = "page", box, secret, slog.New(slog.NewTextHandler(r.log, nil))
	if o.URL == "" {
		o.URL = "https://user.example/hook-token-4711"
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	r.Webhook = New(o)
	if answer != nil {
		r.client.Transport = answer
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		box.Close()
	})
	t.Cleanup(r.end)
	return r
}

func (r *rig) publish(sessions ...string) {
	for _, s := range sessions {
		r.box.Take(event.Event{Kind: event.Opened, Session: s})
	}
}

// answers is a receiver without a network.
type answers func(q *http.Request) (status int, header http.Header, err error)

func (a answers) RoundTrip(q *http.Request) (*http.Response, error) {
	status, header, err := a(q)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("a word from outside"))}, nil
}

func sessionOf(q *http.Request) string {
	body, _ := io.ReadAll(q.Body)
	var e event.Event
	_ = e.UnmarshalJSON(body)
	return e.Session
}

// TestOneBadEventHoldsUpItsSessionOnly: also for hours, and also if nothing else goes well meanwhile.
func TestOneBadEventHoldsUpItsSessionOnly(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var bad, fine atomic.Int64
		r := newRig(t, dir, Options{}, answers(func(q *http.Request) (int, http.Header, error) {
			if sessionOf(q) == "bad" {
				bad.Add(1)
				return 422, nil, nil
			}
			fine.Add(1)
			return 200, nil, nil
		}))
		r.publish("bad", "bad")
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		// 1, 2, 4 … 256 s, then every five minutes and up to a quarter more.
		if n := bad.Load(); n < 50 || n > 90 {
			t.Errorf("%d attempts in six hours", n)
		}
		r.publish("good", "", "good")
		synctest.Wait()
		settled(r.box, 2)
		if s := r.box.Stats(); fine.Load() != 3 || s.Waiting != 2 {
			t.Errorf("%d of 3 delivered, %+v", fine.Load(), s)
		}
		r.end()
		if n := strings.Count(r.log.String(), "422"); n < 50 || n > 90 {
			t.Errorf("%d lines", n)
		}
	})
}

// settled waits for the disk, which synctest does not know of.
func settled(b *outbox.Outbox, waiting int) {
	for i := 0; b.Stats().Waiting > waiting && i < 1000; i++ {
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
}

// TestReceiverIsDown: however many sessions wait, it is asked seldom, told of seldom, and all goes out when it is back.
func TestReceiverIsDown(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var attempts, underWay atomic.Int64
		var up atomic.Bool
		began := time.Now()
		r := newRig(t, dir, Options{}, answers(func(*http.Request) (int, http.Header, error) {
			attempts.Add(1)
			n := underWay.Add(1)
			defer underWay.Add(-1)
			if time.Sleep(time.Second); n > 1 && !up.Load() && time.Since(began) > time.Minute {
				t.Errorf("%d attempts at once", n)
			}
			if up.Load() {
				return 204, nil, nil
			}
			return 0, nil, errors.New("connection refused")
		}))
		const events = 500
		for i := range events {
			r.publish(fmt.Sprint(i))
		}
		if err := r.box.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if n := attempts.Load(); n < 20 || n > 60 {
			t.Errorf("%d attempts in two hours", n)
		}
		if n := strings.Count(r.log.String(), "\n"); n > 60 || n < 5 {
			t.Errorf("%d lines", n)
		}
		if s := r.Stats(); !s.Down || s.Failed == 0 || s.Delivered != 0 {
			t.Errorf("%+v", s)
		}
		up.Store(true)
		time.Sleep(normal.most*5/4 + events/inFlight*time.Second)
		settled(r.box, 0)
		if s := r.Stats(); s.Delivered != events || s.Down {
			t.Errorf("%+v", s)
		}
		r.end()
		if !strings.Contains(r.log.String(), "webhook delivers again") {
			t.Error("its end was not told")
		}
		for _, secret := range []string{"user.example", "4711", testSecret[6:], "a word from outside"} {
			if strings.Contains(r.log.String(), secret) {
				t.Errorf("the log tells %q:\n%s", secret, r.log)
			}
		}
	})
}

// TestFailuresTogetherAreOne: those that were under way at once do not make the first wait longer.
func TestFailuresTogetherAreOne(t *testing.T) {
	w := New(Options{})
	for i := range inFlight {
		w.failed(outbox.Message{Session: fmt.Sprint(i), Attempt: 1}, result{err: errors.New("refused")}, 0)
	}
	if wait := time.Until(w.state.pausing); !w.stats.Down || wait > normal.least*5/4 {
		t.Errorf("%v after the first failures, down: %v", wait, w.stats.Down)
	}
}

func TestRetryAfterIsKept(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		status       int
		want         time.Duration // at least; and less than a quarter more, or two seconds
	}{
		{"seconds", "120", 429, 2 * time.Minute},
		{"unavailable", "90", 503, 90 * time.Second},
		{"too long", "86400", 429, time.Hour},
		{"shorter than the back-off", "0", 429, time.Second},
		{"no number", "soon", 429, time.Second},
		{"negative", "-5", 429, time.Second},
		{"a date", "Sat, 01 Jan 2000 00:03:20 GMT", 503, 200 * time.Second}, // synctest begins at midnight
		{"a date in the past", "Sat, 01 Jan 1999 00:03:20 GMT", 503, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var times []time.Duration
				began := time.Now()
				var mu sync.Mutex
				r := newRig(t, dir, Options{}, answers(func(*http.Request) (int, http.Header, error) {
					mu.Lock()
					defer mu.Unlock()
					times = append(times, time.Since(began))
					return tt.status, http.Header{"Retry-After": {tt.header}}, nil
				}))
				r.publish("a")
				_ = r.box.Flush(t.Context())
				time.Sleep(tt.want - 1)
				synctest.Wait()
				mu.Lock()
				early := len(times)
				mu.Unlock()
				time.Sleep(tt.want/4 + 2*time.Second)
				synctest.Wait()
				r.end()
				if early != 1 || len(times) < 2 {
					t.Errorf("attempts at %v", times)
				}
			})
		})
	}
}

// TestRetryAfterHoldsAll: a receiver that says it has too much gets nothing of other sessions either.
func TestRetryAfterHoldsAll(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		r := newRig(t, dir, Options{}, answers(func(*http.Request) (int, http.Header, error) {
			if attempts.Add(1) == 1 {
				return 429, http.Header{"Retry-After": {"600"}}, nil
			}
			return 200, nil, nil
		}))
		r.publish("a")
		_ = r.box.Flush(t.Context())
		synctest.Wait()
		r.publish("b", "c")
		time.Sleep(599 * time.Second)
		if n := attempts.Load(); n != 1 {
			t.Errorf("%d attempts", n)
		}
		time.Sleep(2 * time.Minute)
		settled(r.box, 0)
		if n := attempts.Load(); n != 4 {
			t.Errorf("%d attempts in the end", n)
		}
		r.end()
	})
}

func TestGone(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var attempts atomic.Int64
		gone := answers(func(*http.Request) (int, http.Header, error) {
			attempts.Add(1)
			return 410, nil, nil
		})
		r := newRig(t, dir, Options{}, gone)
		r.publish("a")
		_ = r.box.Flush(t.Context())
		time.Sleep(24 * time.Hour)
		r.publish("b")
		time.Sleep(24 * time.Hour)
		if n := attempts.Load(); n != 1 || !r.Stats().Gone || r.box.Stats().Waiting != 2 {
			t.Errorf("%d attempts, %+v, %+v", n, r.Stats(), r.box.Stats())
		}
		r.end()
		if !strings.Contains(r.log.String(), "410") || !strings.Contains(r.log.String(), "spad reload") {
			t.Error(r.log)
		}
		r = newRig(t, dir, Options{}, answers(func(*http.Request) (int, http.Header, error) { return 200, nil, nil }))
		settled(r.box, 0)
		if n := r.box.Stats().Waiting; n != 0 {
			t.Errorf("%d were not kept for the next", n)
		}
		r.end()
	})
}

// TestOverTLS: with a real server, whom the webhook trusts or not.
func TestOverTLS(t *testing.T) {
	var hits atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPost && q.Header.Get("Content-Type") == "application/json" && q.UserAgent() == "spad/1" {
			hits.Add(1)
		}
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for _, tt := range []struct {
		name  string
		url   string
		roots *x509.CertPool
		want  string // in the log; nothing: it arrives
	}{
		{"trusted", s.URL, roots, ""},
		{"a stranger's certificate", s.URL, nil, "certificate signed by unknown authority"},
		{"another name", strings.Replace(s.URL, "127.0.0.1", "localhost", 1), roots, "certificate is valid for example.com"},
		{"plain http", strings.Replace(s.URL, "https:", "http:", 1), roots, "status 400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := hits.Load()
			r := newRig(t, t.TempDir(), Options{URL: tt.url, Roots: tt.roots, Agent: "spad/1"}, nil)
			r.publish("a")
			for i := 0; r.box.Stats().Waiting > 0 && !strings.Contains(r.log.String(), "not taken") && i < 5000; i++ {
				<-time.After(2 * time.Millisecond)
			}
			if arrived := hits.Load() > before; arrived != (tt.want == "") || !strings.Contains(r.log.String(), tt.want) {
				t.Errorf("arrived: %v, log: %s", arrived, r.log)
			}
			r.end()
		})
	}
}

// BenchmarkDeliver is how fast events go out to a receiver on the same machine, over TLS.
func BenchmarkDeliver(b *testing.B) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		if q.ProtoMajor != 1 {
			b.Error(q.Proto)
		}
	}))
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for name, session := range map[string]func(int) string{
		"one session":   func(int) string { return "" },
		"many sessions": func(i int) string { return fmt.Sprint(i) },
	} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, b.TempDir(), Options{URL: s.URL, Roots: roots}, nil)
			b.ResetTimer()
			for i := range b.N {
				r.publish(session(i))
			}
			for r.box.Stats().Waiting > 0 {
				<-time.After(time.Millisecond)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			r.end()
		})
	}
}
