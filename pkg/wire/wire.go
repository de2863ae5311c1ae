// Package wire is the knock packet, version 1: PROTOCOL.md at the root of the
// repository in code. It is pure: no sockets, no clock, and randomness is an argument.
//
// A packet, 160 bytes, always:
//
//	 0        8                               40                          144             160
//	+--------+-------------------------------+---------------------------+---------------+
//	|  gate  |              eph              |            box            |  end of box   |
//	+--------+-------------------------------+---------------------------+---------------+
//	 SipHash  E.pub XOR mask                  nacl/box, E to R: 16 tag + 104 message
//	 of the   mask = BLAKE2b(mask key;
//	 rest            end of box)
//
// The message, 104 bytes:
//
//	 0   1   2     4          12        18       24              40                    104
//	+---+---+-----+----------+---------+--------+---------------+---------------------+
//	|v|o|flg| ttl |  device  | service |  time  |    address    |      signature      |
//	+---+---+-----+----------+---------+--------+---------------+---------------------+
//	+---+---+----------+--------------------------------+---------------------+
//	|v|2|flg| token id |             D.pub              |      signature      |  enroll
//	+---+---+----------+--------------------------------+---------------------+
//	 0   1   2          8                                40                  104
//
// An answer, 96 bytes:
//
//	 0        8                        32              48                                 96
//	+--------+------------------------+---------------+----------------------------------+
//	|  gate  |         nonce          |      tag      |           48 sealed              |
//	+--------+------------------------+---------------+----------------------------------+
//
//	 0   1   2     4      6        12       18              34             48
//	+---+---+-----+------+--------+--------+---------------+--------------+
//	|v|s| 0 | ttl | port | router | packet |  seen address |      0       |
//	+---+---+-----+------+--------+--------+---------------+--------------+
//
// Integers are big-endian, but for the gate, which is little-endian as in SipHash's
// reference code. To anyone without the router's public key both are uniform random
// bytes. What opens has one spelling: sealing the decoded fields again gives the same
// bytes.
//
// A router calls [Opener.Gate] where the packet is read, [Opener.Open] when its
// budget allows public-key work, and [Packet.SignedBy] or [Packet.SignedWith] before it
// believes a field. The steps after these (time, address, policy) are not wire's.
package wire

import "errors"

const (
	// PacketSize is the length of a packet in bytes.
	PacketSize = 160
	// AnswerSize is the length of an answer in bytes: shorter than a packet, so a
	// router can't be used to amplify.
	AnswerSize = 96
)

// The classes of failure. None says more on purpose, and none of them is ever sent.
var (
	// ErrLength means that the datagram is not as long as a packet or an answer.
	ErrLength = errors.New("wrong length")
	// ErrGate means that nobody who holds the router's public key made it.
	ErrGate = errors.New("gate does not match")
	// ErrKey means that a public key in it is of small order, or no key at all.
	ErrKey = errors.New("weak key")
	// ErrBox means that the sealed part does not open.
	ErrBox = errors.New("box does not open")
	// ErrFormat means that what was sealed is not laid out as it must be: version,
	// op, status, flags, reserved bytes, or a field out of range.
	ErrFormat = errors.New("malformed")
)

// Op is what a packet asks for.
type Op uint8

// The ops.
const (
	OpOpen   Op = 0
	OpClose  Op = 1
	OpEnroll Op = 2
	OpHello  Op = 3
)

// String returns the op's name, one word.
func (o Op) String() string {
	switch o {
	case OpOpen:
		return "open"
	case OpClose:
		return "close"
	case OpEnroll:
		return "enroll"
	case OpHello:
		return "hello"
	default:
		return "unknown op"
	}
}

// Status is what a router answers.
type Status uint8

// The statuses; 5 and those from 10 on mean nothing and are refused.
const (
	Opened   Status = 0
	Closed   Status = 1
	Enrolled Status = 2
	Hello    Status = 3
	Denied   Status = 4 // also: no such service
	ClockOff Status = 6 // knock again by the router's clock
	Mismatch Status = 7 // the declared address is not the source
	Busy     Status = 8 // knock again
	Failed   Status = 9
)

// String returns the status in a word or two.
func (s Status) String() string {
	switch s {
	case Opened:
		return "opened"
	case Closed:
		return "closed"
	case Enrolled:
		return "enrolled"
	case Hello:
		return "hello"
	case Denied:
		return "denied"
	case ClockOff:
		return "clock off"
	case Mismatch:
		return "address mismatch"
	case Busy:
		return "busy"
	case Failed:
		return "failed"
	default:
		return "unknown status"
	}
}

func (s Status) known() bool { return s <= Denied || s >= ClockOff && s <= Failed }
