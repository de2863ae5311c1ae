package keys

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// RemotePin names the key of one end of a remote control connection: the SHA-256 of the SubjectPublicKeyInfo of its
// certificate, as HTTP public key pinning has it (RFC 7469 section 2.4). It is no secret.
type RemotePin [32]byte

// ed25519SPKI is what stands before the 32 bytes of the key in a SubjectPublicKeyInfo (RFC 8410 section 4).
var ed25519SPKI = [12]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}

// PinOf returns the pin of a SubjectPublicKeyInfo in DER.
func PinOf(spki []byte) RemotePin { return sha256.Sum256(spki) }

// ParseRemotePin reads the text form, spad-remote-pin: and base64url.
func ParseRemotePin(text string) (RemotePin, error) {
	b, err := remotePin.parse(text)
	return b, err
}

// IsZero reports whether no pin is set.
func (p RemotePin) IsZero() bool { return p == RemotePin{} }

// String returns the text form, or nothing if no pin is set.
func (p RemotePin) String() string {
	if p.IsZero() {
		return ""
	}
	return remotePin.format(p)
}

// MarshalText returns the text form; [ErrZero] if no pin is set.
func (p RemotePin) MarshalText() ([]byte, error) {
	if p.IsZero() {
		return nil, ErrZero
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads the text form as [ParseRemotePin] does.
func (p *RemotePin) UnmarshalText(text []byte) (err error) {
	*p, err = ParseRemotePin(string(text))
	return err
}

// RemoteSecret is the Ed25519 secret key of one end of a remote control connection. It never leaves its machine.
type RemoteSecret struct {
	key func() *[ed25519.PrivateKeySize]byte // a function, see RouterSecret
}

// GenerateRemote makes a new key from 32 bytes of rand, which is crypto/rand.Reader everywhere but in tests.
func GenerateRemote(rand io.Reader) (RemoteSecret, error) {
	b, err := random(rand)
	if err != nil {
		return RemoteSecret{}, err
	}
	return NewRemoteSecret(b), nil
}

// NewRemoteSecret makes a key of its seed.
func NewRemoteSecret(seed [32]byte) RemoteSecret {
	k := pair(seed)
	return RemoteSecret{func() *[ed25519.PrivateKeySize]byte { return &k }}
}

// ParseRemoteSecret reads the text form, spad-remote-secret: and base64url. Its errors are [ErrText] and [ErrRole],
// and never repeat the text.
func ParseRemoteSecret(text string) (RemoteSecret, error) {
	b, err := remoteSecret.parse(text)
	if err != nil {
		return RemoteSecret{}, err
	}
	return NewRemoteSecret(b), nil
}

// Signer returns the key as package crypto/tls wants it; nil if no key is set.
func (k RemoteSecret) Signer() ed25519.PrivateKey {
	if k.IsZero() {
		return nil
	}
	return k.key()[:]
}

// Pin returns what the other end knows the key by; the zero value if no key is set.
func (k RemoteSecret) Pin() RemotePin {
	if k.IsZero() {
		return RemotePin{}
	}
	return PinOf(append(ed25519SPKI[:], k.key()[32:]...))
}

// IsZero reports whether no key is set.
func (k RemoteSecret) IsZero() bool { return k.key == nil }

// Equal reports in constant time whether both are the same key.
func (k RemoteSecret) Equal(o RemoteSecret) bool {
	if k.IsZero() || o.IsZero() {
		return k.IsZero() && o.IsZero()
	}
	return subtle.ConstantTimeCompare(k.key()[:], o.key()[:]) == 1
}

// Text returns the text form of the secret. It is empty if no key is set.
func (k RemoteSecret) Text() string {
	if k.IsZero() {
		return ""
	}
	return remoteSecret.format([32]byte(k.key()[:32]))
}

const hiddenRemote = "[remote secret]"

// String returns a placeholder.
func (k RemoteSecret) String() string { return hiddenRemote }

// GoString returns a placeholder.
func (k RemoteSecret) GoString() string { return hiddenRemote }

// Format writes a placeholder, whatever the verb.
func (k RemoteSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenRemote) }

// LogValue returns a placeholder.
func (k RemoteSecret) LogValue() slog.Value { return slog.StringValue(hiddenRemote) }

// MarshalText always fails with [ErrSecret]; use Text where the secret is meant.
func (k RemoteSecret) MarshalText() ([]byte, error) { return nil, ErrSecret }

// ReadRemoteFile reads the key file of a router's remote control, in the same way as [ReadRouterFile].
func ReadRemoteFile(path string) (RemoteSecret, error) {
	b, err := readFile(path, remoteSecret)
	if err != nil {
		return RemoteSecret{}, err
	}
	return NewRemoteSecret(b), nil
}

// WriteRemoteFile writes the key file of a router's remote control, in the same way as [WriteRouterFile].
func WriteRemoteFile(path string, k RemoteSecret) error {
	if k.IsZero() {
		return fmt.Errorf("writing remote control key %q: %w", path, ErrZero)
	}
	return writeFile(path, remoteSecret, fileText("router's remote control", k.Pin().String(), k.Text()))
}
