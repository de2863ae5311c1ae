package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

const (
	fileName = "devices.json"
	lockName = "lock"
)

// makeDir makes the state directory, or checks that nobody else can put things there.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if err := checkOwner(dir, info); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %04o); mend that with: chmod 700 %s", mode, dir)
	}
	return nil
}

func checkOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if me := os.Geteuid(); ok && int64(st.Uid) != int64(me) {
		return fmt.Errorf("it belongs to user %d and spad runs as user %d; mend that with: chown %d %s", st.Uid, me, me, path)
	}
	return nil
}

// lock takes the lock of the state directory until the file is closed or the process ends, however.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: another spad has this state; stop it, or give this one a --state of its own", ErrLocked)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readState reads the file; a missing one is an empty state.
func readState(path string) (state, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	if err := checkOwner(path, info); err != nil {
		return state{}, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return state{}, fmt.Errorf("others may read or write it (mode %04o); mend that with: chmod 600 %s", mode, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return state{}, err
	}
	s, err := decode(b)
	if err != nil {
		return state{}, fmt.Errorf("%w; put back a good copy, or move the file away and enrol every device again", err)
	}
	return s, nil
}

// writeFile replaces the file, all of it or nothing, durably, readable by its owner alone.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	p, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer p.Cleanup() // what is left is removed at the next start
	if _, err := p.Write(data); err != nil {
		return err
	}
	if err := p.CloseAtomicallyReplace(); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeLeftovers removes the temporary files of writes that a crash cut short. The lock must be held.
func removeLeftovers(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		number, ours := strings.CutPrefix(e.Name(), "."+filepath.Base(path))
		if ours && number != "" && strings.Trim(number, "0123456789") == "" {
			err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return err
}
