//go:build unix

package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// openKey opens without waiting: a named pipe in the place of a key must not hang the caller.
func openKey(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// checkOwner refuses a file that others may read or write, or that belongs to someone
// who is neither this user nor root. It looks at the opened file, behind symbolic
// links and without a race.
func checkOwner(info fs.FileInfo, path string) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%w: its owner is unknown", ErrInsecure)
	}
	if me := os.Geteuid(); int(st.Uid) != me && st.Uid != 0 {
		return fmt.Errorf("%w: it belongs to user %d; mend it with: chown %d %s", ErrInsecure, st.Uid, me, quote(path))
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w: its mode %04o lets others in; mend it with: chmod 600 %s", ErrInsecure, mode, quote(path))
	}
	return nil
}

// quote makes a path safe to paste into a shell.
func quote(path string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("/._-+", c)
	}
	if strings.IndexFunc(path, func(c rune) bool { return !plain(c) }) < 0 && !strings.HasPrefix(path, "-") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// createFile writes the whole file under a name of its own and links it to path: link
// fails if path exists, so of two writers one wins and nothing is ever half there.
func createFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // O_EXCL, 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // the second name; if it stays, it is a key nobody uses
	if err := fill(f, data); err != nil {
		return err
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported) { // vfat, some network disks
		err = createExclusive(path, data)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new name in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) { // a file system that can't sync a folder
		err = nil
	}
	return errors.Join(err, d.Close())
}
