// Package remote knows who may control the router from another machine, and how the two find each other again: TLS 1.3
// with both sides' keys pinned. It speaks no HTTP; package control does that on top.
//
// There is no authority and there are no names. Each end is the SHA-256 of its key, [keys.RemotePin], and a certificate
// is only what TLS carries a key in. How the pins get to where they are needed:
//
//	router:  spad remote add web      a one-time token; prints a line of address, the router's pin, token
//	machine: spad remote join LINE    makes its key; TLS to the address, where only the pinned router is spoken to;
//	                                  the token's id goes into the ClientHello, the proof of its secret into the request
//	router:                           proof right: the machine's pin is in the state, the token is used up
//
// The proof is an HMAC over the channel binding of RFC 9266, so that it is worth nothing on another connection, and the
// secret is never sent. A certificate that is not pinned ends the handshake, unless the ClientHello has the id of a
// token that is open: a stranger gets no further than to the router's certificate, which TLS 1.3 shows everybody.
package remote

import (
	"errors"
	"slices"
	"time"

	"spad/keys"
)

// Rights are what a remote may do. Whatever it does, it does to the services that Allow grants, and to no other.
type Rights struct {
	Allow         []string // services, and groups as group:NAME
	ReadOnly      bool     // look, and change nothing
	NameAddresses bool     // say which address a door is for; else it is the one that the remote connects from
	Manage        bool     // invite, add and remove devices that have no other rights than Allow
}

// Remote is a machine that may control the router.
type Remote struct {
	Name string
	Pin  keys.RemotePin // zero until it has joined
	Rights
	Added     time.Time
	ExpiresMS int64 // of its line, milliseconds since 1970; looked at until it has joined

	token keys.Token
	gone  chan struct{}
}

// Joined reports whether the remote has used its line.
func (r Remote) Joined() bool { return !r.Pin.IsZero() }

// Gone is closed when the remote has been removed.
func (r Remote) Gone() <-chan struct{} { return r.gone }

// Grants reports whether all of some rights are among the remote's own, word for word: a group may have conditions that
// its services alone have not.
func (r Rights) Grants(allow []string) bool {
	return !slices.ContainsFunc(allow, func(right string) bool { return !slices.Contains(r.Allow, right) })
}

// Errors that callers tell apart.
var (
	// ErrExists means that a name is taken.
	ErrExists = errors.New("exists already")
	// ErrUnknown means that there is no such remote.
	ErrUnknown = errors.New("no such remote")
	// ErrFull means that there are too many remotes.
	ErrFull = errors.New("too many remotes")
	// ErrRefused means that a line does not let this machine join: it was used by another, has expired, or never was.
	ErrRefused = errors.New("the line was used already, has expired, or was never this router's; make a new one there with: spad remote add")
)
