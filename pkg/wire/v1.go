package wire

import (
	"crypto/ecdh"
	"fmt"
	"io"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/nacl/box"
	//lint:ignore SA1019 HSalsa20 is what box.Precompute calls; nothing that isn't deprecated exports it
	"golang.org/x/crypto/salsa20/salsa"

	"spad/keys"
)

// version1 is X25519, XSalsa20-Poly1305 (nacl/box) and Ed25519.
var version1 = version{
	number: 1,
	gate:   "knock v1 gate",
	mask:   "knock v1 mask",
	knock:  "knock v1",
	enroll: "knock v1 enroll",
	back:   "knock v1 ack",
}

const (
	ephAt = 8
	boxAt = ephAt + 32
	endAt = PacketSize - 16 // the bytes that the mask is made from
)

// v1 is what both ends of version 1 derive from the router's public key.
type v1 struct {
	router  [32]byte // R.pub
	maskKey [32]byte
	gateKey gateKey
}

func newV1(k keys.RouterPublic) v1 {
	router := k.Bytes()
	return v1{
		router:  router,
		maskKey: blake2b.Sum256(append([]byte(version1.mask), router[:]...)),
		gateKey: newGateKey(version1.gate, router),
	}
}

// mask XORs the mask over the 32 bytes of eph. A bare X25519 key would not be uniform:
// its top bit is 0 and it is always on the curve. The mask comes from the end of the
// box, which is as good as random and differs in every packet.
func (s *v1) mask(eph, end []byte) {
	h, err := blake2b.New256(s.maskKey[:])
	if err != nil {
		panic(err) // 32 bytes are a key it takes
	}
	h.Write(end) // a hash takes all it is given
	var sum [32]byte
	for i, b := range h.Sum(sum[:0]) {
		eph[i] ^= b
	}
}

// nonce is bound to both keys; E is made fresh for every packet, so it never comes twice.
func (s *v1) nonce(eph []byte) (n [24]byte) {
	h, err := blake2b.New(len(n), nil)
	if err != nil {
		panic(err) // 24 is a length it has
	}
	h.Write(eph)
	h.Write(s.router[:])
	h.Sum(n[:0])
	return n
}

// boxKey makes the shared key of an X25519 result, as box.Precompute does. That would do
// the scalar multiplication again, and one for a public key besides.
func boxKey(dh *[32]byte) (k [32]byte) {
	var zero [16]byte
	salsa.HSalsa20(&k, &zero, dh, &salsa.Sigma)
	return k
}

// openerV1 is the router's end.
type openerV1 struct {
	v1
	secret keys.RouterSecret
}

func newOpenerV1(k keys.RouterSecret) *openerV1 { return &openerV1{newV1(k.Public()), k} }

func (s *openerV1) size() int { return PacketSize }

func (s *openerV1) gate() gateKey { return s.gateKey }

// openedV1 is a packet together with the memory it points to, in one allocation.
type openedV1 struct {
	Packet
	signed  [32 + 32 + bodySize]byte // R.pub, E.pub, message without signature
	message [messageSize]byte
}

func (s *openerV1) open(p []byte) (*Packet, error) {
	o := new(openedV1)
	copy(o.signed[:32], s.router[:])
	eph := o.signed[32:64]
	copy(eph, p[ephAt:boxAt])
	s.mask(eph, p[endAt:])
	dh, err := s.secret.ECDH([32]byte(eph))
	if err != nil {
		return nil, ErrKey
	}
	o.shared = boxKey(&dh)
	nonce := s.nonce(eph)
	if _, ok := box.OpenAfterPrecomputation(o.message[:0], p[boxAt:], &nonce, &o.shared); !ok {
		return nil, ErrBox
	}
	if o.Message, err = decodeMessage((*[bodySize]byte)(o.message[:]), version1.number); err != nil {
		return nil, err
	}
	copy(o.signed[64:], o.message[:bodySize])
	o.sig = [64]byte(o.message[bodySize:])
	o.version, o.gate, o.Packet.signed = &version1, s.gateKey, o.signed[:]
	return &o.Packet, nil
}

// sealerV1 is the device's end.
type sealerV1 struct {
	v1
	peer *ecdh.PublicKey
}

// seal makes the packet of one body. sign gets what the signature covers after its label.
func (s *sealerV1) seal(body [bodySize]byte, sign func(signed []byte) [64]byte, rand io.Reader) (p [PacketSize]byte, shared [32]byte, err error) {
	eph, dh, err := s.ephemeral(rand)
	if err != nil {
		return p, shared, err
	}
	signed := append(s.router[:], eph...)
	sig := sign(append(signed, body[:]...))
	message := append(body[:], sig[:]...)
	shared = boxKey(&dh)
	nonce := s.nonce(eph)
	copy(p[ephAt:], eph)
	box.SealAfterPrecomputation(p[boxAt:boxAt], message, &nonce, &shared)
	s.mask(p[ephAt:boxAt], p[endAt:])
	s.gateKey.put(p[:])
	return p, shared, nil
}

// ephemeral makes E from 32 bytes of rand, and its X25519 result with R.
func (s *sealerV1) ephemeral(rand io.Reader) (public []byte, dh [32]byte, err error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, dh, fmt.Errorf("reading random bytes: %w", err)
	}
	e, err := ecdh.X25519().NewPrivateKey(b[:])
	if err != nil {
		return nil, dh, fmt.Errorf("making an ephemeral key: %w", err)
	}
	result, err := e.ECDH(s.peer)
	if err != nil {
		return nil, dh, ErrKey
	}
	return e.PublicKey().Bytes(), [32]byte(result), nil
}
