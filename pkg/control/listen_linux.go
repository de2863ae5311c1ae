package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens the control socket at path, with mode 0600, and makes its folder (0700) if there is none. A socket left
// by a daemon that is gone is replaced. If a daemon is alive the error is ErrInUse; of two that start at once exactly
// one gets the socket, because each first takes a lock on path.lock and keeps it until the listener is closed.
//
// The listener closes connections of other users than its own and root at once, whatever the socket's mode has become.
func Listen(path string) (net.Listener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the control socket's folder: %w", err)
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &listener{UnixListener: l, lock: lock}, nil
}

// takeLock takes the lock beside path. The file stays when the daemon goes: removing it would let two starters hold
// locks on two files of one name. The kernel drops the lock with the process.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the control socket: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = inUse(path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func inUse(path string) error {
	return fmt.Errorf("%w: another spad runs at %s; stop it, or choose another place with --socket", ErrInUse, path)
}

// bind makes the socket, with the lock held.
func bind(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The mode of the socket's own inode becomes the mode of its name (net/unix/af_unix.c, unix_bind_bsd), so there is
	// no moment in which others could connect, and no umask of the whole process to change.
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// removeStale removes a socket that nobody answers at. It never removes anything else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at the control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is not a socket: remove it, or choose another place with --socket", path)
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return inUse(path)
	case errors.Is(err, syscall.EAGAIN): // alive, its queue is full
		return inUse(path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("trying the control socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the stale control socket: %w", err)
	}
	return nil
}

// listener is the socket and its lock.
type listener struct {
	*net.UnixListener
	lock *os.File
}

// Accept returns the next connection of a user who may have one.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(c); err == nil && (uid == 0 || uid == uint32(os.Geteuid())) {
			return c, nil
		}
		c.Close()
	}
}

// peer returns the user at the other end, as the kernel knows it.
func peer(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if serr != nil {
		return 0, serr
	}
	return cred.Uid, nil
}

// Close removes the socket, then lets go of the lock: in this order, so that the next daemon finds neither in its way.
func (l *listener) Close() error {
	return errors.Join(l.UnixListener.Close(), l.lock.Close())
}
