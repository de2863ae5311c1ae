package keys

import (
	"crypto/ed25519"
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// Ed25519 signing as RFC 8032, sections 5.1.5 and 5.1.6, has it; what it makes is bit for bit what crypto/ed25519 makes,
// which verifies. That package builds a table of multiples of the base point when it first needs one, in 0.8 ms: right
// for who signs often, and half of the time that knock, which signs once, runs at all. A multiplication without the
// table takes 0.06 ms. All that touches a secret is done in constant time by the group's library.

// expand returns the scalar and the prefix that belong to a seed.
func expand(seed []byte) (*edwards25519.Scalar, []byte) {
	h := sha512.Sum512(seed)
	s, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		panic(err) // 32 bytes are a scalar
	}
	return s, h[32:]
}

// times returns the encoding of that multiple of the base point.
func times(s *edwards25519.Scalar) []byte {
	return new(edwards25519.Point).ScalarMult(s, edwards25519.NewGeneratorPoint()).Bytes()
}

// hashed returns the scalar that a hash over all parts is.
func hashed(parts ...[]byte) *edwards25519.Scalar {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p) // a hash takes all it is given
	}
	s, err := edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
	if err != nil {
		panic(err) // 64 bytes are a uniform scalar
	}
	return s
}

// pair returns the seed and the public key that belongs to it, as crypto/ed25519 keeps a private key.
func pair(seed [32]byte) (k [ed25519.PrivateKeySize]byte) {
	s, _ := expand(seed[:])
	copy(k[:], seed[:])
	copy(k[32:], times(s))
	return k
}

// sign returns the signature of msg by a pair.
func sign(k *[ed25519.PrivateKeySize]byte, msg []byte) (sig [ed25519.SignatureSize]byte) {
	public := k[32:]
	s, prefix := expand(k[:32])
	r := hashed(prefix, msg)
	point := times(r)
	copy(sig[:], point)
	copy(sig[32:], s.MultiplyAdd(hashed(point, public, msg), s, r).Bytes())
	return sig
}
