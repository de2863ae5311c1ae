package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/keys"
	"spad/pkg/event"
	"spad/pkg/remote"
)

// The parts of the fake that a server need not have.

func someService() Service { return Service{Name: "ssh", TTL: 900, MaxTTL: 3600, IPv4: true, Port: 22} }

func someRemote() Remote {
	return Remote{Name: "web", Pin: "spad-remote-pin:x", Allow: []string{"ssh"}, NameAddresses: true, Added: noon, Expires: &noon}
}

func (f *fake) Services(ctx context.Context) ([]Service, error) {
	return []Service{someService()}, f.ask(ctx, "services")
}

func (f *fake) Knock(ctx context.Context, k KnockRequest) ([]byte, error) {
	return []byte("sealed"), f.ask(ctx, k)
}

func (f *fake) Remotes(ctx context.Context) ([]Remote, error) {
	return []Remote{someRemote()}, f.ask(ctx, "remotes")
}

func (f *fake) AddRemote(ctx context.Context, r RemoteRequest) (RemoteLine, error) {
	return RemoteLine{Name: r.Name, Line: "spad-remote1:x", Expires: noon}, f.ask(ctx, r)
}

func (f *fake) RemoveRemote(ctx context.Context, name string) (Remote, error) {
	return someRemote(), f.ask(ctx, "remove remote "+name)
}

// fakeAccess knows one machine, and lets it do what is not forbidden.
type fakeAccess struct {
	mu        sync.Mutex
	pin       keys.RemotePin
	forbidden []string
	entered   []string
	gone      chan struct{}
	shows     func(event.Event) bool
}

func (a *fakeAccess) Enter(_ context.Context, p Peer, route string) (Entry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entered = append(a.entered, route)
	if p.Pin != a.pin && route != "POST /v1/join" || slices.Contains(a.forbidden, route) {
		return Entry{}, Denied("not you")
	}
	return Entry{Caller: "web", Gone: a.gone, Shows: a.shows}, nil
}

func (a *fakeAccess) Join(_ context.Context, p Peer, proof []byte) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if string(proof) != string(remote.Proof(keys.TokenSecret{7}, p.Binding, routerKey.Pin(), p.Pin)) {
		return "", Denied("wrong proof")
	}
	a.pin = p.Pin
	return "web", nil
}

func (a *fakeAccess) known(p keys.RemotePin) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return p == a.pin
}

var (
	routerKey = keys.NewRemoteSecret([32]byte{1})
	webKey    = keys.NewRemoteSecret([32]byte{2})
	someToken = keys.Token{ID: keys.TokenID{5}, Secret: keys.TokenSecret{7}}
)

// fullServer is a fake's server with every part.
func (f *fake) fullServer(a *fakeAccess) *Server {
	s := f.server()
	s.Services, s.Knocks, s.Remotes = f, f, f
	if a != nil {
		s.Access = a
	}
	return s
}

// everyRoute lists what a server with every part can be asked.
func everyRoute() []string {
	h := &handler{Server: (&fake{}).fullServer(&fakeAccess{})}
	calls := h.calls()
	h.addRemoteCalls(calls)
	routes := []string{"GET /v1/events", "GET /v1/why"}
	for route := range calls {
		routes = append(routes, route)
	}
	slices.Sort(routes)
	return routes
}

// startTLS runs a full server on loopback over TLS, at which webKey is known.
func startTLS(t *testing.T) (*fake, *fakeAccess, *Server, remote.Router) {
	t.Helper()
	nothingLeft(t)
	f, a := &fake{listed: 2}, &fakeAccess{pin: webKey.Pin(), gone: make(chan struct{})}
	s := f.fullServer(a)
	config, err := remote.ServerConfig(routerKey, a.known, func(id keys.TokenID) bool { return id.Equal(someToken.ID) })
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = config
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f, a, s, remote.Router{Addr: l.Addr().String(), Pin: routerKey.Pin(), Secret: webKey, Joined: true}
}

func remoteOf(t *testing.T, r remote.Router) *Client {
	t.Helper()
	c, err := NewRemoteClient(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOverTLS(t *testing.T) {
	f, a, _, r := startTLS(t)
	c := remoteOf(t, r)
	here := netip.MustParseAddr("127.0.0.1")
	if s, err := c.Services(t.Context()); err != nil || len(s) != 1 || s[0] != someService() {
		t.Errorf("services: %+v, %v", s, err)
	}
	if _, err := c.Open(t.Context(), OpenRequest{Service: "ssh"}); err != nil {
		t.Errorf("open for oneself: %v", err)
	}
	if sealed, err := c.Knock(t.Context(), KnockRequest{Packet: []byte("p")}); err != nil || string(sealed) != "sealed" {
		t.Errorf("knock: %q, %v", sealed, err)
	}
	want := []any{"services", OpenRequest{Service: "ssh", From: here}, KnockRequest{Packet: []byte("p"), From: here}}
	if diff := cmp.Diff(want, f.calls(), compareAddr); diff != "" {
		t.Errorf("what the daemon was asked (-want +got):\n%s", diff)
	}
	a.forbidden = []string{"GET /v1/status"}
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrDenied) || err.Error() != "not you" {
		t.Errorf("a forbidden operation: %v", err)
	}
	if n := len(f.calls()); n != 3 {
		t.Errorf("it came through: %v", f.calls())
	}
}

// Whoever is not pinned gets no further than the handshake, and hears why in words.
func TestStrangersOverTLS(t *testing.T) {
	f, a, _, r := startTLS(t)
	for name, tt := range map[string]struct {
		change func(*remote.Router)
		says   string
	}{
		"another machine": {func(r *remote.Router) { r.Secret = keys.NewRemoteSecret([32]byte{9}) }, "does not take this machine's key"},
		"another router":  {func(r *remote.Router) { r.Pin = webKey.Pin() }, "is not the router that was joined"},
		"nobody there":    {func(r *remote.Router) { r.Addr = "127.0.0.1:1" }, "is spad running there"},
	} {
		changed := r
		tt.change(&changed)
		if _, err := remoteOf(t, changed).Status(t.Context()); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Joined = false
	if _, err := NewRemoteClient(r); err == nil {
		t.Error("a router that was never joined is used")
	}
	if len(a.entered) != 0 || len(f.calls()) != 0 {
		t.Errorf("requests came in: %v %v", a.entered, f.calls())
	}
}

func TestJoinOverTLS(t *testing.T) {
	f, a, _, r := startTLS(t)
	r.Secret, r.Joined = keys.NewRemoteSecret([32]byte{3}), false
	for name, token := range map[string]keys.Token{
		"another line":   {ID: keys.TokenID{6}, Secret: someToken.Secret},
		"another secret": {ID: someToken.ID, Secret: keys.TokenSecret{8}},
	} {
		if _, err := Join(t.Context(), r, token); err == nil {
			t.Errorf("%s lets in", name)
		}
	}
	other := r
	other.Pin = webKey.Pin()
	if _, err := Join(t.Context(), other, someToken); !errors.Is(err, remote.ErrWrongRouter) {
		t.Errorf("another router: %v", err)
	}
	if a.known(r.Secret.Pin()) {
		t.Fatal("it has joined")
	}
	if name, err := Join(t.Context(), r, someToken); err != nil || name != "web" {
		t.Fatalf("%q, %v", name, err)
	}
	r.Joined = true
	if _, err := remoteOf(t, r).Status(t.Context()); err != nil || len(f.calls()) != 1 {
		t.Errorf("afterwards: %v", err)
	}
	// With a line in the hand a stranger can do nothing but join.
	config, err := remote.ClientConfig(keys.NewRemoteSecret([32]byte{4}), r.Pin, &someToken.ID)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialTLS(t.Context(), r.Addr, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
	if code, text := readAnswer(t, conn); code != http.StatusForbidden {
		t.Errorf("%d %s", code, text)
	}
}

// Events are those that the caller may see, and end as a broken stream when it loses its rights.
func TestEventsOverTLS(t *testing.T) {
	_, a, s, r := startTLS(t)
	a.shows = func(e event.Event) bool { return e.Service == "ssh" }
	seen := make(chan event.Event, 100)
	done := make(chan error, 1)
	go func() {
		done <- remoteOf(t, r).Events(t.Context(), func(e event.Event) error {
			select {
			case seen <- e:
			default:
			}
			return nil
		})
	}()
	for first := true; first; {
		select {
		case e := <-seen:
			if e.Service != "ssh" {
				t.Errorf("seen: %+v", e)
			}
			first = false
		default:
			s.Events.Publish(event.Event{Kind: event.Opened, Service: "nas"})
			s.Events.Publish(event.Event{Kind: event.Opened, Service: "ssh"})
		}
	}
	close(a.gone)
	if err := <-done; err == nil {
		t.Error("the end looks as if the daemon had stopped")
	}
}

// One source, which may be a stranger, can't take every place.
func TestFairness(t *testing.T) {
	f := newFair(nil)
	one, same, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.1")
	for range maxPerSource {
		if !f.take(source(one)) {
			t.Fatal("refused too early")
		}
	}
	if f.take(source(same)) {
		t.Error("the same /64 gets one more")
	}
	if !f.take(source(other)) || !f.take(source(netip.MustParseAddr("::ffff:192.0.2.1"))) || f.open[other] != 2 {
		t.Error("another source gets none")
	}
	f.give(source(same))
	if !f.take(source(one)) {
		t.Error("a place that was given back is gone")
	}
	for range 2 {
		f.give(other)
	}
	if len(f.open) != 1 {
		t.Errorf("the table keeps %v", f.open)
	}
}

// rawClient makes any request.
func rawClient(t *testing.T, r remote.Router) *http.Client {
	t.Helper()
	config, err := remote.ClientConfig(r.Secret, r.Pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return dialTLS(ctx, r.Addr, config) },
	}, Timeout: time.Minute}
}

// The description is held against the server both ways: every route is in it, and every path of it is one; each request
// that it describes is taken, and each answer has what it says, and no more.
func TestDescriptionIsTrue(t *testing.T) {
	f, _, s, r := startTLS(t)
	http1 := rawClient(t, r)
	var d described
	get(t, http1, "/v1/openapi.json", &d)
	if !strings.HasPrefix(d.OpenAPI, "3.1.") {
		t.Errorf("OpenAPI %q", d.OpenAPI)
	}
	var routes []string
	for path, methods := range d.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(routes)
	if diff := cmp.Diff(everyRoute(), routes); diff != "" {
		t.Errorf("routes (-server +description):\n%s", diff)
	}
	for path, methods := range d.Paths {
		for method, o := range methods {
			t.Run(method+" "+path, func(t *testing.T) { d.walk(t, f, s, http1, method, path, o) })
		}
	}
}

// requests are bodies with every key that there is.
var requests = map[string]string{
	"OpenRequest":   `{"service":"ssh","from":"192.0.2.1","ttl":5}`,
	"CloseRequest":  `{"service":"ssh"}`,
	"KnockRequest":  `{"packet":"AAAA","from":"192.0.2.1"}`,
	"Device":        `{"name":"a","key":"k","allow":["ssh"],"expires":"2026-01-01T00:00:00Z","disabled":true,"delegate":true,"enrolled":"2026-01-01T00:00:00Z","origin":"x"}`,
	"InviteRequest": `{"name":"a","allow":["ssh"],"ttl":5}`,
	"RemoteRequest": `{"name":"a","allow":["ssh"],"read_only":true,"name_addresses":true,"manage":true,"address":"a:1","ttl":5}`,
	"JoinRequest":   `{"proof":"AAAA"}`,
	"ReloadRequest": `{"ssh":"192.0.2.1 5 192.0.2.2 22","allow_lockout":true,"trial":5}`,
}

func (d *described) walk(t *testing.T, f *fake, s *Server, c *http.Client, method, path string, o operation) {
	var body io.Reader
	name := strings.TrimPrefix(o.RequestBody.Content["application/json"].Schema.Ref, "#/components/schemas/")
	if name != "" {
		text, ok := requests[name]
		if !ok {
			t.Fatalf("the test has no %s", name)
		}
		var given map[string]any
		if err := json.Unmarshal([]byte(text), &given); err != nil {
			t.Fatal(err)
		}
		for key := range d.Components.Schemas[name].Properties {
			if _, ok := given[key]; !ok && name != "CloseRequest" {
				t.Errorf("the test's %s lacks %q", name, key)
			}
		}
		d.check(t, schema{Ref: "#/components/schemas/" + name}, given, name)
		body = strings.NewReader(text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	at := "https://spad" + strings.ReplaceAll(path, "{name}", "a")
	if path == "/v1/why" {
		at += "?device=a"
	}
	q, err := http.NewRequestWithContext(ctx, strings.ToUpper(method), at, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	a, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if path == "/v1/join" { // its proof is made for each connection; TestJoinOverTLS makes one
		if a.StatusCode != http.StatusForbidden {
			t.Errorf("status %d", a.StatusCode)
		}
		return
	}
	if want, ok := o.Responses["204"]; ok {
		if a.StatusCode != http.StatusNoContent {
			t.Errorf("status %d, want 204 (%+v)", a.StatusCode, want)
		}
		return
	}
	if path == "/v1/events" {
		s.Events.Publish(event.Event{
			Kind: event.Opened, Device: "d", Remote: "r", Service: "s", Session: "i", Source: "a", From: "b", Reason: "c", By: "o",
			TTL: time.Second, Until: noon, Lost: 1,
		})
	}
	kind := a.Header.Get("Content-Type")
	want, ok := o.Responses["200"].Content[kind]
	if a.StatusCode != http.StatusOK || !ok {
		t.Fatalf("status %d of kind %q", a.StatusCode, kind)
	}
	if want.Schema.Type == "string" {
		return // it is text
	}
	var got any
	if err := json.NewDecoder(a.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	d.check(t, want.Schema, got, "answer")
	if all, isList := got.([]any); isList && len(all) == 0 {
		t.Error("an empty list shows nothing")
	}
}

// described is what the test looks at of a description.
type (
	described struct {
		OpenAPI    string
		Paths      map[string]map[string]operation
		Components struct {
			Schemas   map[string]schema
			Responses map[string]answered
		}
	}
	operation struct {
		RequestBody answered
		Responses   map[string]answered
	}
	answered struct {
		Ref     string `json:"$ref"`
		Content map[string]struct{ Schema schema }
	}
	schema struct {
		Ref        string `json:"$ref"`
		Type       string
		Items      *schema
		Properties map[string]schema
		Required   []string
		Format     string
	}
)

func get(t *testing.T, c *http.Client, path string, into any) {
	t.Helper()
	a, err := c.Get("https://spad" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if err := json.NewDecoder(a.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

// check holds a value against a schema. Keys that the schema does not name are an error: the description would lack them.
func (d *described) check(t *testing.T, s schema, v any, at string) {
	t.Helper()
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		named, there := d.Components.Schemas[name]
		if !there {
			t.Errorf("%s: no schema %q", at, name)
		}
		s = named
	}
	ok := false
	switch v := v.(type) {
	case map[string]any:
		ok = s.Type == "object"
		for _, key := range s.Required {
			if _, there := v[key]; !there {
				t.Errorf("%s lacks %q", at, key)
			}
		}
		for key, inner := range v {
			if s.Properties == nil {
				break // any object
			}
			is, there := s.Properties[key]
			if !there {
				t.Errorf("%s has %q, which is not described", at, key)
				continue
			}
			d.check(t, is, inner, at+"."+key)
		}
	case []any:
		if ok = s.Type == "array" && s.Items != nil; ok {
			for _, item := range v {
				d.check(t, *s.Items, item, at+"[]")
			}
		}
	case string:
		ok = s.Type == "string"
		if _, err := time.Parse(time.RFC3339, v); s.Format == "date-time" && err != nil {
			t.Errorf("%s: %q is no time", at, v)
		}
	case float64:
		ok = s.Type == "number" || s.Type == "integer" && v == float64(int64(v)) || v >= 1<<60
	case bool:
		ok = s.Type == "boolean"
	}
	if !ok {
		t.Errorf("%s is %T, described as %q", at, v, s.Type)
	}
}

// Errors are as described too, over TLS as on the socket.
func TestDescribedErrors(t *testing.T) {
	f, _, _, r := startTLS(t)
	http1 := rawClient(t, r)
	for _, tt := range []struct {
		path string
		code int
		err  error
	}{
		{"/v1/status", 403, Denied("x")},
		{"/v1/status", 404, Unknown("x")},
		{"/v1/status", 409, Conflict("x")},
		{"/v1/status", 500, errors.New("x")},
		{"/v1/none", 404, nil},
	} {
		f.err = tt.err
		a, err := http1.Get("https://spad" + tt.path)
		if err != nil {
			t.Fatal(err)
		}
		var b map[string]string
		if err := json.NewDecoder(a.Body).Decode(&b); err != nil || a.StatusCode != tt.code || b["error"] == "" || len(b) != 1 {
			t.Errorf("%s: %d %v, want %d", tt.path, a.StatusCode, b, tt.code)
		}
		a.Body.Close()
	}
}
