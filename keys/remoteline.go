package keys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// ErrRemoteLine means that a text is not the line of spad remote add, or that such a line can't be written.
var ErrRemoteLine = errors.New("not the line of spad remote add")

// RemoteLine is what a router hands to a machine that shall control it from elsewhere. Its token is proven to the router
// that has the pinned key, and never sent.
//
//	spad-remote1: and the unpadded base64url of
//	32 pin of the router | 6 token id | 16 token secret | 6 expiry | 1 length, host:port | 1 length, name
type RemoteLine struct {
	Router    RemotePin
	Token     Token
	ExpiresMS int64  // milliseconds since 1970-01-01 UTC; a hint, the router decides
	Addr      string // host:port to connect to
	Name      string // what the router calls the other side
}

// ParseRemoteLine reads a line; white space around it is dropped. Errors are [ErrRemoteLine] and [ErrRole], and never
// repeat the text.
func ParseRemoteLine(line string) (RemoteLine, error) {
	body, err := remoteLine.strip(strings.TrimSpace(line))
	switch {
	case errors.Is(err, ErrRole):
		return RemoteLine{}, err
	case err != nil:
		return RemoteLine{}, fmt.Errorf("%w: it starts with %s; copy the whole line", ErrRemoteLine, remoteLine)
	}
	raw, ok := decode(body)
	if !ok {
		return RemoteLine{}, fmt.Errorf("%w: it is cut or garbled; copy all of it", ErrRemoteLine)
	}
	r := reader{rest: raw}
	v := RemoteLine{Router: RemotePin(r.next(32))}
	copy(v.Token.ID[:], r.next(6))
	copy(v.Token.Secret[:], r.next(16))
	v.ExpiresMS = int64(binary.BigEndian.Uint64(append([]byte{0, 0}, r.next(6)...)))
	v.Addr, v.Name = r.text(), r.text()
	switch {
	case r.short:
		return RemoteLine{}, fmt.Errorf("%w: it is cut short; copy all of it", ErrRemoteLine)
	case len(r.rest) > 0:
		return RemoteLine{}, fmt.Errorf("%w: it is too long; copy it again", ErrRemoteLine)
	}
	if err := v.check(); err != nil {
		return RemoteLine{}, err
	}
	return v, nil
}

// check refuses what is laid out well but can't be meant.
func (v RemoteLine) check() error {
	switch {
	case v.Router.IsZero():
		return fmt.Errorf("%w: no pin of the router", ErrRemoteLine)
	case v.ExpiresMS < 0 || v.ExpiresMS > maxTime:
		return fmt.Errorf("%w: its expiry is out of range", ErrRemoteLine)
	case !ValidAddr(v.Addr):
		return fmt.Errorf("%w: its address is not host:port", ErrRemoteLine)
	case !ValidName(v.Name):
		return fmt.Errorf("%w: its name is not valid", ErrRemoteLine)
	}
	return nil
}

// ValidAddr reports whether addr is an IP address or a host name, with a port from 1 to 65535, in one spelling.
func ValidAddr(addr string) bool { return validAddr(addr) }

// Text returns the line. It is a secret until it was used. One that can't be written is an error, an [ErrRemoteLine].
func (v RemoteLine) Text() (string, error) {
	if err := v.check(); err != nil {
		return "", err
	}
	b := append(v.Router[:], v.Token.ID[:]...)
	b = append(b, v.Token.Secret[:]...)
	b = append(b, binary.BigEndian.AppendUint64(nil, uint64(v.ExpiresMS))[2:]...)
	b = appendText(appendText(b, v.Addr), v.Name)
	return string(remoteLine) + encoding.EncodeToString(b), nil
}

const hiddenRemoteLine = "[remote line]"

// String returns a placeholder.
func (v RemoteLine) String() string { return hiddenRemoteLine }

// GoString returns a placeholder.
func (v RemoteLine) GoString() string { return hiddenRemoteLine }

// Format writes a placeholder, whatever the verb.
func (v RemoteLine) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenRemoteLine) }

// LogValue returns a placeholder.
func (v RemoteLine) LogValue() slog.Value { return slog.StringValue(hiddenRemoteLine) }

// MarshalText always fails with [ErrSecret]; use Text where the line is meant.
func (v RemoteLine) MarshalText() ([]byte, error) { return nil, ErrSecret }
