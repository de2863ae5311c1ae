package daemon_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sync/errgroup"

	"spad/keys"
	"spad/pkg/control"
	"spad/pkg/event"
)

const webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// page is a real HTTPS server on the router that takes events and knows them by their id.
type page struct {
	r      *rig
	server *httptest.Server
	addr   string

	mu       sync.Mutex
	status   int
	ids      map[string]bool
	repeated int
	events   []event.Event
	bodies   [][]byte
}

// slow is the status of a page that answers when nobody waits any more.
const slow = -1

func newPage(r *rig) *page {
	p := &page{r: r, status: http.StatusOK, ids: map[string]bool{}, addr: "127.0.0.1:0"}
	p.start()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(r.dir, "page.pem"), ca, 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.server.Close() })
	return p
}

func (p *page) start() {
	p.r.t.Helper()
	l, err := p.r.Router.Listen("tcp", p.addr)
	if err != nil {
		p.r.t.Fatal(err)
	}
	p.addr = l.Addr().String()
	p.server = httptest.NewUnstartedServer(p)
	p.server.Listener.Close()
	p.server.Listener = l
	p.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	p.server.StartTLS()
}

// stop ends the server, so that nobody is there.
func (p *page) stop() {
	p.server.CloseClientConnections()
	p.server.Close()
}

// valid holds everything that arrived against the schema.
func (p *page) valid() {
	p.r.t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile("../../contrib/events.schema.json")
	if err != nil {
		p.r.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.bodies) == 0 {
		p.r.t.Error("nothing arrived")
	}
	for _, body := range p.bodies {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err == nil {
			err = s.Validate(v)
		}
		if err != nil {
			p.r.t.Errorf("%s: %v", body, err)
		}
	}
}

func (p *page) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	id := q.Header.Get("webhook-id")
	at, _ := strconv.ParseInt(q.Header.Get("webhook-timestamp"), 10, 64)
	secret, _ := keys.ParseWebhookSecret(webhookSecret)
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.Header.Get("webhook-signature") != secret.Sign(id, time.Unix(at, 0), body) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch p.status {
	case slow:
		defer func() { // it has the event, and nobody hears that
			p.mu.Unlock()
			select {
			case <-q.Context().Done():
			case <-time.After(5 * time.Second):
			}
			p.mu.Lock()
		}()
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
		fallthrough
	default:
		w.WriteHeader(p.status)
	}
	if p.status != http.StatusOK && p.status != slow {
		return
	}
	if p.ids[id] {
		p.repeated++
		return
	}
	p.ids[id] = true
	var e event.Event
	if err := json.Unmarshal(body, &e); err != nil {
		p.r.t.Error(err)
	}
	p.events, p.bodies = append(p.events, e), append(p.bodies, body)
}

// answer sets the status of all answers from now on.
func (p *page) answer(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
}

// kinds returns the kinds of the events so far, of one session or of those without.
func (p *page) kinds(session string) (kinds []event.Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Session == session {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

// count returns how many events of a kind there were.
func (p *page) count(k event.Kind) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// hook is the configuration of the webhook, with more keys.
func (p *page) hook(more string) string {
	return fmt.Sprintf("\n[webhook.page]\nurl = \"https://%s/events?token=4711\"\nsecret = %q\nca_file = \"page.pem\"\n%s\n", p.addr, webhookSecret, more)
}

// stored counts what is on disk of a kind for the webhook.
func (r *rig) stored(k event.Kind) (n int) {
	names, _ := filepath.Glob(filepath.Join(r.dir, "state", "outbox", "page", "*"))
	for _, name := range names {
		data, _ := os.ReadFile(name)
		n += strings.Count(string(data), `"kind":"`+string(k)+`"`)
	}
	return n
}

// What happens at the router arrives at a page, in order, and runs a program.
func TestEventsReachThePage(t *testing.T) {
	r := newRig(t, services)
	p := newPage(r)
	program, out := filepath.Join(r.dir, "program"), filepath.Join(r.dir, "out")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$SPAD_KIND $SPAD_DEVICE $SPAD_SERVICE\" >>\"$1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.configure(services + p.hook("") + fmt.Sprintf("[exec.write]\ncommand = [%q, %q]\nevents = [\"opened\", \"closed\"]\n", program, out))
	r.start()
	r.enrol(r.Laptop, "web")
	r.expectKnock(r.Laptop, 0, "web", "-4")
	id := r.sessions()[0].ID
	r.expectKnock(r.Laptop, 0, "web", "-4")
	r.expectKnock(r.Laptop, 0, "close", "web", "-4")
	r.expectKnock(r.Laptop, 4, "nas", "-4")
	r.must("device", "remove", "laptop")
	r.eventually("the session's end arrives", func() bool { return slices.Contains(p.kinds(id), event.Closed) })
	if diff := cmp.Diff([]event.Kind{event.Opened, event.Renewed, event.Closed}, p.kinds(id)); diff != "" {
		t.Error(diff)
	}
	want := []event.Kind{event.Started, event.InviteCreated, event.DeviceEnrolled, event.KnockRefused, event.DeviceRemoved, event.Stopped}
	r.kill(syscall.SIGTERM)
	if diff := cmp.Diff(want, p.kinds("")); diff != "" {
		t.Error(diff)
	}
	text, err := os.ReadFile(out)
	if err != nil || string(text) != "opened laptop web\nclosed laptop web\n" {
		t.Errorf("%q, %v", text, err)
	}
	p.valid()
}

// Nothing is lost or comes twice while nobody takes it and spad is killed.
func TestEventsOutliveKills(t *testing.T) {
	r := newRig(t, services)
	p := newPage(r)
	r.configure(services + p.hook(`events = ["started", "opened", "restored", "closed"]`))
	r.start()
	p.stop()
	const doors, kills = 12, 3
	opened := 0
	for range kills {
		for range doors {
			opened++
			r.must("open", "web", "--from", fmt.Sprintf("198.51.100.%d", opened))
		}
		r.eventually("what happened is on disk", func() bool { return r.stored(event.Opened) == opened })
		r.kill(syscall.SIGKILL)
		r.start()
	}
	r.must("close", "--all")
	p.start()
	r.eventually("all arrive", func() bool { return p.count(event.Closed) == opened })
	bySession := map[string][]event.Kind{}
	for _, e := range p.events {
		bySession[e.Session] = append(bySession[e.Session], e.Kind)
	}
	delete(bySession, "")
	if len(bySession) != opened {
		t.Errorf("%d sessions, want %d", len(bySession), opened)
	}
	times := map[int]int{}
	for s, kinds := range bySession {
		n := len(kinds)
		want := append(append([]event.Kind{event.Opened}, slices.Repeat([]event.Kind{event.Restored}, max(n-2, 0))...), event.Closed)
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Errorf("%s: %s", s, diff)
		}
		times[n-2]++
	}
	if diff := cmp.Diff(map[int]int{1: doors, 2: doors, 3: doors}, times); diff != "" {
		t.Error("sessions by how often they were restored:", diff)
	}
	if n := p.count(event.Started); n != kills+1 {
		t.Errorf("started %d times", n)
	}
	p.valid()
}

// Ten thousand events pass while the page fails in every way and spad is killed: all arrive, each session's in order, each once.
func TestTenThousandEvents(t *testing.T) {
	r := newRig(t, services)
	p := newPage(r)
	r.configure(services + p.hook("timeout = \"1s\""))
	r.start()
	client := control.NewClient(r.dir + "/spad.sock")
	doors := 850 // in each phase
	if raceDetector {
		doors = 100 // it takes five times as long
	}
	last := []string(nil)
	for phase, bad := range [][]int{
		{http.StatusInternalServerError, http.StatusBadRequest}, {slow, http.StatusTooManyRequests}, {0, http.StatusFound}, {http.StatusOK, 0},
	} {
		p.misbehave(bad[0])
		ids := r.open(client, phase*doors, doors)
		p.behave(bad[0])
		before := len(p.kinds(""))
		r.must("reload")
		r.eventually("some arrive", func() bool { return len(p.kinds("")) > before })
		p.misbehave(bad[1])
		r.close(client, last)
		last = ids
		r.eventually("all is on disk", func() bool {
			return strings.Contains(r.must("status", "--metrics"), "spad_webhook_unstored_events{webhook=\"page\"} 0\n")
		})
		r.kill(syscall.SIGKILL)
		p.behave(bad[1])
		r.start()
	}
	r.close(client, last)
	for deadline := time.Now().Add(time.Minute); p.count(event.Closed) < 4*doors && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
	}
	bySession := map[string][]event.Kind{}
	for _, e := range p.events {
		bySession[e.Session] = append(bySession[e.Session], e.Kind)
	}
	want := []event.Kind{event.Opened, event.Renewed, event.Restored, event.Closed}
	for s, kinds := range bySession {
		if s != "" && !slices.Equal(kinds, want) {
			t.Errorf("session %s: %v", s, kinds)
		}
	}
	if len(bySession) != 4*doors+1 || len(p.events) < 4*doors*len(want) {
		t.Errorf("%d sessions, %d events", len(bySession)-1, len(p.events))
	}
	t.Logf("%d events, %d of them repeated under the same id", len(p.events), p.repeated)
	p.valid()
}

// misbehave makes the page answer with a status from now on; 0 is that nobody is there.
func (p *page) misbehave(how int) {
	if how == 0 {
		p.stop()
		return
	}
	p.answer(how)
}

// behave makes it good again.
func (p *page) behave(how int) {
	if how == 0 {
		p.start()
	}
	p.answer(http.StatusOK)
}

// each calls f for each of n things, eight at once.
func (r *rig) each(n int, f func(i int) error) {
	r.t.Helper()
	var group errgroup.Group
	group.SetLimit(8)
	for i := range n {
		group.Go(func() error { return f(i) })
	}
	if err := group.Wait(); err != nil {
		r.t.Fatal(err)
	}
}

// open opens n doors and renews them.
func (r *rig) open(c *control.Client, first, n int) (ids []string) {
	r.t.Helper()
	ids = make([]string, n)
	r.each(n, func(i int) error {
		q := control.OpenRequest{Service: "web", From: netip.AddrFrom4([4]byte{198, 18, byte((first + i) >> 8), byte(first + i)})}
		s, err := c.Open(r.t.Context(), q)
		if err == nil {
			_, err = c.Open(r.t.Context(), q)
		}
		ids[i] = s.ID
		return err
	})
	return ids
}

// close shuts doors.
func (r *rig) close(c *control.Client, ids []string) {
	r.t.Helper()
	r.each(len(ids), func(i int) error {
		_, err := c.Close(r.t.Context(), control.CloseRequest{ID: ids[i]})
		return err
	})
}

// A reload changes who is told, or keeps all as it is and says why. What waits is kept.
func TestSinksAreReloaded(t *testing.T) {
	r := newRig(t, services)
	p := newPage(r)
	r.start()
	r.must("open", "web", "--from", "198.51.100.1")
	r.configure(services + p.hook(`events = ["opened"]`))
	r.must("reload")
	r.must("open", "web", "--from", "198.51.100.2")
	r.eventually("the first arrives", func() bool { return p.count(event.Opened) == 1 })

	for _, tt := range []struct{ name, config, want string }{
		{"bad secret", strings.Replace(p.hook(""), "whsec_", "hunter2", 1), "begins with whsec_"},
		{"no secret file", strings.Replace(p.hook(""), "secret = \"whsec_", "secret_file = \"", 1), "no such file"},
		{"no certificate", strings.Replace(p.hook(""), "page.pem", "router.key", 1), "holds no certificate"},
		{"no program", p.hook("") + "[exec.x]\ncommand = [\"/nothing/here\"]\n", "no such file"},
	} {
		r.configure(services + tt.config)
		_, errs, code := r.spad("reload")
		if code != 2 || !strings.Contains(errs, tt.want) || strings.Contains(errs, "whsec_MfKQ") || strings.Contains(errs, "4711") {
			t.Errorf("%s: exit code %d, %s", tt.name, code, errs)
		}
		if _, errs, code := r.spad("check"); code != 2 || !strings.Contains(errs, tt.want) {
			t.Errorf("check of %s: exit code %d, %s", tt.name, code, errs)
		}
	}
	r.must("open", "web", "--from", "198.51.100.3")
	r.eventually("the old one goes on", func() bool { return p.count(event.Opened) == 2 })

	p.answer(http.StatusServiceUnavailable)
	r.must("open", "web", "--from", "198.51.100.4")
	r.configure(services)
	r.must("reload") // gone, with one that waits
	p.answer(http.StatusOK)
	r.must("open", "web", "--from", "198.51.100.5")
	r.configure(services + p.hook(`events = ["closed"]`))
	r.must("reload")
	r.eventually("what waited arrives", func() bool { return p.count(event.Opened) == 3 })
	r.must("close", "--all")
	r.eventually("all are closed", func() bool { return p.count(event.Closed) == 5 })

	p.answer(http.StatusGone)
	r.must("open", "web", "--from", "198.51.100.6")
	r.must("close", "--all")
	r.eventually("spad knows", func() bool { return strings.Contains(r.log.String(), "(410)") })
	p.answer(http.StatusOK)
	r.must("reload") // asks again, though nothing has changed
	r.eventually("the last arrives", func() bool { return p.count(event.Closed) == 6 })
	if p.count(event.Opened) != 3 || strings.Contains(r.log.String(), "4711") || strings.Contains(r.log.String(), "whsec_MfKQ") {
		t.Errorf("%d opened, or the log tells a secret:\n%s", p.count(event.Opened), r.log)
	}
}

// A trial that nobody confirms is reverted, also if the old configuration's webhook lacks its secret meanwhile.
func TestRevertNeedsNoWebhook(t *testing.T) {
	r := newRig(t, services)
	p := newPage(r)
	secret := filepath.Join(r.dir, "page.secret")
	if err := os.WriteFile(secret, []byte(webhookSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(p.hook(""), fmt.Sprintf("secret = %q", webhookSecret), `secret_file = "page.secret"`, 1)
	r.configure(services + old)
	r.start()
	web, _, _ := strings.Cut(services, "[service.nas]")
	r.configure(web)
	r.must("reload", "--trial", "2s")
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := r.spad("open", "nas", "--from", "198.51.100.1"); code == 0 {
		t.Fatalf("the trial has changed nothing: %s", errs)
	}
	r.eventually("the old configuration is in force again", func() bool {
		_, _, code := r.spad("open", "nas", "--from", "198.51.100.1")
		return code == 0
	})
	if !strings.Contains(r.log.String(), "who is told of events stays as on trial") {
		t.Errorf("the log does not say so:\n%s", r.log)
	}
}

var (
	helpLine   = regexp.MustCompile(`^# HELP (spad_[a-z_]+) [A-Z].*\.$`)
	typeLine   = regexp.MustCompile(`^# TYPE (spad_[a-z_]+) (counter|gauge)$`)
	sampleLine = regexp.MustCompile(`^(spad_[a-z_]+)(\{([a-z]+="[^"\\]*",?)+\})? ([0-9]+)$`)
)

// The text is what a collector reads: each family in one piece, with help and type, each sample once, counters named so.
func TestMetrics(t *testing.T) {
	r := newRig(t, services)
	p := newPage(r)
	r.configure(services + p.hook("") + "[exec.true]\ncommand = [\"/bin/true\"]\n")
	r.start()
	r.enrol(r.Laptop, "web")
	r.expectKnock(r.Laptop, 0, "web", "-4")
	r.expectKnock(r.Laptop, 4, "nas", "-4")
	var text string
	r.eventually("all is delivered", func() bool {
		text = r.must("status", "--metrics")
		return strings.Contains(text, `spad_webhook_delivered_total{webhook="page"} 5`)
	})
	family, kinds, seen := "", map[string]string{}, map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := helpLine.FindStringSubmatch(line); m != nil && kinds[m[1]] == "" {
			family = m[1]
		} else if m := typeLine.FindStringSubmatch(line); m != nil && m[1] == family && kinds[family] == "" {
			kinds[family] = m[2]
		} else if m := sampleLine.FindStringSubmatch(line); m != nil && m[1] == family && kinds[family] != "" && seen[m[1]+m[2]] == "" {
			seen[m[1]+m[2]] = m[4]
		} else {
			t.Errorf("a collector stumbles over %q", line)
		}
	}
	for name, kind := range kinds {
		if strings.HasSuffix(name, "_total") != (kind == "counter") {
			t.Errorf("%s is a %s", name, kind)
		}
	}
	for sample, want := range map[string]string{
		"spad_sessions": "1", "spad_devices": "1", "spad_services": "2", "spad_knocks_denied_total": "1",
		`spad_events_total{kind="opened"}`: "1", `spad_events_total{kind="knock_refused"}`: "1",
		`spad_events_total{kind="moved"}`: "0", `spad_packets_refused_total{reason="gate"}`: "0",
		`spad_webhook_up{webhook="page"}`: "1", `spad_webhook_lost_events_total{webhook="page"}`: "0",
		`spad_webhook_delivered_total{webhook="page"}`: "5", `spad_exec_failed_total{exec="true"}`: "0",
	} {
		if seen[sample] != want {
			t.Errorf("%s is %q, want %s", sample, seen[sample], want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
