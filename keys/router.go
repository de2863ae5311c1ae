package keys

import (
	"crypto/ecdh"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"filippo.io/edwards25519/field"
)

// RouterPublic is a router's X25519 public key. Who holds it can make packets that
// the router looks at, so it is handed to enrolled devices only; it is no secret
// that authenticates. It is comparable, and never of small order unless it is the zero value.
type RouterPublic struct{ b [32]byte }

// smallOrder are the points of small order on the curve and its twist (RFC 7748, section 7; the first, second and fifth
// have order 4 at most, the others 8): with such a key every scalar gives the all-zero result, and with another none does.
var smallOrder = [...][32]byte{
	{},
	{1},
	{
		0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
	},
	{
		0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
	},
	{
		0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
	},
}

// weak reports whether b encodes one of them. X25519 ignores the top bit and takes numbers beyond the field's, as the
// field does here, so each has several encodings.
func weak(b [32]byte) bool {
	x, err := new(field.Element).SetBytes(b[:])
	return err != nil || slices.Contains(smallOrder[:], [32]byte(x.Bytes()))
}

// NewRouterPublic makes a router key of its 32 bytes. It refuses keys of small order
// in every encoding with [ErrWeak].
func NewRouterPublic(b [32]byte) (RouterPublic, error) {
	if weak(b) {
		return RouterPublic{}, ErrWeak
	}
	return RouterPublic{b}, nil
}

// ParseRouterPublic reads the text form, knock-router: and base64url. Its errors are
// [ErrText], [ErrRole] and [ErrWeak], and never repeat the text.
func ParseRouterPublic(text string) (RouterPublic, error) {
	b, err := routerPublic.parse(text)
	if err != nil {
		return RouterPublic{}, err
	}
	return NewRouterPublic(b)
}

// Bytes returns the 32 bytes of the key.
func (k RouterPublic) Bytes() [32]byte { return k.b }

// IsZero reports whether no key is set.
func (k RouterPublic) IsZero() bool { return k == RouterPublic{} }

// Equal reports whether both are the same key.
func (k RouterPublic) Equal(o RouterPublic) bool { return k == o }

// String returns the text form, or nothing if no key is set.
func (k RouterPublic) String() string {
	if k.IsZero() {
		return ""
	}
	return routerPublic.format(k.b)
}

// MarshalText returns the text form; [ErrZero] if no key is set.
func (k RouterPublic) MarshalText() ([]byte, error) {
	if k.IsZero() {
		return nil, ErrZero
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads the text form as [ParseRouterPublic] does.
func (k *RouterPublic) UnmarshalText(text []byte) (err error) {
	*k, err = ParseRouterPublic(string(text))
	return err
}

// RouterSecret is a router's X25519 secret key. It keeps the key object, so that a
// packet costs one scalar multiplication and not two.
type RouterSecret struct {
	// key is a function because fmt looks through a pointer when a verb does not fit, and
	// calls no Format on unexported fields; of a function it prints an address at most.
	key func() *ecdh.PrivateKey
	pub RouterPublic
}

// GenerateRouter makes a new router key from 32 bytes of rand, which is
// crypto/rand.Reader everywhere but in tests.
func GenerateRouter(rand io.Reader) (RouterSecret, error) {
	b, err := random(rand)
	if err != nil {
		return RouterSecret{}, err
	}
	return NewRouterSecret(b)
}

// NewRouterSecret makes a router key of its scalar.
func NewRouterSecret(scalar [32]byte) (RouterSecret, error) {
	k, err := ecdh.X25519().NewPrivateKey(scalar[:])
	if err != nil {
		return RouterSecret{}, fmt.Errorf("making a router key: %w", err)
	}
	pub := RouterPublic{[32]byte(k.PublicKey().Bytes())}
	return RouterSecret{key: func() *ecdh.PrivateKey { return k }, pub: pub}, nil
}

// ParseRouterSecret reads the text form, knock-router-secret: and base64url. Its
// errors are [ErrText] and [ErrRole], and never repeat the text.
func ParseRouterSecret(text string) (RouterSecret, error) {
	b, err := routerSecret.parse(text)
	if err != nil {
		return RouterSecret{}, err
	}
	return NewRouterSecret(b)
}

// Public returns the key that devices are given.
func (k RouterSecret) Public() RouterPublic { return k.pub }

// IsZero reports whether no key is set.
func (k RouterSecret) IsZero() bool { return k.key == nil }

// Equal reports in constant time whether both are the same key.
func (k RouterSecret) Equal(o RouterSecret) bool {
	if k.IsZero() || o.IsZero() {
		return k.IsZero() && o.IsZero()
	}
	return subtle.ConstantTimeCompare(k.key().Bytes(), o.key().Bytes()) == 1
}

// Text returns the text form of the secret. There is no other way to it. It is
// empty if no key is set.
func (k RouterSecret) Text() string {
	if k.IsZero() {
		return ""
	}
	return routerSecret.format([32]byte(k.key().Bytes()))
}

// ECDH returns the X25519 result with a peer's public key, or [ErrWeak] if it is all
// zero, which it is for keys of small order and for them only.
func (k RouterSecret) ECDH(peer [32]byte) ([32]byte, error) {
	if k.IsZero() {
		return [32]byte{}, ErrZero
	}
	return exchange(k.key(), peer)
}

const hiddenRouter = "[router secret]"

// String returns a placeholder.
func (k RouterSecret) String() string { return hiddenRouter }

// GoString returns a placeholder.
func (k RouterSecret) GoString() string { return hiddenRouter }

// Format writes a placeholder, whatever the verb.
func (k RouterSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenRouter) }

// LogValue returns a placeholder.
func (k RouterSecret) LogValue() slog.Value { return slog.StringValue(hiddenRouter) }

// MarshalText always fails with [ErrSecret]; use Text where the secret is meant.
func (k RouterSecret) MarshalText() ([]byte, error) { return nil, ErrSecret }

// exchange does one X25519 scalar multiplication.
func exchange(k *ecdh.PrivateKey, peer [32]byte) ([32]byte, error) {
	p, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return [32]byte{}, ErrWeak
	}
	shared, err := k.ECDH(p) // refuses the all-zero result
	if err != nil {
		return [32]byte{}, ErrWeak
	}
	return [32]byte(shared), nil
}

// random reads 32 bytes.
func random(rand io.Reader) (b [32]byte, err error) {
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return b, fmt.Errorf("reading random bytes: %w", err)
	}
	return b, nil
}
