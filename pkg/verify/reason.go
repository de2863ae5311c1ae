package verify

import (
	"errors"
	"fmt"

	"spad/pkg/wire"
)

// Reason names the check that a packet failed. It is a metric's label and a log's word, never sent to anyone.
type Reason string

// The reasons, in the order of the checks. Accepted is none.
const (
	Accepted      Reason = ""
	Length        Reason = "length"
	Gate          Reason = "gate"
	Budget        Reason = "budget"
	Repeated      Reason = "repeated"
	Key           Reason = "key"
	Box           Reason = "box"
	Format        Reason = "format"
	Device        Reason = "unknown device"
	Inactive      Reason = "device disabled or expired"
	Token         Reason = "unknown or expired invite"
	Signature     Reason = "signature"
	Replayed      Reason = "replayed"
	ClockOff      Reason = "clock off"
	JournalFailed Reason = "journal not writable"
	Mismatch      Reason = "address mismatch"
	BadAddress    Reason = "address not usable"
)

// Rejection is the error of Verify.
type Rejection struct {
	Reason Reason
	// Device is the name of the enrolled device, where one was found; else empty. Only from Replayed on is it proven.
	Device string
	// Answer is true if Packet's sender is authenticated and its time fresh to us, so that Status may be sent.
	Answer bool
	Status wire.Status
	Packet *wire.Packet
	// Err is the cause of JournalFailed.
	Err error
}

// Error names the reason and the cause.
func (r *Rejection) Error() string {
	if r.Err != nil {
		return fmt.Sprintf("knock refused: %s: %v", r.Reason, r.Err)
	}
	return fmt.Sprintf("knock refused: %s", r.Reason)
}

// Unwrap returns the cause of JournalFailed.
func (r *Rejection) Unwrap() error { return r.Err }

// classify maps the errors of wire.Opener.Open to reasons.
func classify(err error) Reason {
	switch {
	case errors.Is(err, wire.ErrKey):
		return Key
	case errors.Is(err, wire.ErrFormat):
		return Format
	default:
		return Box
	}
}
