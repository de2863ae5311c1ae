// Package session is the table of open doors: who asked, for what, from where, until when.
//
// A session is one service for one source of one device. The kernel holds one door for a service and a source, however
// many sessions (two devices behind one NAT address) stand behind it: a door lasts as long as its longest session, and
// closing one session never closes another's. One goroutine owns the table and talks to the firewall; one code path
// opens doors, whoever asks, and one closes them.
//
// Time is CLOCK_BOOTTIME, which neither jumps with the wall clock nor stops in suspend. The table is kept in a file so
// that the next start takes the doors over; after a reboot they are forgotten.
package session

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/netip"
	"time"
)

// Session is one open door of one device. Times are CLOCK_BOOTTIME.
type Session struct {
	ID        string        `json:"id"`
	Device    string        `json:"device,omitempty"` // empty: opened by an operator or a remote
	Key       string        `json:"key,omitempty"`    // id of the key that asked: under another key a device is another
	Service   string        `json:"service"`
	Source    netip.Prefix  `json:"source"`
	Delegated bool          `json:"delegated,omitempty"` // a delegate named the address
	Fixed     bool          `json:"fixed,omitempty"`     // the service does not roam: openings elsewhere stand beside it
	By        string        `json:"by"`                  // "knock", "operator" or "remote NAME"
	Since     time.Duration `json:"since"`
	Until     time.Duration `json:"until"`
	ChangedMS int64         `json:"changed"` // time of the packet that last changed it; 0 if no packet did

	at int // its place in the queue
}

// SourceText returns the source as people write it: a single address without its length.
func (s *Session) SourceText() string {
	if s.Source.IsSingleIP() {
		return s.Source.Addr().String()
	}
	return s.Source.String()
}

// Opening asks for a door.
type Opening struct {
	Device    string // empty: an operator or a remote
	Key       string // id of its key
	Service   string
	Source    netip.Prefix // masked to the service's prefix length
	TTL       time.Duration
	Delegated bool
	Fixed     bool   // the service does not roam: leave an opening that is elsewhere as it is
	By        string // "knock", "operator" or "remote NAME"
	TimeMS    int64  // the packet's time; 0: no packet
}

// How many sessions there can be, so that no device fills the memory. One takes 0.7 kB of the daemon's heap, and 100 bytes
// of the kernel. SECURITY.md names these numbers.
const (
	MaxSessions  = 1 << 17 // in all
	MaxOwn       = 1 << 12 // of one device, for addresses that it knocked from
	MaxDelegated = 100_000 // of one delegate, for addresses that it named; of one remote
)

// Errors of Open that a device brings about.
var (
	// ErrFull refuses a further session to who has as many as there can be.
	ErrFull = errors.New("too many doors are open")
	// ErrStale refuses a packet that is older than the one that last changed the opening.
	ErrStale = errors.New("a later knock has changed this opening")
	// ErrStopped says that the table's goroutine has ended.
	ErrStopped = errors.New("spad is stopping")
)

// owner is what a session is kept by: openings of one device for one service evict each other only within an address
// family; delegated ones, those of a service that does not roam, and an operator's only for the same source.
type owner struct {
	right
	v6     bool
	source netip.Prefix // zero if the opening moves with its device
}

// right is what a device has to one service. A device whose key was replaced is another.
type right struct{ device, key, service string }

func (s *Session) owner() owner {
	o := owner{right: right{s.Device, s.Key, s.Service}, v6: s.Source.Addr().Is6()}
	if s.Delegated || s.Fixed || s.Device == "" {
		o.source = s.Source
	}
	return o
}

// remote reports whether a remote opened it: no device, but somebody with a key.
func (s *Session) remote() bool { return s.Device == "" && s.Key != "" }

// place is what the kernel knows of a door.
type place struct {
	service string
	source  netip.Prefix
}

func (s *Session) place() place { return place{s.Service, s.Source} }

// newID returns 12 random hexadecimal digits.
func newID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Selection names the sessions that a close means. Empty fields match everything, but an empty selection nothing.
type Selection struct {
	ID      string
	Device  string
	Key     string
	Service string
	Source  netip.Prefix // only for this source
	Own     bool         // for whatever source, but of those that a delegate named an address for only Source's
	TimeMS  int64        // the packet's time: not those that a later one changed; 0: no packet
	All     bool
}

func (s Selection) matches(t *Session) bool {
	if s == (Selection{}) {
		return false
	}
	return (s.ID == "" || s.ID == t.ID) && (s.Device == "" || s.Device == t.Device) && (s.Key == "" || s.Key == t.Key) &&
		(s.Service == "" || s.Service == t.Service) && s.here(t)
}

func (s Selection) here(t *Session) bool {
	if s.Own {
		return !t.Delegated || s.Source == t.Source
	}
	return !s.Source.IsValid() || s.Source == t.Source
}
