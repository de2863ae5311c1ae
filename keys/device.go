package keys

import (
	"crypto/ed25519"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"

	"filippo.io/edwards25519"
)

// DevicePublic is a device's Ed25519 public key. It is comparable, and a point of
// large order in its one encoding unless it is the zero value.
type DevicePublic struct{ b [32]byte }

// NewDevicePublic makes a device key of its 32 bytes. It refuses with [ErrWeak] what
// is not a point, not the point's one encoding, or of small order: such a key would
// find signatures good that nobody made.
func NewDevicePublic(b [32]byte) (DevicePublic, error) {
	p, err := new(edwards25519.Point).SetBytes(b[:])
	if err != nil || [32]byte(p.Bytes()) != b {
		return DevicePublic{}, ErrWeak
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return DevicePublic{}, ErrWeak
	}
	return DevicePublic{b}, nil
}

// ParseDevicePublic reads the text form, knock-device: and base64url. Its errors are
// [ErrText], [ErrRole] and [ErrWeak], and never repeat the text.
func ParseDevicePublic(text string) (DevicePublic, error) {
	b, err := devicePublic.parse(text)
	if err != nil {
		return DevicePublic{}, err
	}
	return NewDevicePublic(b)
}

// Bytes returns the 32 bytes of the key.
func (k DevicePublic) Bytes() [32]byte { return k.b }

// IsZero reports whether no key is set.
func (k DevicePublic) IsZero() bool { return k == DevicePublic{} }

// Equal reports whether both are the same key.
func (k DevicePublic) Equal(o DevicePublic) bool { return k == o }

// Verify reports whether sig is this device's signature of msg. With no key set
// nothing is.
func (k DevicePublic) Verify(msg, sig []byte) bool {
	return !k.IsZero() && ed25519.Verify(k.b[:], msg, sig)
}

// String returns the text form, or nothing if no key is set.
func (k DevicePublic) String() string {
	if k.IsZero() {
		return ""
	}
	return devicePublic.format(k.b)
}

// MarshalText returns the text form; [ErrZero] if no key is set.
func (k DevicePublic) MarshalText() ([]byte, error) {
	if k.IsZero() {
		return nil, ErrZero
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads the text form as [ParseDevicePublic] does.
func (k *DevicePublic) UnmarshalText(text []byte) (err error) {
	*k, err = ParseDevicePublic(string(text))
	return err
}

// DeviceSecret is a device's Ed25519 secret key. It never leaves the device.
type DeviceSecret struct {
	key func() *[ed25519.PrivateKeySize]byte // a function, see RouterSecret
}

// GenerateDevice makes a new device key from 32 bytes of rand, which is
// crypto/rand.Reader everywhere but in tests.
func GenerateDevice(rand io.Reader) (DeviceSecret, error) {
	b, err := random(rand)
	if err != nil {
		return DeviceSecret{}, err
	}
	return NewDeviceSecret(b), nil
}

// NewDeviceSecret makes a device key of its seed.
func NewDeviceSecret(seed [32]byte) DeviceSecret {
	k := pair(seed)
	return DeviceSecret{func() *[ed25519.PrivateKeySize]byte { return &k }}
}

// ParseDeviceSecret reads the text form, knock-device-secret: and base64url. Its
// errors are [ErrText] and [ErrRole], and never repeat the text.
func ParseDeviceSecret(text string) (DeviceSecret, error) {
	b, err := deviceSecret.parse(text)
	if err != nil {
		return DeviceSecret{}, err
	}
	return NewDeviceSecret(b), nil
}

// Public returns the key that routers store; the zero value if no key is set.
func (k DeviceSecret) Public() DevicePublic {
	if k.IsZero() {
		return DevicePublic{}
	}
	return DevicePublic{[32]byte(k.key()[32:])}
}

// IsZero reports whether no key is set.
func (k DeviceSecret) IsZero() bool { return k.key == nil }

// Equal reports in constant time whether both are the same key.
func (k DeviceSecret) Equal(o DeviceSecret) bool {
	if k.IsZero() || o.IsZero() {
		return k.IsZero() && o.IsZero()
	}
	return subtle.ConstantTimeCompare(k.key()[:], o.key()[:]) == 1
}

// Text returns the text form of the secret. There is no other way to it. It is
// empty if no key is set.
func (k DeviceSecret) Text() string {
	if k.IsZero() {
		return ""
	}
	return deviceSecret.format([32]byte(k.key()[:32]))
}

// Sign returns the signature of msg. It panics if no key is set, which IsZero tells.
func (k DeviceSecret) Sign(msg []byte) [64]byte {
	if k.IsZero() {
		panic("keys: signing with a zero DeviceSecret")
	}
	return sign(k.key(), msg)
}

const hiddenDevice = "[device secret]"

// String returns a placeholder.
func (k DeviceSecret) String() string { return hiddenDevice }

// GoString returns a placeholder.
func (k DeviceSecret) GoString() string { return hiddenDevice }

// Format writes a placeholder, whatever the verb.
func (k DeviceSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenDevice) }

// LogValue returns a placeholder.
func (k DeviceSecret) LogValue() slog.Value { return slog.StringValue(hiddenDevice) }

// MarshalText always fails with [ErrSecret]; use Text where the secret is meant.
func (k DeviceSecret) MarshalText() ([]byte, error) { return nil, ErrSecret }
