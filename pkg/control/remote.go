package control

import (
	"context"
	"net/netip"
	"time"

	"spad/keys"
	"spad/pkg/event"
)

// Services is what can be opened.
type Services interface {
	// Services lists the services, by name; to a remote those that it has a right to.
	Services(ctx context.Context) ([]Service, error)
}

// Knocks is the other way for a knock to come in than by UDP.
type Knocks interface {
	// Knock does with a packet what it would do had it come from that address by UDP. It returns the sealed answer, or
	// nothing where there would be silence.
	Knock(ctx context.Context, k KnockRequest) ([]byte, error)
}

// Remotes is what an operator can do about who controls the router from elsewhere. A remote itself can't.
type Remotes interface {
	// Remotes lists the remotes, and those that are expected.
	Remotes(ctx context.Context) ([]Remote, error)
	// AddRemote makes the line with which one machine joins, once. A name that is taken is ErrConflict.
	AddRemote(ctx context.Context, r RemoteRequest) (RemoteLine, error)
	// RemoveRemote forgets a remote, cuts its streams, and shuts the doors that it opened. An unknown name is ErrUnknown.
	RemoveRemote(ctx context.Context, name string) (Remote, error)
}

// Access decides on a server that others than root reach. It is asked before anything of a request is looked at.
type Access interface {
	// Enter says how a request goes on, or why it does not: with ErrDenied. The route is its entry in the table of
	// package control, such as "POST /v1/open"; any other text is no operation.
	Enter(ctx context.Context, p Peer, route string) (Entry, error)
	// Join makes p a remote if the proof is right, and returns what the router calls it.
	Join(ctx context.Context, p Peer, proof []byte) (string, error)
}

// Peer is the other end of a TLS connection.
type Peer struct {
	Pin     keys.RemotePin
	Addr    netip.Addr // unmapped, without a zone
	Binding []byte     // RFC 9266
}

// Entry is how a request that may go on does so. The zero value is that of the unix socket: root may do everything.
type Entry struct {
	Caller any                    // for the methods that are called: see [CallerOf]
	Gone   <-chan struct{}        // closed when the stream of events shall be cut
	Shows  func(event.Event) bool // which events are shown; nil: all
	peer   Peer
}

type entryKey struct{}

func entryOf(ctx context.Context) Entry {
	e, _ := ctx.Value(entryKey{}).(Entry)
	return e
}

// CallerOf returns what Access said of who makes the call that ctx belongs to, and where it comes from; nil is root.
func CallerOf(ctx context.Context) (any, netip.Addr) {
	e := entryOf(ctx)
	return e.Caller, e.peer.Addr
}

// gone reports whether the caller has lost its rights meanwhile.
func (e Entry) gone() bool {
	select {
	case <-e.Gone: // nil: never
		return true
	default:
		return false
	}
}

func (e Entry) shows(v event.Event) bool { return e.Shows == nil || e.Shows(v) }

// Service is something that can be opened.
type Service struct {
	Name   string `json:"name"`
	TTL    int    `json:"ttl"`            // seconds, for who does not say
	MaxTTL int    `json:"max_ttl"`        // seconds
	IPv4   bool   `json:"ipv4"`           // opens for IPv4 addresses
	IPv6   bool   `json:"ipv6"`           // opens for IPv6 addresses
	Port   uint16 `json:"port,omitempty"` // the public port, if there is exactly one
}

// KnockRequest is a sealed packet that somebody handed to the caller. Without an address it is the caller's own.
type KnockRequest struct {
	Packet []byte     `json:"packet"`
	From   netip.Addr `json:"from,omitzero"`
}

// KnockAnswer is what the router would have sent back; no answer is silence.
type KnockAnswer struct {
	Answer []byte `json:"answer,omitempty"`
}

// Remote is a machine that may control the router.
type Remote struct {
	Name          string     `json:"name"`
	Pin           string     `json:"pin,omitempty"` // spad-remote-pin:…, once it has joined
	Allow         []string   `json:"allow"`         // services, and groups as group:NAME
	ReadOnly      bool       `json:"read_only,omitempty"`
	NameAddresses bool       `json:"name_addresses,omitempty"`
	Manage        bool       `json:"manage,omitempty"`
	Added         time.Time  `json:"added"`
	Expires       *time.Time `json:"expires,omitempty"` // when its line dies, until it has joined
}

// RemoteRequest asks for a remote. A TTL of zero is the default of 15 minutes for the line, in whole seconds.
type RemoteRequest struct {
	Name          string
	Allow         []string
	ReadOnly      bool
	NameAddresses bool
	Manage        bool
	Addr          string // HOST or HOST:PORT that the other side connects to; empty: as configured
	TTL           time.Duration
}

// RemoteLine is what the other side joins with. It is a secret until it is used.
type RemoteLine struct {
	Name    string    `json:"name"`
	Line    string    `json:"line"` // spad-remote1:…
	Expires time.Time `json:"expires"`
}

// The bodies that have no type of their own.
type (
	remoteBody struct {
		Name          string   `json:"name"`
		Allow         []string `json:"allow"`
		ReadOnly      bool     `json:"read_only,omitempty"`
		NameAddresses bool     `json:"name_addresses,omitempty"`
		Manage        bool     `json:"manage,omitempty"`
		Addr          string   `json:"address,omitempty"`
		TTL           int64    `json:"ttl,omitempty"`
	}
	joinBody struct {
		Proof []byte `json:"proof"`
	}
	joinedBody struct {
		Name string `json:"name"`
	}
)
