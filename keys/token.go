package keys

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// TokenID names a one-time token in an enroll packet. It is random and never logged.
// Marshalling fails: whoever stores a token writes its bytes on purpose. As an array it
// can't hide from fmt in an unexported field of a struct that is printed, nor from %p;
// the same goes for [TokenSecret].
type TokenID [6]byte

// TokenSecret is what makes a one-time token worth something. It is never sent: the
// signature of an enroll packet proves that the device knows it.
type TokenSecret [16]byte

// Token is the right to enrol one device, once.
type Token struct {
	ID     TokenID
	Secret TokenSecret
}

// NewToken makes a token from 22 bytes of rand, which is crypto/rand.Reader
// everywhere but in tests.
func NewToken(rand io.Reader) (t Token, err error) {
	if _, err = io.ReadFull(rand, t.ID[:]); err == nil {
		_, err = io.ReadFull(rand, t.Secret[:])
	}
	if err != nil {
		return Token{}, fmt.Errorf("reading random bytes: %w", err)
	}
	return t, nil
}

const (
	hiddenToken       = "[token]"
	hiddenTokenID     = "[token id]"
	hiddenTokenSecret = "[token secret]"
)

// String returns a placeholder.
func (t Token) String() string { return hiddenToken }

// GoString returns a placeholder.
func (t Token) GoString() string { return hiddenToken }

// Format writes a placeholder, whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenToken) }

// LogValue returns a placeholder.
func (t Token) LogValue() slog.Value { return slog.StringValue(hiddenToken) }

// MarshalText always fails with [ErrSecret].
func (t Token) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Equal reports in constant time whether both are the same id.
func (t TokenID) Equal(o TokenID) bool { return subtle.ConstantTimeCompare(t[:], o[:]) == 1 }

// String returns a placeholder.
func (t TokenID) String() string { return hiddenTokenID }

// GoString returns a placeholder.
func (t TokenID) GoString() string { return hiddenTokenID }

// Format writes a placeholder, whatever the verb.
func (t TokenID) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenTokenID) }

// LogValue returns a placeholder.
func (t TokenID) LogValue() slog.Value { return slog.StringValue(hiddenTokenID) }

// MarshalText always fails with [ErrSecret].
func (t TokenID) MarshalText() ([]byte, error) { return nil, ErrSecret }

// Equal reports in constant time whether both are the same secret.
func (t TokenSecret) Equal(o TokenSecret) bool { return subtle.ConstantTimeCompare(t[:], o[:]) == 1 }

// String returns a placeholder.
func (t TokenSecret) String() string { return hiddenTokenSecret }

// GoString returns a placeholder.
func (t TokenSecret) GoString() string { return hiddenTokenSecret }

// Format writes a placeholder, whatever the verb.
func (t TokenSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenTokenSecret) }

// LogValue returns a placeholder.
func (t TokenSecret) LogValue() slog.Value { return slog.StringValue(hiddenTokenSecret) }

// MarshalText always fails with [ErrSecret].
func (t TokenSecret) MarshalText() ([]byte, error) { return nil, ErrSecret }
