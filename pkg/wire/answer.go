package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/nacl/secretbox"
)

// Answer is what a router says to a packet that asked for it and was signed well.
type Answer struct {
	Status   Status
	TTL      uint16     // seconds granted; only if opened
	Port     uint16     // the public port to connect to; only if opened and the service has exactly one
	RouterMS int64      // the router's knock clock, milliseconds since 1970-01-01 UTC, below 1<<48
	PacketMS int64      // the packet's own time back; 0 for enroll. [Packet.Answer] fills it in
	Seen     netip.Addr // the address the router saw, IPv4 unmapped, no zone
}

const (
	answerBody = 48
	nonceAt    = 8
	sealedAt   = nonceAt + 24
)

// answerKey binds the answer to the packet: only its two ends have the shared key.
func answerKey(v *version, shared [32]byte) [32]byte {
	return blake2b.Sum256(append([]byte(v.back), shared[:]...))
}

// Answer seals the answer to this packet, with 24 bytes of rand. PacketMS is taken from
// the packet. It fails with [ErrFormat] on an answer that can't be: an unknown status, a
// ttl or port without an opening, a time out of range, no seen address. The caller sends
// at most one answer to a packet, and none to a packet that did not ask or whose
// signature it did not check.
func (p *Packet) Answer(a Answer, rand io.Reader) (out [AnswerSize]byte, err error) {
	a.PacketMS = p.Message.TimeMS
	body, err := a.encode(p.version.number)
	if err != nil {
		return out, err
	}
	var nonce [24]byte
	if _, err := io.ReadFull(rand, nonce[:]); err != nil {
		return out, fmt.Errorf("reading random bytes: %w", err)
	}
	key := answerKey(p.version, p.shared)
	copy(out[nonceAt:], nonce[:])
	secretbox.Seal(out[sealedAt:sealedAt], body[:], &nonce, &key)
	p.gate.put(out[:])
	return out, nil
}

// Waiter opens the answer to one packet. It is a value and safe for concurrent use.
type Waiter struct {
	version *version
	gate    gateKey
	key     [32]byte
	op      Op
	timeMS  int64
}

// OpenAnswer opens the answer to this packet and to no other. Errors: [ErrLength],
// [ErrGate], [ErrBox] (also for the answer to another packet), [ErrFormat]. A client
// takes any of them for a stray datagram and waits on.
func (w Waiter) OpenAnswer(p []byte) (Answer, error) {
	switch {
	case len(p) != AnswerSize:
		return Answer{}, ErrLength
	case w.version == nil: // the zero Waiter waits for nothing
		return Answer{}, ErrBox
	case !w.gate.match(p):
		return Answer{}, ErrGate
	}
	nonce := [24]byte(p[nonceAt:])
	body, ok := secretbox.Open(make([]byte, 0, answerBody), p[sealedAt:], &nonce, &w.key)
	if !ok {
		return Answer{}, ErrBox
	}
	a, err := decodeAnswer((*[answerBody]byte)(body), w.version.number)
	if err != nil {
		return Answer{}, err
	}
	if a.PacketMS != w.timeMS || !a.Status.answers(w.op) {
		return Answer{}, errOther
	}
	return a, nil
}

// answers reports whether a router may say this to an op: success only to the op that
// asked for it, the rest to any.
func (s Status) answers(o Op) bool {
	switch s {
	case Opened:
		return o == OpOpen
	case Closed:
		return o == OpClose
	case Enrolled:
		return o == OpEnroll
	case Hello:
		return o == OpHello
	default:
		return true
	}
}

// Format writes a placeholder, whatever the verb: a waiter holds a key.
func (w Waiter) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[waiter]") }

// encode lays the answer out; what it refuses is what decodeAnswer would.
func (a Answer) encode(version byte) (b [answerBody]byte, err error) {
	switch {
	case !a.Status.known():
		return b, errStatus
	case a.Status != Opened && (a.TTL != 0 || a.Port != 0):
		return b, errGranted
	case a.RouterMS < 0 || a.RouterMS > maxTime || a.PacketMS < 0 || a.PacketMS > maxTime:
		return b, errTime
	case !a.Seen.IsValid():
		return b, errSeen
	}
	b[0] = version<<4 | byte(a.Status)
	binary.BigEndian.PutUint16(b[2:], a.TTL)
	binary.BigEndian.PutUint16(b[4:], a.Port)
	putTime(b[6:12], a.RouterMS)
	putTime(b[12:18], a.PacketMS)
	seen := a.Seen.As16() // drops the zone of a link-local address, which means nothing elsewhere
	copy(b[18:34], seen[:])
	return b, nil
}

// decodeAnswer reads the 48 bytes of an answer.
func decodeAnswer(b *[answerBody]byte, version byte) (Answer, error) {
	a := Answer{
		Status:   Status(b[0] & 0x0f),
		TTL:      binary.BigEndian.Uint16(b[2:]),
		Port:     binary.BigEndian.Uint16(b[4:]),
		RouterMS: getTime(b[6:12]),
		PacketMS: getTime(b[12:18]),
		Seen:     netip.AddrFrom16([16]byte(b[18:34])).Unmap(),
	}
	switch {
	case b[0]>>4 != version:
		return Answer{}, errVersion
	case !a.Status.known():
		return Answer{}, errStatus
	case b[1] != 0 || [14]byte(b[34:48]) != [14]byte{}:
		return Answer{}, errReserved
	case a.Status != Opened && (a.TTL != 0 || a.Port != 0):
		return Answer{}, errGranted
	}
	return a, nil
}
