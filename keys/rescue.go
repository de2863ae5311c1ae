package keys

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// ErrRescue means that a text is not a rescue key.
var ErrRescue = errors.New("not a rescue key")

// Rescue is all that is needed to knock at one router with one device key, to be kept on paper: a key that was never on
// any disk, for the day when every device is lost.
//
//	1 length of host:port | 32 router key | 16 secret | host:port | zeros
//
// in base32, in rows of seventeen letters and three that check them, so that a slip of the pen is found in its row. The
// letters are those of Douglas Crockford's base32, which has no i, l, o and u; read are i and l as 1, and o as 0. Case,
// spaces and hyphens do not matter.
type Rescue struct {
	Router RouterPublic
	Addr   string // host:port to knock at
	secret func() [16]byte
}

const (
	rescueFixed = 1 + 32 + 16
	rowSize     = 20
	rowData     = 17
)

const rescueLetters = "0123456789abcdefghjkmnpqrstvwxyz"

var rescueEncoding = base32.NewEncoding(rescueLetters).WithPadding(base32.NoPadding)

// GenerateRescue makes a new rescue key with 16 bytes of rand, which is crypto/rand.Reader everywhere but in tests.
func GenerateRescue(rand io.Reader, router RouterPublic, addr string) (Rescue, error) {
	var secret [16]byte
	if _, err := io.ReadFull(rand, secret[:]); err != nil {
		return Rescue{}, fmt.Errorf("making a rescue key: %w", err)
	}
	v := Rescue{Router: router, Addr: addr, secret: func() [16]byte { return secret }}
	return v, v.check()
}

func (v Rescue) check() error {
	if v.Router.IsZero() || v.secret == nil || !validAddr(v.Addr) {
		return fmt.Errorf("%w: it wants a router key, a secret and host:port", ErrRescue)
	}
	return nil
}

// Device returns the device key that the secret stands for: 128 bits, which is as strong as Ed25519 is.
func (v Rescue) Device() DeviceSecret {
	if v.secret == nil {
		return DeviceSecret{}
	}
	secret := v.secret()
	return NewDeviceSecret(sha256.Sum256(append([]byte("knock rescue key 1"), secret[:]...)))
}

// Rows returns the text to write down, a row of five groups each. It is a secret.
func (v Rescue) Rows() ([]string, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	secret := v.secret()
	b := append([]byte{byte(len(v.Addr))}, v.Router.b[:]...)
	b = append(append(b, secret[:]...), v.Addr...)
	text := rescueEncoding.EncodeToString(b)
	text += strings.Repeat("0", rescueRows(len(v.Addr))*rowData-len(text))
	var rows []string
	for ; text != ""; text = text[rowData:] {
		row := text[:rowData] + rowCheck(len(rows), text[:rowData])
		rows = append(rows, strings.Join([]string{row[:4], row[4:8], row[8:12], row[12:16], row[16:]}, "-"))
	}
	return rows, nil
}

// rescueRows returns how many rows there are for a host:port of that length.
func rescueRows(addr int) int {
	letters := rescueEncoding.EncodedLen(rescueFixed + addr)
	return (letters + rowData - 1) / rowData
}

// rowCheck returns three letters that depend on a row and its place.
func rowCheck(at int, data string) string {
	h := sha256.Sum256([]byte(fmt.Sprintf("knock rescue row %d %s", at, data)))
	return rescueEncoding.EncodeToString(h[:])[:rowSize-rowData]
}

// RescueReader takes the rows of a rescue key, as somebody types them.
type RescueReader struct{ data []string }

// Missing returns how many rows are still to come: at least one until the first is there.
func (r *RescueReader) Missing() int {
	if len(r.data) == 0 {
		return 1
	}
	// The first letter and three bits of the second are the length.
	first, err := rescueEncoding.DecodeString(r.data[0][:2])
	if err != nil {
		return 1
	}
	return rescueRows(int(first[0])) - len(r.data)
}

// Add takes one or more rows. Of an error, which is an [ErrRescue] and says which row is wrong, the rows before that one
// are taken and those from it on are not.
func (r *RescueReader) Add(text string) error {
	letters := plainLetters(text)
	for ; letters != ""; letters = letters[rowSize:] {
		at := len(r.data)
		switch {
		case at > 0 && r.Missing() == 0:
			return fmt.Errorf("%w: there is more after row %d, which is the last", ErrRescue, at)
		case len(letters) < rowSize:
			return fmt.Errorf("%w: row %d is too short, it has five groups of four letters", ErrRescue, at+1)
		case rowCheck(at, letters[:rowData]) != letters[rowData:rowSize]:
			return fmt.Errorf("%w: row %d is mistyped; type it again", ErrRescue, at+1)
		}
		r.data = append(r.data, letters[:rowData])
	}
	return nil
}

// Rescue returns the key when no row is missing.
func (r *RescueReader) Rescue() (v Rescue, err error) {
	if n := r.Missing(); n > 0 {
		return v, fmt.Errorf("%w: rows are missing after row %d", ErrRescue, len(r.data))
	}
	text := strings.Join(r.data, "")
	b, err := rescueEncoding.DecodeString(text + strings.Repeat("0", (8-len(text)%8)%8))
	if err != nil || len(b) < rescueFixed+int(b[0]) {
		return v, fmt.Errorf("%w: it is of another version", ErrRescue)
	}
	v.Addr = string(b[rescueFixed : rescueFixed+int(b[0])])
	if v.Router, err = NewRouterPublic([32]byte(b[1:33])); err != nil {
		return Rescue{}, fmt.Errorf("reading the router key: %w", err)
	}
	secret := [16]byte(b[33:49])
	v.secret = func() [16]byte { return secret }
	rows, err := v.Rows()
	if err != nil {
		return Rescue{}, err
	}
	if plainLetters(strings.Join(rows, "")) != r.text() { // something stands where zeros belong
		return Rescue{}, fmt.Errorf("%w: it is of another version", ErrRescue)
	}
	return v, nil
}

// text returns the rows with their checks.
func (r *RescueReader) text() (text string) {
	for at, data := range r.data {
		text += data + rowCheck(at, data)
	}
	return text
}

// ParseRescue reads a whole rescue key.
func ParseRescue(text string) (Rescue, error) {
	var r RescueReader
	if err := r.Add(text); err != nil {
		return Rescue{}, err
	}
	return r.Rescue()
}

// plainLetters returns what was meant by what was typed.
func plainLetters(text string) string {
	return strings.Map(func(c rune) rune {
		switch c {
		case ' ', '-', '\t', '\r', '\n':
			return -1
		case 'i', 'l', 'I', 'L':
			return '1'
		case 'o', 'O':
			return '0'
		}
		if c >= 'A' && c <= 'Z' {
			return c - 'A' + 'a'
		}
		if c > 'z' {
			return '?' // one byte, and no letter
		}
		return c
	}, text)
}

// WriteQR writes the rescue key as a QR code of half blocks, for a terminal.
func (v Rescue) WriteQR(w io.Writer) error {
	rows, err := v.Rows()
	if err != nil {
		return err
	}
	// In capitals it is of the alphabet that QR codes have a denser form for.
	return writeQR(w, strings.ToUpper(strings.Join(rows, "-")))
}

const hiddenRescue = "[rescue key]"

// String returns a placeholder.
func (v Rescue) String() string { return hiddenRescue }

// GoString returns a placeholder.
func (v Rescue) GoString() string { return hiddenRescue }

// Format writes a placeholder, whatever the verb.
func (v Rescue) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hiddenRescue) }

// LogValue returns a placeholder.
func (v Rescue) LogValue() slog.Value { return slog.StringValue(hiddenRescue) }

// MarshalText always fails with [ErrSecret]; use Rows where the secret is meant.
func (v Rescue) MarshalText() ([]byte, error) { return nil, ErrSecret }
