// Package control is how a command on the router talks to the running daemon: HTTP with JSON bodies over a unix
// socket that only the daemon's user and root may open. Server and client stand side by side here, so that the two
// sides of each operation are read together.
//
//	method path                 body              answer
//	GET    /v1/status           -                 Status
//	GET    /v1/sessions         -                 [Session, …]
//	POST   /v1/open             OpenRequest       Session
//	POST   /v1/close            CloseRequest      [Session, …], those that were shut
//	GET    /v1/devices          -                 [Device, …]
//	POST   /v1/devices          Device            nothing (204)
//	DELETE /v1/devices/{name}   -                 Device, as it was
//	POST   /v1/invites          InviteRequest     Invite
//	POST   /v1/reload           ReloadRequest     nothing (204); the body may be left out
//	POST   /v1/confirm          -                 nothing (204)
//	POST   /v1/stop             -                 nothing (204)
//	GET    /v1/why              -                 Why; the query is device=NAME or address=ADDR
//	GET    /v1/metrics          -                 numbers for a collector, in the text format of Prometheus
//	GET    /v1/events           -                 event.Event, one per line, until the daemon stops
//	GET    /v1/services         -                 [Service, …]
//	POST   /v1/knock            KnockRequest      KnockAnswer
//	GET    /v1/remotes          -                 [Remote, …]
//	POST   /v1/remotes          RemoteRequest     RemoteLine
//	DELETE /v1/remotes/{name}   -                 Remote, as it was
//	POST   /v1/join             proof             name; by TLS only
//	GET    /v1/openapi.json     -                 all of this as an OpenAPI description
//
// The same operations can be had from elsewhere over TLS, by those whom [Access] knows and as far as it lets them; see
// package remote.
//
// Durations are whole seconds, times RFC 3339, addresses text. A request body has Content-Type application/json, at
// most 64 KiB, no unknown key and nothing after the value. Whatever goes wrong is answered as {"error": "text"}, where
// text is what the daemon said, word for word:
//
//	400, 405, 413, 415   the request is wrong         *UsageError
//	403                  a remote has no right to it  ErrDenied
//	404                  no such session, device …    ErrUnknown
//	409                  it is in the way             ErrConflict
//	500                  it failed                    *RemoteError
//	503                  too many watchers            *RemoteError
//
// At most 64 connections are served at once; further ones wait for a place, and one that sends no whole request within
// ten seconds loses it.
package control

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Sessions is what the daemon lets an operator do with open doors.
type Sessions interface {
	// Sessions lists the open doors.
	Sessions(ctx context.Context) ([]Session, error)
	// Open opens or renews a door for an address, as a knock would.
	Open(ctx context.Context, r OpenRequest) (Session, error)
	// Close shuts the doors that r names and returns them. An unknown id is ErrUnknown.
	Close(ctx context.Context, r CloseRequest) ([]Session, error)
}

// Devices is what the daemon lets an operator do with devices.
type Devices interface {
	// Devices lists the devices of the configuration and of the state.
	Devices(ctx context.Context) ([]Device, error)
	// AddDevice enrols a device whose key was carried by hand. A name or key that is taken is ErrConflict.
	AddDevice(ctx context.Context, d Device) error
	// RemoveDevice forgets the device, shuts its doors, and returns what it was. An unknown name is ErrUnknown.
	RemoveDevice(ctx context.Context, name string) (Device, error)
	// Invite makes a one-time invite. A name that is taken is ErrConflict.
	Invite(ctx context.Context, r InviteRequest) (Invite, error)
}

// Daemon is what an operator can ask of the daemon itself.
type Daemon interface {
	// Status says how it is.
	Status(ctx context.Context) (Status, error)
	// Reload takes a changed configuration over, or keeps the old one: then the error's text lists every problem.
	Reload(ctx context.Context, r ReloadRequest) error
	// Confirm keeps what is on trial: the run, or a reload.
	Confirm(ctx context.Context) error
	// Stop asks the daemon to end, and returns before it has.
	Stop(ctx context.Context) error
}

// Session is one open door.
type Session struct {
	ID      string    `json:"id"`
	Device  string    `json:"device,omitempty"` // empty if an operator opened it
	Service string    `json:"service"`
	Source  string    `json:"source"`       // address or prefix it is open for
	By      string    `json:"by,omitempty"` // who opened it: "knock", "operator", "remote NAME"
	Opened  time.Time `json:"opened"`
	Until   time.Time `json:"until"`
	TTLLeft int       `json:"ttl_left"` // seconds
}

// OpenRequest asks for a door. A TTL of zero is the service's own; it is a whole number of seconds.
type OpenRequest struct {
	Service string
	From    netip.Addr
	TTL     time.Duration
}

// CloseRequest names doors by exactly one of its fields.
type CloseRequest struct {
	ID      string `json:"id,omitempty"`
	Device  string `json:"device,omitempty"`
	Service string `json:"service,omitempty"`
	All     bool   `json:"all,omitempty"`
}

// Device is an enrolled device.
type Device struct {
	Name     string     `json:"name"`
	Key      string     `json:"key"`             // knock-device:…
	Allow    []string   `json:"allow,omitempty"` // services, and groups as group:NAME
	Expires  *time.Time `json:"expires,omitempty"`
	Disabled bool       `json:"disabled,omitempty"`
	Delegate bool       `json:"delegate,omitempty"`
	Enrolled *time.Time `json:"enrolled,omitempty"`
	Origin   string     `json:"origin,omitempty"` // "config" or "state"; not looked at in AddDevice
}

// InviteRequest asks for an invite. A TTL of zero is the default of 15 minutes; it is a whole number of seconds.
type InviteRequest struct {
	Name  string
	Allow []string
	TTL   time.Duration
}

// Invite is a fresh invite. Its line is a secret until it is used: it goes to the operator's terminal and nowhere else.
type Invite struct {
	Name    string    `json:"name"`
	Line    string    `json:"line"` // knock1:…
	Expires time.Time `json:"expires"`
}

// Status is how the daemon is.
type Status struct {
	Version    string            `json:"version"`
	Listen     string            `json:"listen"`
	Firewall   string            `json:"firewall"`
	Started    time.Time         `json:"started"`
	Uptime     int               `json:"uptime"` // seconds
	KnockClock time.Time         `json:"knock_clock"`
	Devices    int               `json:"devices"`
	Services   int               `json:"services"`
	Sessions   int               `json:"sessions"`
	Invites    int               `json:"invites"`         // open ones
	Trial      int               `json:"trial,omitempty"` // seconds until what is on trial is reverted; 0: nothing is
	Counters   map[string]uint64 `json:"counters,omitempty"`
}

// Errors that callers branch on. A daemon method returns ErrUnknown or ErrConflict, by [Unknown] and [Conflict] or
// wrapped, and may as well return package device's ErrUnknown, ErrExists and ErrInvalid (a *UsageError to the client).
var (
	ErrUnknown    = errors.New("not found")
	ErrConflict   = errors.New("already there")
	ErrDenied     = errors.New("not allowed")
	ErrInUse      = errors.New("the control socket is in use")
	ErrNotRunning = errors.New("spad is not running")
)

// UsageError says that the request itself is wrong: a command exits with 2.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

// RemoteError is a failure that the daemon reported, in its own words. It is ErrUnknown or ErrConflict where the
// daemon's was.
type RemoteError struct {
	Code int // HTTP status
	Text string
}

func (e *RemoteError) Error() string { return e.Text }

// Is makes errors.Is work across the socket.
func (e *RemoteError) Is(target error) bool {
	return target == ErrUnknown && e.Code == 404 || target == ErrConflict && e.Code == 409 || target == ErrDenied && e.Code == 403
}

// Unknown returns an error with exactly this text that is ErrUnknown.
func Unknown(text string) error { return &RemoteError{Code: 404, Text: text} }

// Conflict returns an error with exactly this text that is ErrConflict.
func Conflict(text string) error { return &RemoteError{Code: 409, Text: text} }

// Denied returns an error with exactly this text that is ErrDenied.
func Denied(text string) error { return &RemoteError{Code: 403, Text: text} }

// The request bodies that carry a duration, in seconds.
type (
	openBody struct {
		Service string     `json:"service"`
		From    netip.Addr `json:"from"`
		TTL     int64      `json:"ttl,omitempty"`
	}
	inviteBody struct {
		Name  string   `json:"name"`
		Allow []string `json:"allow"`
		TTL   int64    `json:"ttl,omitempty"`
	}
	errorBody struct {
		Error string `json:"error"`
	}
)

// oneOf says whether exactly one way to name doors is used.
func (r CloseRequest) oneOf() error {
	n := 0
	for _, set := range []bool{r.ID != "", r.Device != "", r.Service != "", r.All} {
		if set {
			n++
		}
	}
	if n != 1 {
		return &UsageError{"close wants exactly one of: an id, a device, a service, all"}
	}
	return nil
}

// seconds returns d as the protocol carries it. The limit is far above any time to live and far below overflow.
func seconds(what string, d time.Duration) (int64, error) {
	if d < 0 || d%time.Second != 0 {
		return 0, &UsageError{what + " must be a whole number of seconds, not " + d.String()}
	}
	return int64(d / time.Second), nil
}

// maxSeconds bounds durations read from the socket: a year.
const maxSeconds = 366 * 24 * 60 * 60

func duration(what string, s int64) (time.Duration, error) {
	if s < 0 || s > maxSeconds {
		return 0, &UsageError{what + " must be between 0 seconds and a year"}
	}
	return time.Duration(s) * time.Second, nil
}
