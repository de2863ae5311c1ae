package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"spad/pkg/device"
)

// handler maps requests to the daemon's methods.
type handler struct {
	*Server
	mux      http.ServeMux
	stopping <-chan struct{}
	watchers atomic.Int32
}

// call is one operation: what it returns is the answer's JSON; nil is an answer without a body.
type call func(ctx context.Context, r *http.Request, body []byte) (any, error)

func newHandler(s *Server, stopping <-chan struct{}) http.Handler {
	h := &handler{Server: s, stopping: stopping}
	allowed := map[string][]string{}
	calls := h.calls()
	h.addRemoteCalls(calls)
	for pattern, f := range calls {
		method, path, _ := strings.Cut(pattern, " ")
		allowed[path] = append(allowed[path], method)
		h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, f) })
	}
	h.mux.HandleFunc("GET /v1/events", h.watch)
	allowed["/v1/events"] = []string{http.MethodGet}
	if h.Why != nil {
		h.mux.HandleFunc("GET /v1/why", h.why)
		allowed["/v1/why"] = []string{http.MethodGet}
	}
	for path, methods := range allowed {
		h.mux.HandleFunc(path, wrongMethod(methods))
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "no such operation: the command and the daemon are of different versions, restart spad")
	})
	if s.Access != nil {
		return gate{h}
	}
	return &h.mux
}

// calls is the table of the package comment; events, which stream, and why, which has a query, stand apart.
func (h *handler) calls() map[string]call {
	return map[string]call{
		"GET /v1/status":            bare(func(ctx context.Context) (any, error) { return h.Daemon.Status(ctx) }),
		"POST /v1/reload":           h.reload,
		"POST /v1/confirm":          bare(func(ctx context.Context) (any, error) { return nil, h.Daemon.Confirm(ctx) }),
		"POST /v1/stop":             bare(func(ctx context.Context) (any, error) { return nil, h.Daemon.Stop(ctx) }),
		"GET /v1/sessions":          bare(func(ctx context.Context) (any, error) { return list(h.Sessions.Sessions(ctx)) }),
		"POST /v1/open":             with(h.open),
		"POST /v1/close":            with(h.shut),
		"GET /v1/devices":           bare(func(ctx context.Context) (any, error) { return list(h.Devices.Devices(ctx)) }),
		"POST /v1/devices":          with(h.addDevice),
		"DELETE /v1/devices/{name}": h.removeDevice,
		"POST /v1/invites":          with(h.invite),
		"GET /v1/metrics":           bare(h.metrics),
	}
}

func (h *handler) open(ctx context.Context, b openBody) (any, error) {
	ttl, err := duration("ttl", b.TTL)
	if !b.From.IsValid() {
		_, b.From = CallerOf(ctx) // root has no address
	}
	switch {
	case err != nil:
		return nil, err
	case b.Service == "":
		return nil, &UsageError{"open wants a service"}
	case !b.From.IsValid():
		return nil, &UsageError{"open wants an address: --from ADDR"}
	}
	return h.Sessions.Open(ctx, OpenRequest{Service: b.Service, From: b.From.Unmap(), TTL: ttl})
}

func (h *handler) shut(ctx context.Context, r CloseRequest) (any, error) {
	if err := r.oneOf(); err != nil {
		return nil, err
	}
	return list(h.Sessions.Close(ctx, r))
}

func (h *handler) addDevice(ctx context.Context, d Device) (any, error) {
	if d.Name == "" || d.Key == "" {
		return nil, &UsageError{"a device wants a name and a key"}
	}
	return nil, h.Devices.AddDevice(ctx, d)
}

func (h *handler) removeDevice(ctx context.Context, r *http.Request, body []byte) (any, error) {
	if len(body) > 0 {
		return nil, errBody
	}
	return h.Devices.RemoveDevice(ctx, r.PathValue("name"))
}

func (h *handler) invite(ctx context.Context, b inviteBody) (any, error) {
	ttl, err := duration("expiry", b.TTL)
	switch {
	case err != nil:
		return nil, err
	case b.Name == "":
		return nil, &UsageError{"an invite wants a name for the device"}
	}
	return h.Devices.Invite(ctx, InviteRequest{Name: b.Name, Allow: b.Allow, TTL: ttl})
}

// list is an answer that is written one item after the other: the JSON of 100,000 sessions takes 20 MB, which nobody need
// hold. An empty one is [] rather than null.
func list[T any](items []T, err error) (any, error) {
	return body(func(w io.Writer) error {
		out := bufio.NewWriter(w)
		e := json.NewEncoder(out)
		sep := "["
		for _, item := range items {
			out.WriteString(sep)
			if err := e.Encode(item); err != nil {
				return err
			}
			sep = ","
		}
		if len(items) == 0 {
			out.WriteString(sep)
		}
		out.WriteString("]\n")
		return out.Flush()
	}), err
}

// body writes the JSON of an answer.
type body func(io.Writer) error

var errBody = &UsageError{"this operation takes no body"}

// bare is an operation whose request has no body.
func bare(f func(context.Context) (any, error)) call {
	return func(ctx context.Context, _ *http.Request, body []byte) (any, error) {
		if len(body) > 0 {
			return nil, errBody
		}
		return f(ctx)
	}
}

// with is an operation whose request has a T as its body.
func with[T any](f func(context.Context, T) (any, error)) call {
	return func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return nil, &httpError{http.StatusUnsupportedMediaType, "the request body must be application/json"}
		}
		v, err := decode[T](body)
		if err != nil {
			return nil, err
		}
		return f(ctx, v)
	}
}

// decode reads one JSON object strictly: a key nobody knows is a mistake of the sender that would go unnoticed.
func decode[T any](body []byte) (v T, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	switch err := d.Decode(&v); {
	case errors.Is(err, io.EOF):
		return v, &UsageError{"the request has no body"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return v, &UsageError{"the request body is cut short"}
	case err != nil:
		return v, &UsageError{fmt.Sprintf("reading the request body: %v", err)}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, &UsageError{"the request body goes on after its end"}
	}
	return v, nil
}

// serve reads the whole body, makes the call and writes the answer. The read deadline must be gone before the call: it
// would end the context of one that takes long.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, f call) {
	body, err := readBody(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		fail(w, err)
		return
	}
	v, err := f(r.Context(), r, body)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, v)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLong := &httpError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request body is longer than %d bytes", maxBody)}
	if r.URL.RawQuery != "" {
		return nil, &UsageError{"this operation takes no query"}
	}
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // or the server would read on for a while
		return nil, tooLong
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if m := (*http.MaxBytesError)(nil); errors.As(err, &m) {
		return nil, tooLong
	}
	if err != nil {
		return nil, &UsageError{"the request body is cut short"}
	}
	return body, nil
}

func wrongMethod(methods []string) http.HandlerFunc {
	allow := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allow)
		refuse(w, http.StatusMethodNotAllowed, "wrong method, this takes "+allow)
	}
}

// httpError is a refusal with a status of its own.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

// fail answers with the error's own text and the status that tells the client its class.
func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var usage *UsageError
	var own *httpError
	switch {
	case errors.As(err, &own):
		code = own.code
	case errors.As(err, &usage), errors.Is(err, device.ErrInvalid):
		code = http.StatusBadRequest
	case errors.Is(err, ErrDenied):
		code = http.StatusForbidden
	case errors.Is(err, ErrUnknown), errors.Is(err, device.ErrUnknown):
		code = http.StatusNotFound
	case errors.Is(err, ErrConflict), errors.Is(err, device.ErrExists):
		code = http.StatusConflict
	}
	refuse(w, code, err.Error())
}

func refuse(w http.ResponseWriter, code int, text string) { write(w, code, errorBody{text}) }

func answer(w http.ResponseWriter, v any) {
	if v == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	write(w, http.StatusOK, v)
}

func write(w http.ResponseWriter, code int, v any) {
	if write, ok := v.(body); ok {
		w.Header().Set("Content-Type", "application/json")
		if write(w) != nil {
			panic(http.ErrAbortHandler) // so that nobody takes the part for the whole
		}
		return
	}
	if text, ok := v.(metrics); ok {
		w.Header().Set("Content-Type", metricsType)
		w.Write(text)
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"the answer can't be written as json"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(b, '\n')) // a client that went away is not our problem
}
