package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spad/pkg/event"
)

// exchange sends raw bytes and returns the answer and its error text.
func exchange(t *testing.T, path, request string) (code int, text string) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, request)
	return readAnswer(t, c)
}

func readAnswer(t *testing.T, c io.Reader) (code int, text string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var b errorBody
	if r.StatusCode/100 != 2 {
		if kind := r.Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("content type %q", kind)
		}
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Errorf("the error is no json: %v", err)
		}
	}
	return r.StatusCode, b.Error
}

func post(path, kind, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, kind, len(body), body)
}

func TestBadRequests(t *testing.T) {
	const js = "application/json"
	s, _ := startFake(t)
	for _, tt := range []struct {
		name, request string
		code          int
		says          string
	}{
		{"no such path", "GET /v2/status HTTP/1.1\r\nHost: x\r\n\r\n", 404, "different versions"},
		{"root", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, "no such operation"},
		{"wrong method", "GET /v1/open HTTP/1.1\r\nHost: x\r\n\r\n", 405, "POST"},
		{"wrong method, two right ones", "PUT /v1/devices HTTP/1.1\r\nHost: x\r\n\r\n", 405, "GET"},
		{"wrong method for events", "POST /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", 405, "GET"},
		{"query", "GET /v1/status?all=1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no query"},
		{"no type", "POST /v1/open HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 415, "application/json"},
		{"a form", post("/v1/open", "application/x-www-form-urlencoded", "service=ssh"), 415, "application/json"},
		{"no body", post("/v1/open", js, ""), 400, "no body"},
		{"half a value", post("/v1/open", js, `{"service":"ssh"`), 400, "cut short"},
		{"no json", post("/v1/open", js, "hello"), 400, "reading the request body"},
		{"unknown key", post("/v1/close", js, `{"al":true}`), 400, `"al"`},
		{"two values", post("/v1/close", js, `{"all":true}{"all":true}`), 400, "goes on"},
		{"junk after the value", post("/v1/close", js, `{"all":true} x`), 400, "goes on"},
		{"wrong kind of value", post("/v1/open", js, `{"service":7}`), 400, "service"},
		{"null", post("/v1/open", js, `null`), 400, "service"},
		{"bad address", post("/v1/open", js, `{"service":"ssh","from":"1.2.3"}`), 400, "1.2.3"},
		{"no address", post("/v1/open", js, `{"service":"ssh"}`), 400, "--from"},
		{"negative ttl", post("/v1/open", js, `{"service":"ssh","from":"192.0.2.1","ttl":-1}`), 400, "ttl"},
		{"ttl that overflows", post("/v1/open", js, `{"service":"ssh","from":"192.0.2.1","ttl":9223372036854775807}`), 400, "ttl"},
		{"ttl with a fraction", post("/v1/open", js, `{"service":"ssh","from":"192.0.2.1","ttl":1.5}`), 400, "ttl"},
		{"close nothing", post("/v1/close", js, `{}`), 400, "exactly one"},
		{"close two ways", post("/v1/close", js, `{"id":"a","device":"b"}`), 400, "exactly one"},
		{"device without a key", post("/v1/devices", js, `{"name":"a"}`), 400, "a key"},
		{"invite for nobody", post("/v1/invites", js, `{"allow":["ssh"]}`), 400, "name"},
		{"invite for too long", post("/v1/invites", js, `{"name":"a","ttl":99999999999}`), 400, "expiry"},
		{"body where none belongs", post("/v1/stop", js, `{}`), 400, "no body"},
		{"why of nobody", "GET /v1/why HTTP/1.1\r\nHost: x\r\n\r\n", 400, "exactly one of"},
		{"why of two", "GET /v1/why?device=a&device=b HTTP/1.1\r\nHost: x\r\n\r\n", 400, "exactly one of"},
		{"why of both", "GET /v1/why?device=a&address=192.0.2.1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "exactly one of"},
		{"why of no address", "GET /v1/why?address=x HTTP/1.1\r\nHost: x\r\n\r\n", 400, "exactly one of"},
		{"body to a why", "GET /v1/why?device=a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 400, "no body"},
		{"body to a removal", "DELETE /v1/devices/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 400, "no body"},
		{"body to events", "GET /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 400, "no body"},
		{"longest body and a byte", post("/v1/close", js, `{"id":"`+strings.Repeat("x", maxBody-8)+`"}`), 413, "longer than 65536"},
		{"chunks without end", "POST /v1/close HTTP/1.1\r\nHost: x\r\nContent-Type: " + js + "\r\nTransfer-Encoding: chunked\r\n\r\n" +
			strings.Repeat("1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n", 17), 413, "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, text := exchange(t, s.path, tt.request)
			if code != tt.code || !strings.Contains(text, tt.says) {
				t.Errorf("%d %q", code, text)
			}
		})
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("%d calls came through: %v", n, s.calls())
	}
	if code, text := exchange(t, s.path, post("/v1/close", js, `{"id":"`+strings.Repeat("x", maxBody-9)+`"}`)); code != 200 {
		t.Errorf("the longest body: %d %s", code, text)
	}
}

func TestGigabyteOfBody(t *testing.T) {
	const total = 1 << 30
	s, c := startFake(t)
	for _, kind := range []string{"Content-Length: 1073741824", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /v1/close HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n", kind)
		sent, chunk := 0, "8000\r\n"+strings.Repeat(" ", 0x8000)+"\r\n"
		for sent < total {
			n, err := io.WriteString(conn, chunk)
			if sent += n; err != nil {
				break
			}
		}
		conn.Close()
		if sent > 2<<20 { // socket buffers included
			t.Errorf("%s: %d bytes were taken", kind, sent)
		}
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(s.calls()); n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestFloodOfConnections(t *testing.T) {
	s, c := startFake(t)
	for range 20 {
		var conns []net.Conn
		for range 100 {
			if conn, err := net.Dial("unix", s.path); err == nil { // the queue may be full
				io.WriteString(conn, "GET /v1/sta")
				conns = append(conns, conn)
			}
		}
		for _, conn := range conns {
			conn.Close()
		}
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

func TestHalfARequestThenGone(t *testing.T) {
	s, c := startFake(t)
	whole := post("/v1/close", "application/json", `{"all":true}`)
	for n := range len(whole) {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, whole[:n])
		conn.(*net.UnixConn).CloseWrite()
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	if n := len(s.calls()); n != 0 {
		t.Errorf("%d halves were taken for a whole", n)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPanicOfTheDaemonEndsOneRequest(t *testing.T) {
	s, c := startFake(t)
	s.waiting = func(context.Context) { panic("bug") }
	if _, err := c.Status(t.Context()); err == nil {
		t.Error("no error")
	}
	s.mu.Lock()
	s.waiting = nil
	s.mu.Unlock()
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStopAnswersItself(t *testing.T) {
	s, c := startFake(t)
	stopped := make(chan error, 1)
	s.waiting = func(ctx context.Context) { go func() { stopped <- s.stop() }() }
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the stop: %v", err)
	}
}

// pipes is a listener without a kernel, so that time can be synctest's.
type pipes struct {
	conns    chan net.Conn
	closed   chan struct{}
	accepted atomic.Int32
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		p.accepted.Add(1)
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// inBubble runs f against a server in a synctest bubble, which also fails if a goroutine is left at the end.
func inBubble(t *testing.T, f func(t *testing.T, s *server, p *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		s := (&fake{}).serve(t, p)
		f(t, s, p)
		if err := s.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

const getStatus = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"

func TestHowLongAConnectionMayTake(t *testing.T) {
	for _, tt := range []struct {
		name, send string
		answers    bool
		want       time.Duration
	}{
		{"nothing sent", "", false, headerTimeout},
		{"half a header", "GET /v1/status HTTP/1.1\r\nHo", true, headerTimeout},
		{"half a body", "POST /v1/close HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{", true, readTimeout},
		{"idle after an answer", getStatus, true, idleTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, _ *server, p *pipes) {
				c := p.dial()
				began := time.Now()
				go io.WriteString(c, tt.send)
				b, _ := io.ReadAll(c)
				if got := time.Since(began); got < tt.want || got > tt.want+time.Second {
					t.Errorf("closed after %v, want %v", got, tt.want)
				}
				if answered := strings.HasPrefix(string(b), "HTTP/1.1 "); answered != tt.answers {
					t.Errorf("answer %q", b)
				}
			})
		})
	}
}

func TestSlowCallIsNotCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, p *pipes) {
		s.waiting = func(context.Context) { time.Sleep(writeTimeout - time.Second) }
		c := p.dial()
		defer c.Close()
		io.WriteString(c, getStatus)
		if code, text := readAnswer(t, c); code != 200 { // the fake would have failed with its context's error
			t.Errorf("%d %s", code, text)
		}
	})
}

func TestStopWaitsForCallsButNotForEver(t *testing.T) {
	for _, tt := range []struct {
		name   string
		takes  time.Duration
		code   int
		within time.Duration
	}{
		{"short call", stopGrace / 2, 200, stopGrace},
		{"long call", time.Hour, 0, stopGrace + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *server, p *pipes) {
				s.inside = make(chan struct{})
				s.waiting = func(ctx context.Context) {
					select {
					case <-time.After(tt.takes):
					case <-ctx.Done():
					}
				}
				c := p.dial()
				defer c.Close()
				go io.WriteString(c, getStatus)
				<-s.inside
				began := time.Now()
				go s.stop()
				r, err := http.ReadResponse(bufio.NewReader(c), nil)
				switch {
				case tt.code == 0 && err == nil:
					t.Errorf("answer %s", r.Status)
				case tt.code != 0 && (err != nil || r.StatusCode != tt.code):
					t.Errorf("answer %v, %v", r, err)
				}
				s.stop()
				if took := time.Since(began); took > tt.within {
					t.Errorf("stop took %v", took)
				}
			})
		})
	}
}

func TestAtMostSoManyConnections(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *server, p *pipes) {
		var conns []net.Conn
		for range maxConns {
			conns = append(conns, p.dial())
		}
		late := make(chan net.Conn)
		go func() { late <- p.dial() }()
		synctest.Wait()
		if n := p.accepted.Load(); n != maxConns {
			t.Fatalf("%d accepted at once", n)
		}
		c := <-late // when the idle ones have been thrown out
		defer c.Close()
		go io.WriteString(c, getStatus)
		if code, _ := readAnswer(t, c); code != 200 {
			t.Errorf("the late one: %d", code)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

const getEvents = "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"

// watchRaw starts a stream and reads its header.
func watchRaw(t *testing.T, p *pipes) (net.Conn, *http.Response) {
	t.Helper()
	c := p.dial()
	go io.WriteString(c, getEvents)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}

func TestStalledWatcherIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, p *pipes) {
		stalled, r := watchRaw(t, p)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Fatalf("%s, %v", r.Status, r.Header)
		}
		began := time.Now()
		for range 10 * watcherQueue { // never blocks
			s.Events.Publish(event.Event{Kind: event.Opened})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("publishing waited %v", took)
		}
		if s.Events.Dropped() < 9*watcherQueue-2 {
			t.Errorf("dropped %d", s.Events.Dropped())
		}
		time.Sleep(watcherTimeout + time.Second)
		before := s.Events.Dropped()
		for range 2 * watcherQueue {
			s.Events.Publish(event.Event{Kind: event.Opened})
		}
		if after := s.Events.Dropped(); after != before {
			t.Error("the stalled watcher is still subscribed")
		}
		stalled.Close()
	})
}

func TestSlowWatcherHearsWhatItLost(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, p *pipes) {
		c, r := watchRaw(t, p)
		defer c.Close()
		for range watcherQueue + 100 {
			s.Events.Publish(event.Event{Kind: event.Opened})
		}
		d := json.NewDecoder(r.Body)
		read := func() (e event.Event) {
			if err := d.Decode(&e); err != nil {
				t.Fatal(err)
			}
			return e
		}
		total := uint64(0)
		read() // makes room
		total++
		synctest.Wait()
		s.Events.Publish(event.Event{Kind: event.Closed})
		for {
			e := read()
			total += 1 + e.Lost
			if e.Kind == event.Closed {
				break
			}
		}
		if want := uint64(watcherQueue + 100 + 1); total != want {
			t.Errorf("%d events read or reported lost, want %d", total, want)
		}
	})
}

func TestQuietWatcherStays(t *testing.T) {
	inBubble(t, func(t *testing.T, s *server, p *pipes) {
		c, r := watchRaw(t, p)
		defer c.Close()
		time.Sleep(24 * time.Hour)
		s.Events.Publish(event.Event{Kind: event.Opened})
		var e event.Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.Kind != event.Opened {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

func TestWatchersLeavePlacesForOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *server, p *pipes) {
		for range maxWatchers {
			c, r := watchRaw(t, p)
			defer c.Close()
			if r.StatusCode != 200 {
				t.Fatal(r.Status)
			}
		}
		c := p.dial()
		defer c.Close()
		go io.WriteString(c, getEvents)
		if code, text := readAnswer(t, c); code != 503 || !strings.Contains(text, "watchers") {
			t.Errorf("%d %s", code, text)
		}
		go io.WriteString(c, getStatus)
		if code, _ := readAnswer(t, c); code != 200 {
			t.Errorf("status: %d", code)
		}
	})
}

// broken is a listener that fails.
type broken struct{ *pipes }

func (broken) Accept() (net.Conn, error) { return nil, errors.New("no more descriptors") }

func TestServeReportsABrokenListener(t *testing.T) {
	s := (&fake{}).server()
	s.Log = nil
	if err := s.Serve(t.Context(), broken{newPipes()}); err == nil || err.Error() != "no more descriptors" {
		t.Errorf("%v", err)
	}
}

func TestPackageCommentNamesEveryOperation(t *testing.T) {
	doc, err := os.ReadFile("control.go")
	if err != nil {
		t.Fatal(err)
	}
	patterns := everyRoute()
	for _, p := range patterns {
		method, path, _ := strings.Cut(p, " ")
		if !strings.Contains(string(doc), fmt.Sprintf("//\t%-6s %-20s ", method, path)) {
			t.Errorf("the package comment lacks %s", p)
		}
	}
	if n := strings.Count(string(doc), " /v1/"); n != len(patterns) {
		t.Errorf("the package comment has %d operations, the server %d", n, len(patterns))
	}
}
