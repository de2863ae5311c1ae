package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"spad/pkg/event"
)

// The longest a request may take if its context says nothing, and the longest answer.
const (
	clientTimeout = writeTimeout
	maxAnswer     = 64 << 20 // 100,000 sessions are about 20 MiB
)

// Client asks a running daemon, through its socket or, if that is elsewhere, over TLS. It keeps no connection open between requests and is safe for concurrent use.
//
// Its errors: ErrNotRunning, *UsageError, *RemoteError (which may be ErrUnknown or ErrConflict), the context's, or one
// that says what is wrong with the socket.
type Client struct {
	path   string // of the socket, or host:port
	base   string // of every URL
	remote bool
	http   http.Client
}

var (
	_ Sessions  = (*Client)(nil)
	_ Devices   = (*Client)(nil)
	_ Daemon    = (*Client)(nil)
	_ Explainer = (*Client)(nil)
	_ Services  = (*Client)(nil)
	_ Knocks    = (*Client)(nil)
	_ Remotes   = (*Client)(nil)
)

// NewClient returns a client of the daemon that listens on the unix socket at path. It does not connect yet.
func NewClient(path string) *Client {
	c := &Client{path: path, base: "http://spad"}
	c.http.Transport = &http.Transport{DialContext: c.dial, DisableKeepAlives: true, DisableCompression: true}
	return c
}

// notRunning is ErrNotRunning with the socket's path and the remedy.
type notRunning struct{ path string }

func (e notRunning) Error() string {
	return fmt.Sprintf("spad is not running (no daemon at %s); start it with: spad run", e.path)
}
func (e notRunning) Is(target error) bool { return target == ErrNotRunning }

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := checkPath(c.path); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, notRunning{c.path}
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission for %s: run this as root, or as the user that spad runs as", c.path)
	case errors.Is(err, syscall.EAGAIN):
		return nil, fmt.Errorf("too many requests wait at %s: try again", c.path)
	}
	return nil, err
}

// Status says how the daemon is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Stop asks the daemon to end.
func (c *Client) Stop(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/stop", nil, nil)
}

// Sessions lists the open doors.
func (c *Client) Sessions(ctx context.Context) (s []Session, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/sessions", nil, &s)
	return s, err
}

// Open opens a door for an address.
func (c *Client) Open(ctx context.Context, r OpenRequest) (s Session, err error) {
	ttl, err := seconds("ttl", r.TTL)
	if err != nil {
		return s, err
	}
	err = c.do(ctx, http.MethodPost, "/v1/open", openBody{Service: r.Service, From: r.From, TTL: ttl}, &s)
	return s, err
}

// Close shuts doors and returns them.
func (c *Client) Close(ctx context.Context, r CloseRequest) (s []Session, err error) {
	if err := r.oneOf(); err != nil {
		return nil, err
	}
	err = c.do(ctx, http.MethodPost, "/v1/close", r, &s)
	return s, err
}

// Devices lists the devices.
func (c *Client) Devices(ctx context.Context) (d []Device, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/devices", nil, &d)
	return d, err
}

// AddDevice enrols a device by its key.
func (c *Client) AddDevice(ctx context.Context, d Device) error {
	return c.do(ctx, http.MethodPost, "/v1/devices", d, nil)
}

// RemoveDevice forgets a device and returns what it was.
func (c *Client) RemoveDevice(ctx context.Context, name string) (d Device, err error) {
	if name == "" || name == "." || name == ".." { // would be another path
		return d, &UsageError{"no device can have that name"}
	}
	err = c.do(ctx, http.MethodDelete, "/v1/devices/"+url.PathEscape(name), nil, &d)
	return d, err
}

// Invite makes a one-time invite.
func (c *Client) Invite(ctx context.Context, r InviteRequest) (i Invite, err error) {
	ttl, err := seconds("expiry", r.TTL)
	if err != nil {
		return i, err
	}
	err = c.do(ctx, http.MethodPost, "/v1/invites", inviteBody{Name: r.Name, Allow: r.Allow, TTL: ttl}, &i)
	return i, err
}

// Events calls f with each event from now on. It returns nil when the daemon stops, the context's error when ctx ends,
// f's error when that is not nil, or why the stream broke.
func (c *Client) Events(ctx context.Context, f func(event.Event) error) error {
	r, err := c.send(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	d := json.NewDecoder(r.Body)
	for {
		var e event.Event
		switch err := d.Decode(&e); {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("the daemon went away: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

// do sends one request and reads its answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	r, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}

// send returns the answer if it is a good one, whose body the caller closes.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	q, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	r, err := c.http.Do(q)
	if err != nil {
		return nil, c.plain(err)
	}
	if r.StatusCode/100 == 2 {
		return r, nil
	}
	defer r.Body.Close()
	return nil, remoteError(r)
}

// plain takes off what net/http puts around an error: method and URL say nothing to an operator.
func (c *Client) plain(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if c.remote {
		return c.plainRemote(err)
	}
	if hungUp(err) {
		return fmt.Errorf("the daemon at %s hung up; it stops just now, or it runs as another user than you: %w", c.path, err)
	}
	return err
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// remoteError reads what the daemon said.
func remoteError(r *http.Response) error {
	var b errorBody
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(&b)
	if kind != "application/json" || err != nil || b.Error == "" {
		b.Error = "the daemon answered " + r.Status
	}
	switch r.StatusCode {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return &UsageError{b.Error}
	}
	return &RemoteError{Code: r.StatusCode, Text: b.Error}
}
