package webhook

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/event"
	"spad/pkg/event/outbox"
)

const (
	childVar   = "SPAD_WEBHOOK_CHILD" // folder, URL and number of the run
	testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	sessions   = 23
)

// child publishes events and delivers them until it is killed. It prints how many are safe, and at the end of its standard input
// it waits until all are delivered.
func child() error {
	f := strings.Fields(os.Getenv(childVar))
	dir, url, run := f[0], f[1], f[2]
	box, err := outbox.Open(outbox.Options{Dir: filepath.Join(dir, "box"), Kinds: event.Kinds()})
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	secret, err := keys.ParseWebhookSecret(testSecret)
	if err != nil {
		return err
	}
	w := New(Options{
		Name: "test", URL: url, Secret: secret, Roots: roots, Timeout: 150 * time.Millisecond, Outbox: box,
		Log:  slog.New(slog.NewTextHandler(os.Stderr, nil)),
		pace: pace{least: 5 * time.Millisecond, most: 40 * time.Millisecond, asked: 50 * time.Millisecond, tell: time.Minute},
	})
	go w.Run(context.Background())
	bus := event.NewBus(nil)
	bus.Attach(box)
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	for i := 0; ; i++ {
		select {
		case <-stop:
			for ; box.Stats().Waiting > 0; time.Sleep(5 * time.Millisecond) {
			}
			return nil
		default:
		}
		e := event.Event{Kind: event.Renewed, Device: run, Reason: strconv.Itoa(i)}
		if k := i % sessions; k > 0 { // the others have a common order
			e.Session = "s" + strconv.Itoa(k)
		}
		bus.Publish(e)
		if i%64 == 63 {
			if err := box.Flush(context.Background()); err != nil {
				return err
			}
			fmt.Println(i + 1)
		}
		for ; box.Stats().Waiting > 2000; time.Sleep(time.Millisecond) {
		}
	}
}

// receiver is an HTTPS server that is good at some times and bad at most others. It knows events by their id, as receivers should.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	addr   string
	mode   atomic.Int64
	count  [modes]atomic.Int64

	mu       sync.Mutex
	seen     map[string]string         // body by id
	last     map[string]map[string]int // by run and session, the number of the last event
	total    map[string]int            // by run
	repeated int
	followed int
}

// What a receiver does with an event.
const (
	good          = iota
	refuses       // 400, and forgets it
	fails         // 500, and forgets it
	busy          // 429 with Retry-After
	takesAndFails // 503, but has taken it
	slow          // takes it, and answers when nobody waits any more
	redirects
	stopped // nobody listens
	modes
)

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return // the sender was killed
	}
	if q.URL.Path != "/hook" {
		r.mu.Lock()
		r.followed++
		r.mu.Unlock()
		return
	}
	mode := r.mode.Load()
	r.count[mode].Add(1)
	switch mode {
	case refuses:
		w.WriteHeader(http.StatusBadRequest)
	case fails:
		w.WriteHeader(http.StatusInternalServerError)
	case busy:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case redirects:
		http.Redirect(w, q, "/elsewhere", http.StatusTemporaryRedirect)
	case takesAndFails:
		r.take(q, body)
		w.WriteHeader(http.StatusServiceUnavailable)
	case slow:
		r.take(q, body)
		select {
		case <-q.Context().Done():
		case <-time.After(time.Second):
		}
	default:
		r.take(q, body)
		w.WriteHeader(http.StatusNoContent)
	}
}

// take checks an event and remembers it.
func (r *receiver) take(q *http.Request, body []byte) {
	id := q.Header.Get("webhook-id")
	secret, _ := keys.ParseWebhookSecret(testSecret)
	at, err := strconv.ParseInt(q.Header.Get("webhook-timestamp"), 10, 64)
	if got := q.Header.Get("webhook-signature"); err != nil || got != secret.Sign(id, time.Unix(at, 0), body) {
		r.t.Errorf("%s: signature %q at %d", id, got, at)
	}
	if d := time.Since(time.Unix(at, 0)); d > time.Minute || d < -time.Minute {
		r.t.Errorf("%s: sent %v ago", id, d)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, known := r.seen[id]; known {
		if old != string(body) {
			r.t.Errorf("%s was %s and is %s", id, old, body)
		}
		r.repeated++
		return
	}
	r.seen[id] = string(body)
	var e event.Event
	if err := json.Unmarshal(body, &e); err != nil {
		r.t.Errorf("%s: %v", id, err)
		return
	}
	r.inOrder(e)
}

// inOrder wants the events of a run without a gap in each session.
func (r *receiver) inOrder(e event.Event) {
	n, _ := strconv.Atoi(e.Reason)
	if r.last[e.Device] == nil {
		r.last[e.Device] = map[string]int{}
	}
	want := n % sessions
	if last, ok := r.last[e.Device][e.Session]; ok {
		want = last + sessions
	}
	if n != want {
		r.t.Errorf("run %s, session %q: event %d came where %d was due", e.Device, e.Session, n, want)
	}
	r.last[e.Device][e.Session] = n
	r.total[e.Device]++
}

// start listens, again at the same address if there was one before.
func (r *receiver) start() {
	addr := r.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		r.t.Error(err)
		return
	}
	if r.addr == "" { // later ones are the same, and others read it meanwhile
		r.addr = l.Addr().String()
	}
	s := httptest.NewUnstartedServer(r)
	s.Listener.Close()
	s.Listener = l
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // connections are cut all the time
	s.EnableHTTP2 = true
	s.StartTLS()
	r.server = s
}

// misbehave goes through all modes until it is told to be good.
func (r *receiver) misbehave(stop <-chan struct{}) {
	for i := int64(0); ; i++ {
		r.mode.Store(i / 2 % modes * (i % 2)) // every other time good
		if r.mode.Load() == stopped {
			r.count[stopped].Add(1)
			r.server.CloseClientConnections()
			r.server.Close()
		}
		select {
		case <-stop:
			if r.mode.Swap(good) == stopped {
				r.start()
			}
			return
		case <-time.After(60 * time.Millisecond):
		}
		if r.mode.Load() == stopped {
			r.start()
		}
	}
}

// TestKilledSenderAndBadReceiver: every event that was safe arrives, and those after it up to the last that was written; each
// session's in order and without a gap; each id means one event, and a receiver that knows ids sees each event once.
func TestKilledSenderAndBadReceiver(t *testing.T) {
	const runs = 8
	enough := 10_000
	if raceDetector {
		enough = 2000 // it takes five times as long
	}
	r := &receiver{t: t, seen: map[string]string{}, last: map[string]map[string]int{}, total: map[string]int{}}
	r.start()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		r.misbehave(stop)
	}()
	safe := map[string]int{}
	for run := range runs {
		name := strconv.Itoa(run)
		safe[name] = r.run(dir, name, enough/runs+64, run == runs-1)
	}
	close(stop)
	<-ended
	r.server.Close()
	r.verdict(safe, enough)
}

// run starts a sender and kills it when so many events are safe, or lets it deliver everything, and returns how many were.
func (r *receiver) run(dir, name string, events int, last bool) (safe int) {
	r.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s https://%s/hook %s", childVar, dir, r.addr, name))
	in, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for safe < events && lines.Scan() {
		safe, _ = strconv.Atoi(lines.Text())
	}
	if !last {
		cmd.Process.Kill()
	}
	in.Close()
	for lines.Scan() { // what it had printed when it was killed
		safe, _ = strconv.Atoi(lines.Text())
	}
	if err := cmd.Wait(); last && err != nil || strings.Contains(log.String(), "DATA RACE") {
		r.t.Errorf("run %s: %v\n%s", name, err, &log)
	}
	return safe
}

func (r *receiver) verdict(safe map[string]int, enough int) {
	all, repeated := 0, r.repeated
	for run, n := range safe {
		all += n
		if r.total[run] < n {
			r.t.Errorf("run %s: %d events arrived of %d that were safe", run, r.total[run], n)
		}
	}
	if all < enough || repeated == 0 || r.followed > 0 {
		r.t.Errorf("%d events, %d repeated, %d redirects followed", all, repeated, r.followed)
	}
	for mode := range r.count {
		if r.count[mode].Load() == 0 {
			r.t.Errorf("the receiver was never in mode %d", mode)
		}
	}
	r.t.Logf("%d events safe, %d arrived, %d of them repeated under the same id", all, len(r.seen), repeated)
}
