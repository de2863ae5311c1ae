package keys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// ErrInsecure means that others can read a key file, or that it belongs to someone else.
var ErrInsecure = errors.New("insecure key file")

// maxFile bounds what is read of a key file; a real one has about 200 bytes.
const maxFile = 4096

// remedies say how each secret is made, for the errors of its file.
var remedies = map[role]string{
	routerSecret: "spad init makes one",
	deviceSecret: "knock enroll makes one",
	remoteSecret: "spad run makes one",
}

// ReadRouterFile reads a router's key file: lines with '#' in front and one secret
// key. On Unix it refuses with [ErrInsecure], and says the command that mends it, a
// file that others may read or that belongs to someone else. A file that is missing
// is an fs.ErrNotExist; other content is an [ErrText] or [ErrRole].
func ReadRouterFile(path string) (RouterSecret, error) {
	b, err := readFile(path, routerSecret)
	if err != nil {
		return RouterSecret{}, err
	}
	return NewRouterSecret(b)
}

// ReadDeviceFile reads a device's key file, in the same way as [ReadRouterFile].
func ReadDeviceFile(path string) (DeviceSecret, error) {
	b, err := readFile(path, deviceSecret)
	if err != nil {
		return DeviceSecret{}, err
	}
	return NewDeviceSecret(b), nil
}

// WriteRouterFile writes a router's key file, mode 0600. It is there whole and
// lasting when the call returns, or not at all. A file that exists is never
// overwritten: errors.Is(err, fs.ErrExist).
func WriteRouterFile(path string, k RouterSecret) error {
	if k.IsZero() {
		return fmt.Errorf("writing router key %q: %w", path, ErrZero)
	}
	return writeFile(path, routerSecret, fileText("router", k.Public().String(), k.Text()))
}

// WriteDeviceFile writes a device's key file, in the same way as [WriteRouterFile].
func WriteDeviceFile(path string, k DeviceSecret) error {
	if k.IsZero() {
		return fmt.Errorf("writing device key %q: %w", path, ErrZero)
	}
	return writeFile(path, deviceSecret, fileText("device", k.Public().String(), k.Text()))
}

func fileText(what, public, secret string) []byte {
	return fmt.Appendf(nil, "# secret key of this %s; show it to nobody\n# public key: %s\n%s\n", what, public, secret)
}

func readFile(path string, r role) (b [32]byte, err error) {
	data, err := readOwned(path, r.name(), remedies[r])
	if err != nil {
		return b, err
	}
	if b, err = parseFile(data, r); err != nil {
		return b, fmt.Errorf("reading %s %q: %w; restore it from a backup, or move it away (%s)", r.name(), path, err, remedies[r])
	}
	return b, nil
}

// readOwned reads a small file that is this user's alone. The name says what it holds, the remedy how it is made.
func readOwned(path, name, remedy string) ([]byte, error) {
	f, err := openKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s %q: %w; %s", name, path, reason(err), remedy)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %q: %w", name, path, reason(err))
	}
	defer f.Close() // only read
	if err := checkFile(f, path); err != nil {
		return nil, fmt.Errorf("reading %s %q: %w", name, path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s %q: %w", name, path, reason(err))
	}
	return data, nil
}

func checkFile(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return reason(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	return checkOwner(info, path)
}

// parseFile finds the one key among comments and empty lines.
func parseFile(data []byte, r role) (b [32]byte, err error) {
	text, err := onlyLine(data)
	if err != nil {
		return b, err
	}
	return r.parse(text)
}

// onlyLine returns the one line that is neither a comment nor empty.
func onlyLine(data []byte) (string, error) {
	if len(data) > maxFile {
		return "", fmt.Errorf("%w: the file is larger than %d bytes", ErrText, maxFile)
	}
	var found []string
	for line := range bytes.Lines(data) {
		if text := strings.TrimSpace(string(line)); text != "" && text[0] != '#' {
			found = append(found, text)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: the file holds none", ErrText)
	case 1:
		return found[0], nil
	default:
		return "", fmt.Errorf("%w: the file holds %d lines where one key belongs", ErrText, len(found))
	}
}

func writeFile(path string, r role, data []byte) error {
	err := createFile(path, data)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing %s %q: %w and is kept; move it away to make a new key", r.name(), path, reason(err))
	}
	if err != nil {
		return fmt.Errorf("writing %s %q: %w", r.name(), path, reason(err))
	}
	return nil
}

// createExclusive writes a file that must not exist yet, for systems without hard
// links. A failed write takes the file away again; a crash may leave part of one,
// which reads as cut short.
func createExclusive(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := fill(f, data); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// fill writes and closes a new file, on disk when it returns.
func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// reason takes the path off an error of package os, so that a message names it once.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}
