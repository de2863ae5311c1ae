package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"
)

// A service has a user of its own, whom the key, the state and what is written there must belong to. So a command that
// root types does its work on files as the user that their folder belongs to: it makes nothing that the daemon can't
// read, and sees what the daemon will see.

// account is a user and its group.
type account struct{ uid, gid int }

// ownerOf returns whom a folder belongs to; root if it is not there.
func ownerOf(folder string) account {
	info, err := os.Stat(folder)
	if err != nil {
		return account{}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return account{}
	}
	return account{int(st.Uid), int(st.Gid)}
}

// owner returns whom the daemon's files belong to: the state, if there is one for another user than root, else the
// configuration.
func (p paths) owner() account {
	return cmp.Or(ownerOf(p.state), ownerOf(filepath.Dir(p.config)))
}

// as calls f as another user, if we are root and may. The real user stays root: the other one can't send us signals.
func as(a account, f func() error) error {
	if os.Geteuid() != 0 || a.uid == 0 {
		return f()
	}
	group := os.Getegid()
	if syscall.Setresgid(-1, a.gid, -1) != nil || syscall.Setresuid(-1, a.uid, -1) != nil {
		// A user that this namespace does not know. What we may not do as we are says so itself.
		_ = syscall.Setresgid(-1, group, -1)
		return f()
	}
	err := f()
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w (done as user %d, whom the folder belongs to, as the daemon would be: give the file to that user)", err, a.uid)
	}
	return errors.Join(err, syscall.Setresuid(-1, 0, -1), syscall.Setresgid(-1, group, -1))
}

// asOwner makes an action one that is done as the owner of the daemon's files.
func asOwner(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error { return as(pathsOf(c).owner(), func() error { return action(c) }) }
}

// notForRoot refuses to run the daemon as root on the files of another user, whose service could not read them afterwards.
func notForRoot(p paths) error {
	if a := p.owner(); os.Geteuid() == 0 && a.uid != 0 {
		return usagef("the files belong to user %d, whose service this is: start that (systemctl start spad), or run this as that user", a.uid)
	}
	return nil
}
