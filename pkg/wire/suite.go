package wire

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/dchest/siphash"
	"golang.org/x/crypto/blake2b"

	"spad/keys"
)

// suite opens packets of one length. Version 1 is the only one; another is a file
// beside v1.go and a line in [NewOpener].
type suite interface {
	size() int
	gate() gateKey
	open(p []byte) (*Packet, error)
}

// version is what sets one version's hashes and signatures apart from another's.
type version struct {
	number                          byte
	gate, mask, knock, enroll, back string
}

// gateKey is the SipHash key that a version derives from the router's public key.
type gateKey struct{ k0, k1 uint64 }

func newGateKey(label string, router [32]byte) gateKey {
	h, err := blake2b.New(16, nil)
	if err != nil {
		panic(err) // 16 is a length it has
	}
	io.WriteString(h, label) // a hash takes all it is given
	h.Write(router[:])
	sum := h.Sum(nil)
	return gateKey{binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:])}
}

// match reports whether the first 8 bytes are the hash of the others.
func (g gateKey) match(p []byte) bool {
	return siphash.Hash(g.k0, g.k1, p[8:]) == binary.LittleEndian.Uint64(p)
}

// put sets the first 8 bytes to the hash of the others.
func (g gateKey) put(p []byte) {
	binary.LittleEndian.PutUint64(p, siphash.Hash(g.k0, g.k1, p[8:]))
}

// GateValue returns the gate of a packet as a number, for the table of those seen
// lately; 0 for what is too short to have one.
func GateValue(p []byte) uint64 {
	if len(p) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(p)
}

// Opener opens the packets sent to one router. It is safe for concurrent use.
type Opener struct {
	suites []fitted
}

// fitted is a suite beside what every datagram is measured by: a call of a method for that would be most of what a
// datagram of another length costs.
type fitted struct {
	suite
	length int
	key    gateKey
}

// NewOpener makes the opener of a router's key. With the zero key nothing opens.
func NewOpener(k keys.RouterSecret) *Opener {
	o := &Opener{}
	for _, s := range []suite{newOpenerV1(k)} {
		o.suites = append(o.suites, fitted{s, s.size(), s.gate()})
	}
	return o
}

// suite returns the one for packets of this length, or nil.
func (o *Opener) suite(length int) *fitted {
	for i := range o.suites {
		if o.suites[i].length == length {
			return &o.suites[i]
		}
	}
	return nil
}

// Gate refuses, for the price of a SipHash and without allocating, what nobody who
// holds the router's public key made: [ErrLength], [ErrGate].
func (o *Opener) Gate(p []byte) error {
	s := o.suite(len(p))
	if s == nil {
		return ErrLength
	}
	if !s.key.match(p) {
		return ErrGate
	}
	return nil
}

// Open opens a packet that passed [Opener.Gate], which it does not repeat. It costs one
// scalar multiplication. Errors: [ErrLength], [ErrKey], [ErrBox], [ErrFormat]. No field
// of the result is to be believed before SignedBy or SignedWith.
func (o *Opener) Open(p []byte) (*Packet, error) {
	s := o.suite(len(p))
	if s == nil {
		return nil, ErrLength
	}
	return s.open(p)
}

// Format writes a placeholder, whatever the verb.
func (o *Opener) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[opener]") }
