package keys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/mdp/qrterminal/v3"
)

// ErrInvite means that a text is not an invite, or that an invite can't be written.
var ErrInvite = errors.New("not an invite")

// Invite is what a router hands to a device that shall enrol: one line, or a QR code.
//
//	knock1: and the unpadded base64url of
//	32 router key | 6 token id | 16 token secret | 6 expiry | 1 length, host:port |
//	1 length, device name | 1 count, then per service: 1 length, name
type Invite struct {
	Router    RouterPublic
	Token     Token
	ExpiresMS int64    // milliseconds since 1970-01-01 UTC; a hint, the router decides
	Addr      string   // host:port to knock at
	Device    string   // the name the device will have
	Services  []string // what it may open, groups resolved; a hint
}

const (
	inviteFixed = 32 + 6 + 16 + 6
	maxTime     = 1<<48 - 1
	// maxQR is what the largest QR code (version 40, level L) holds in byte mode.
	maxQR = 2953
)

// ParseInvite reads an invite; white space around it is dropped. Errors are
// [ErrInvite], [ErrRole] and [ErrWeak], and never repeat the text.
func ParseInvite(line string) (Invite, error) {
	body, err := invite.strip(strings.TrimSpace(line))
	switch {
	case errors.Is(err, ErrRole):
		return Invite{}, err
	case err != nil:
		return Invite{}, fmt.Errorf("%w: an invite starts with %s; copy the whole line", ErrInvite, invite)
	}
	raw, ok := decode(body)
	if !ok {
		return Invite{}, fmt.Errorf("%w: the line is cut or garbled; copy all of it", ErrInvite)
	}
	return decodeInvite(raw)
}

func decodeInvite(raw []byte) (v Invite, err error) {
	r := reader{rest: raw}
	key := [32]byte(r.next(32))
	copy(v.Token.ID[:], r.next(6))
	copy(v.Token.Secret[:], r.next(16))
	v.ExpiresMS = int64(binary.BigEndian.Uint64(append([]byte{0, 0}, r.next(6)...)))
	v.Addr = r.text()
	v.Device = r.text()
	for range r.next(1)[0] {
		v.Services = append(v.Services, r.text())
	}
	switch {
	case r.short:
		return Invite{}, fmt.Errorf("%w: the line is cut short; copy all of it", ErrInvite)
	case len(r.rest) > 0:
		return Invite{}, fmt.Errorf("%w: the line is too long; copy it again", ErrInvite)
	}
	if v.Router, err = NewRouterPublic(key); err != nil {
		return Invite{}, fmt.Errorf("reading the invite's router key: %w", err)
	}
	if err := v.check(); err != nil {
		return Invite{}, err
	}
	return v, nil
}

// reader takes bytes off the front; once they run short it hands out zeros and remembers it.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) next(n int) []byte {
	if len(r.rest) < n {
		r.short, r.rest = true, nil
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) text() string { return string(r.next(int(r.next(1)[0]))) }

// check refuses what is laid out well but can't be meant.
func (v Invite) check() error {
	switch {
	case v.Router.IsZero():
		return fmt.Errorf("%w: no router key", ErrInvite)
	case v.ExpiresMS < 0 || v.ExpiresMS > maxTime:
		return fmt.Errorf("%w: its expiry is out of range", ErrInvite)
	case !validAddr(v.Addr):
		return fmt.Errorf("%w: its address is not host:port", ErrInvite)
	case !ValidName(v.Device):
		return fmt.Errorf("%w: its device name is not valid", ErrInvite)
	case len(v.Services) > 255:
		return fmt.Errorf("%w: more than 255 services", ErrInvite)
	}
	for _, s := range v.Services {
		if !ValidName(s) {
			return fmt.Errorf("%w: one of its service names is not valid", ErrInvite)
		}
	}
	return nil
}

// validAddr accepts an IP address or a host name, with a port from 1 to 65535, in one spelling.
func validAddr(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || len(addr) > 255 || net.JoinHostPort(host, port) != addr {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return false
	}
	if strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.Zone() == ""
	}
	return validHost(host)
}

func validHost(host string) bool {
	for i := range len(host) {
		c := host[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return host != "" && host[0] != '-' && host[0] != '.'
}

// Text returns the one line that carries the invite. It is a secret until it was
// used. An invite that can't be written is an error, an [ErrInvite].
func (v Invite) Text() (string, error) {
	if err := v.check(); err != nil {
		return "", err
	}
	b := make([]byte, 0, inviteFixed+len(v.Addr)+len(v.Device)+3+len(v.Services)*(MaxName+1))
	b = append(b, v.Router.b[:]...)
	b = append(b, v.Token.ID[:]...)
	b = append(b, v.Token.Secret[:]...)
	b = append(b, binary.BigEndian.AppendUint64(nil, uint64(v.ExpiresMS))[2:]...)
	b = appendText(b, v.Addr)
	b = appendText(b, v.Device)
	b = append(b, byte(len(v.Services)))
	for _, s := range v.Services {
		b = appendText(b, s)
	}
	return string(invite) + encoding.EncodeToString(b), nil
}

func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// WriteQR writes the invite as a QR code of half blocks, for a terminal. It fails on
// what Text refuses, and on an invite with more services than a QR code holds.
func (v Invite) WriteQR(w io.Writer) error {
	text, err := v.Text()
	if err != nil {
		return err
	}
	if len(text) > maxQR {
		return fmt.Errorf("drawing the invite: %d characters are more than a QR code holds (%d); use the line", len(text), maxQR)
	}
	return writeQR(w, text)
}

func writeQR(w io.Writer, text string) error {
	var b bytes.Buffer // qrterminal drops write errors
	qrterminal.GenerateHalfBlock(text, qrterminal.L, &b)
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("drawing the QR code: %w", err)
	}
	return nil
}

const hiddenInvite = "[invite]"

// String returns a placeholder.
func (v Invite) String() string { return hiddenInvite }

// GoString returns a placeholder.
func (v Invite) GoString() string { return hiddenInvite }

// Format writes a placeholder, whatever the verb.
func (v Invite) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenInvite) }

// LogValue returns a placeholder.
func (v Invite) LogValue() slog.Value { return slog.StringValue(hiddenInvite) }

// MarshalText always fails with [ErrSecret]; use Text where the line is meant.
func (v Invite) MarshalText() ([]byte, error) { return nil, ErrSecret }
