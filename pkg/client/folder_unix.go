//go:build unix

package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// tryLock takes the lock if nobody has it. The kernel lets go of it when the file is
// closed, also by a process that was killed.
func tryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		default:
			return err == nil, err
		}
	}
}

// replace puts data in the place of a file: all of it, on disk, or not at all.
func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	return syncDir(dir) // renameio leaves the new name itself to the kernel
}

// syncDir makes the names in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) { // a file system that can't sync a folder
		err = nil
	}
	return errors.Join(err, d.Close())
}

// private refuses a file that others may read or write, or that is somebody else's.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return privateInfo(info, f.Name(), os.Geteuid())
}

func privateInfo(info fs.FileInfo, path string, me int) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != me && st.Uid != 0 {
		return fmt.Errorf("it belongs to user %d; mend it with: chown %d %q", st.Uid, me, path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("its mode %04o lets others in; mend it with: chmod 600 %q", mode, path)
	}
	return nil
}
