package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"spad/keys"
)

// Message is what a packet says. A message that was opened has a meaning only after
// its signature was found good.
type Message struct {
	Op         Op
	WantAnswer bool
	TTL        uint16     // seconds wanted, open only; 0 is the service's own default
	Device     DeviceID   // all ops but enroll
	Service    ServiceID  // open and close
	TimeMS     int64      // milliseconds since 1970-01-01 UTC by the device's clock, below 1<<48; 0 for enroll
	Address    netip.Addr // the declared address, IPv4 unmapped, no zone; the zero Addr if none was declared
	Token      keys.TokenID
	Key        keys.DevicePublic // the key to enrol; with Token, enroll only
}

const (
	bodySize    = 40 // the message without its signature
	messageSize = bodySize + 64

	flagAnswer  = 1 << 0
	flagAddress = 1 << 1

	maxTime = 1<<48 - 1
)

// malformed is an ErrFormat that says what is wrong.
type malformed string

func (m malformed) Error() string { return ErrFormat.Error() + ": " + string(m) }
func (m malformed) Unwrap() error { return ErrFormat }

// What a decoder refuses; made by the compiler, for a malformed packet must not cost more than a good one, nor the start
// of a program that sends one packet.
var (
	errVersion  error = malformed("version")
	errOp       error = malformed("op")
	errFlags    error = malformed("flags")
	errTTL      error = malformed("a ttl where none belongs")
	errService  error = malformed("a service where none belongs")
	errAddress  error = malformed("an address without its flag")
	errTime     error = malformed("time out of range")
	errZone     error = malformed("an address with a zone")
	errEnroll   error = malformed("an enrolment's field where none belongs")
	errSigner         = fmt.Errorf("%w: no device key to sign with", ErrKey)
	errReserved error = malformed("reserved bytes")
	errStatus   error = malformed("status")
	errGranted  error = malformed("a ttl or port without an opening")
	errSeen     error = malformed("no seen address")
	errOther    error = malformed("the answer to another packet")
)

// encode lays the message out; what it refuses is what decodeMessage would.
func (m Message) encode(version byte) (b [bodySize]byte, err error) {
	b[0] = version<<4 | byte(m.Op)
	if m.WantAnswer {
		b[1] |= flagAnswer
	}
	if m.Op == OpEnroll {
		copy(b[2:8], m.Token[:])
		key := m.Key.Bytes()
		copy(b[8:40], key[:])
		return b, nil
	}
	if err := m.check(); err != nil {
		return b, err
	}
	binary.BigEndian.PutUint16(b[2:], m.TTL)
	copy(b[4:12], m.Device[:])
	copy(b[12:18], m.Service[:])
	putTime(b[18:24], m.TimeMS)
	if m.Address.IsValid() {
		b[1] |= flagAddress
		a := m.Address.As16()
		copy(b[24:40], a[:])
	}
	return b, nil
}

// check refuses the fields that open, close and hello can't carry.
func (m Message) check() error {
	switch {
	case m.Op > OpHello:
		return errOp
	case m.TimeMS < 0 || m.TimeMS > maxTime:
		return errTime
	case m.Address.Zone() != "":
		return errZone
	case m.Token != keys.TokenID{} || !m.Key.IsZero():
		return errEnroll
	}
	return m.checkOp()
}

// checkOp refuses a ttl outside open, and a service in hello.
func (m Message) checkOp() error {
	switch {
	case m.Op != OpOpen && m.TTL != 0:
		return errTTL
	case m.Op == OpHello && m.Service != ServiceID{}:
		return errService
	}
	return nil
}

// decodeMessage reads the signed 40 bytes of a message.
func decodeMessage(b *[bodySize]byte, version byte) (m Message, err error) {
	m.Op = Op(b[0] & 0x0f)
	m.WantAnswer = b[1]&flagAnswer != 0
	switch {
	case b[0]>>4 != version:
		return Message{}, errVersion
	case m.Op > OpHello:
		return Message{}, errOp
	case b[1]&^(flagAnswer|flagAddress) != 0:
		return Message{}, errFlags
	case m.Op == OpEnroll:
		return decodeEnroll(m, b)
	}
	m.TTL = binary.BigEndian.Uint16(b[2:])
	m.Device = DeviceID(b[4:12])
	m.Service = ServiceID(b[12:18])
	m.TimeMS = getTime(b[18:24])
	if err := m.checkOp(); err != nil {
		return Message{}, err
	}
	address := [16]byte(b[24:40])
	switch {
	case b[1]&flagAddress != 0:
		m.Address = netip.AddrFrom16(address).Unmap()
	case address != [16]byte{}:
		return Message{}, errAddress
	}
	return m, nil
}

// decodeEnroll reads what an enrolment has in the place of ttl to address.
func decodeEnroll(m Message, b *[bodySize]byte) (Message, error) {
	if b[1]&flagAddress != 0 {
		return Message{}, errFlags
	}
	key, err := keys.NewDevicePublic([32]byte(b[8:40]))
	if err != nil {
		return Message{}, ErrKey
	}
	m.Token, m.Key = keys.TokenID(b[2:8]), key
	return m, nil
}

// putTime writes 48 bits, big-endian.
func putTime(b []byte, ms int64) {
	binary.BigEndian.PutUint16(b, uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
}

// getTime reads 48 bits, big-endian.
func getTime(b []byte) int64 {
	return int64(binary.BigEndian.Uint16(b))<<32 | int64(binary.BigEndian.Uint32(b[2:]))
}
