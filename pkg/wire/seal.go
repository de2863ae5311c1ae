package wire

import (
	"crypto/ecdh"
	"io"

	"spad/keys"
)

// Sealer makes packets for one router. It is safe for concurrent use.
type Sealer struct {
	v1 *sealerV1
}

// NewSealer makes the sealer for a router. With the zero key nothing is sealed: [ErrKey].
func NewSealer(k keys.RouterPublic) *Sealer {
	b := k.Bytes()
	peer, err := ecdh.X25519().NewPublicKey(b[:])
	if err != nil {
		panic(err) // 32 bytes are a key it takes
	}
	return &Sealer{&sealerV1{newV1(k), peer}}
}

// Seal makes the packet of an open, close or hello, with 32 bytes of rand, and the
// waiter that opens its answer. It sets the message's device id itself, and unmaps its
// address. Errors: [ErrFormat] for a message that no packet can carry, [ErrKey] if one
// of the two keys is not set.
func (s *Sealer) Seal(m Message, by keys.DeviceSecret, rand io.Reader) ([PacketSize]byte, Waiter, error) {
	if m.Op == OpEnroll {
		return [PacketSize]byte{}, Waiter{}, errOp
	}
	m.Device = DeviceIDOf(by.Public())
	return s.seal(m, by, []byte(version1.knock), rand)
}

// SealEnroll makes the packet that enrols a device with a token, as [Sealer.Seal] does.
func (s *Sealer) SealEnroll(by keys.DeviceSecret, t keys.Token, wantAnswer bool, rand io.Reader) ([PacketSize]byte, Waiter, error) {
	m := Message{Op: OpEnroll, WantAnswer: wantAnswer, Token: t.ID, Key: by.Public()}
	return s.seal(m, by, append([]byte(version1.enroll), t.Secret[:]...), rand)
}

func (s *Sealer) seal(m Message, by keys.DeviceSecret, label []byte, rand io.Reader) (p [PacketSize]byte, w Waiter, err error) {
	if by.IsZero() {
		return p, w, errSigner
	}
	body, err := m.encode(version1.number)
	if err != nil {
		return p, w, err
	}
	sign := func(signed []byte) [64]byte { return by.Sign(append(label, signed...)) }
	p, shared, err := s.v1.seal(body, sign, rand)
	if err != nil {
		return p, w, err
	}
	return p, Waiter{version: &version1, gate: s.v1.gateKey, key: answerKey(&version1, shared), op: m.Op, timeMS: m.TimeMS}, nil
}
