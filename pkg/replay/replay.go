// Package replay remembers which packets were already used, so that each opens at
// most once, ever: also from another address, also after a crash, also when the
// router has lost its clock.
//
// It has three parts. The rule (window.go) is pure: what one device has spent, and
// what that makes of one more time. The knock clock (clock.go) is the router's idea
// of now: it starts at the later of the system clock and what was last saved, runs
// with the monotonic clock, never steps back, and steps forward with the system.
// The journal (record.go, load.go, disk.go) keeps both on disk.
//
// # The journal file
//
// Blocks of 64 bytes, each with a CRC-32C of its own, only ever appended:
//
//	offset size  header              offset size  record
//	   0    16   "spad replay log\n"    0     1   kind
//	  16     4   version, = 1           1     3   zero
//	  20    40   zero                   4    32   the device's public key, or zero
//	  60     4   CRC-32C                36     6   time; for a device record its start floor
//	                                    42     6   the device's floor
//	                                    48     6   the knock clock
//	                                    54     6   the knock clock to be saved
//	                                    60     4   CRC-32C
//
// Integers are big-endian, times are milliseconds since 1970-01-01 UTC. The header's
// layout is the same in every version. Floors, start floors and the saved clock only
// rise, so a record read twice does no harm.
//
// A record is written and fdatasync'ed before its time is answered, so cutting the
// file at the end of what was answered loses nothing. The first block that is not
// whole, and all after it, is not trusted. At open, when the file has outgrown its
// bound and after a failed write the file is replaced, atomically, by a snapshot of
// the memory; a half record thus never stands before a whole one. A record of kind
// clean ends the file of a router that was stopped in good order. Without it the keys
// known at the next start get a start floor: see [Options].
package replay

import "time"

// Verdict is what the journal makes of one packet's time.
type Verdict uint8

const (
	// Refused is the zero verdict: the time is spent already, or at or below the
	// device's floor. It gets silence.
	Refused Verdict = iota
	// ClockOff means that the time is outside the window, or not above the start floor.
	// It is spent, so that this packet never opens, and answered `clock off`.
	ClockOff
	// Fresh means that the time was not spent before and now is.
	Fresh
)

// String returns the verdict in words, for tests and logs.
func (v Verdict) String() string {
	switch v {
	case ClockOff:
		return "clock off"
	case Fresh:
		return "fresh"
	default:
		return "refused"
	}
}

// DefaultWindow is how far a packet's time may be from the knock clock, either way.
const DefaultWindow = 60 * time.Second

// maxMS is the largest time that fits the six bytes that packets and records have for it.
const maxMS = 1<<48 - 1
