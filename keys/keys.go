// Package keys holds the keys of spad and knock, one type per role, with their
// text forms, their files and the invites that carry a router's key to a device.
//
//	role                  type           text form (base64url without padding)
//	a router's key        RouterPublic   knock-router:         32 bytes, X25519
//	a router's secret     RouterSecret   knock-router-secret:  32 bytes, the scalar
//	a device's key        DevicePublic   knock-device:         32 bytes, Ed25519
//	a device's secret     DeviceSecret   knock-device-secret:  32 bytes, the seed
//	an invite             Invite         knock1:               see [ParseInvite]
//	a rescue key          Rescue         rows of base32        see [Rescue]
//	a remote's pin        RemotePin      spad-remote-pin:      32 bytes, SHA-256 of its SubjectPublicKeyInfo
//	a remote's secret     RemoteSecret   spad-remote-secret:   32 bytes, the seed
//	a remote's line       RemoteLine     spad-remote1:         see [ParseRemoteLine]
//	a webhook's secret    WebhookSecret  whsec_                24 to 64 bytes, padded base64, as Standard Webhooks has it
//
// A text form has exactly one spelling: what parses is what the key prints again.
// Keys of small order are refused in every encoding when they are read, because
// with such a key a shared secret, or a signature, is anybody's.
//
// Secrets show themselves only through the methods named Text. Formatting,
// logging and marshalling them gives a placeholder or an error, and no error of
// this package repeats what it was given.
package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrWeak means that a public key is of small order, or not a point of its curve at all.
	ErrWeak = errors.New("this key is weak (of small order or not on its curve); make a new one")
	// ErrRole means that a key of another role stands where one was wanted.
	ErrRole = errors.New("key of another role")
	// ErrText means that a text is not a key: no known prefix, cut short, too long or garbled.
	ErrText = errors.New("not a key")
	// ErrSecret means that something tried to marshal a secret.
	ErrSecret = errors.New("a secret is never marshalled")
	// ErrZero means that a zero value was used as a key.
	ErrZero = errors.New("no key set")
)

// role is what a key is for; its text is the prefix of the key's text form.
type role string

const (
	routerPublic role = "knock-router:"
	routerSecret role = "knock-router-secret:"
	devicePublic role = "knock-device:"
	deviceSecret role = "knock-device-secret:"
	invite       role = "knock1:"
	remotePin    role = "spad-remote-pin:"
	remoteSecret role = "spad-remote-secret:"
	remoteLine   role = "spad-remote1:"
)

var roles = []role{routerPublic, routerSecret, devicePublic, deviceSecret, invite, remotePin, remoteSecret, remoteLine}

// name says in an error what the role is.
func (r role) name() string {
	switch r {
	case routerPublic:
		return "a router key"
	case routerSecret:
		return "a router's secret key"
	case devicePublic:
		return "a device key"
	case deviceSecret:
		return "a device's secret key"
	case remotePin:
		return "a remote's pin"
	case remoteSecret:
		return "a remote's secret key"
	case remoteLine:
		return "a line for spad remote join"
	default:
		return "an invite"
	}
}

// encoding is strict about the trailing bits; it still skips line breaks, so decode compares.
var encoding = base64.RawURLEncoding.Strict()

// textSize is the length of 32 bytes in base64url.
const textSize = 43

// format writes the text form of a key.
func (r role) format(b [32]byte) string { return string(r) + encoding.EncodeToString(b[:]) }

// parse reads the text form of a key of this role.
func (r role) parse(text string) (b [32]byte, err error) {
	body, err := r.strip(text)
	if err != nil {
		return b, err
	}
	switch {
	case len(body) < textSize:
		return b, fmt.Errorf("%w: it is cut short (%d of %d characters after %s); copy all of it", ErrText, len(body), textSize, r)
	case len(body) > textSize:
		return b, fmt.Errorf("%w: it is too long (%d characters after %s, not %d)", ErrText, len(body), r, textSize)
	}
	raw, ok := decode(body)
	if !ok {
		return b, fmt.Errorf("%w: what follows %s is garbled; copy it again", ErrText, r)
	}
	return [32]byte(raw), nil
}

// strip takes the prefix off, and says what stands there instead if it is another role's.
func (r role) strip(text string) (string, error) {
	if body, ok := strings.CutPrefix(text, string(r)); ok {
		return body, nil
	}
	for _, other := range roles {
		if strings.HasPrefix(text, string(other)) {
			return "", fmt.Errorf("%w: this is %s; %s starts with %s", ErrRole, other.name(), r.name(), r)
		}
	}
	return "", fmt.Errorf("%w: %s starts with %s", ErrText, r.name(), r)
}

// decode reads base64url in its one spelling: no padding, no line breaks, unused bits zero.
func decode(body string) ([]byte, bool) {
	raw, err := encoding.DecodeString(body)
	if err != nil || encoding.EncodeToString(raw) != body {
		return nil, false
	}
	return raw, true
}
