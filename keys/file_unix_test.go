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
	"testing"
)

func TestFileMode(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		defer syscall.Umask(syscall.Umask(0))
		if err := k.write(path); err != nil {
			t.Fatal(err)
		}
		if mode := must(os.Stat(path)).Mode(); mode != 0o600 {
			t.Errorf("written with mode %v", mode)
		}
		for mode, good := range map[fs.FileMode]bool{
			0o600: true, 0o400: true, 0o700: true,
			0o640: false, 0o604: false, 0o620: false, 0o602: false, 0o610: false, 0o644: false, 0o777: false,
		} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := k.read(path)
			if good != (err == nil) {
				t.Errorf("mode %04o: %v", mode, err)
			}
			if !good && (!errors.Is(err, ErrInsecure) || !strings.Contains(err.Error(), "chmod 600 '"+path+"'")) {
				t.Errorf("mode %04o: error %v names no remedy", mode, err)
			}
		}
	})
}

func TestFileSymlink(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		target := filepath.Join(t.TempDir(), "target")
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if err := k.write(path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("written through a dangling link: %v", err)
		}
		if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the target is there: %v", err)
		}
		if err := createExclusive(path, []byte("x")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("written exclusively through a dangling link: %v", err)
		}
		if err := k.write(target); err != nil {
			t.Fatal(err)
		}
		if got, err := k.read(path); err != nil || got != k.text {
			t.Errorf("a link to a good file: %v", err)
		}
		if err := os.Chmod(target, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := k.read(path); !errors.Is(err, ErrInsecure) {
			t.Errorf("a link to a file that others may read: %v", err)
		}
	})
}

func TestFileForeignOwner(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		if err := k.write(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Skipf("can't give a file away: %v", err)
		}
		_, err := k.read(path)
		if want := fmt.Sprintf("chown %d '%s'", os.Geteuid(), path); !errors.Is(err, ErrInsecure) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %v that says %q", err, ErrInsecure, want)
		}
	})
}

// owned is a file as the system would describe it.
type owned struct {
	fs.FileInfo
	uid  int
	mode fs.FileMode
	sys  any
}

func (o owned) Mode() fs.FileMode { return o.mode }

func (o owned) Sys() any {
	if o.sys != nil {
		return o.sys
	}
	return &syscall.Stat_t{Uid: uint32(o.uid)}
}

func TestCheckOwner(t *testing.T) {
	me := os.Geteuid()
	for name, c := range map[string]struct {
		info owned
		good bool
	}{
		"mine":             {owned{uid: me, mode: 0o600}, true},
		"root's":           {owned{uid: 0, mode: 0o600}, true},
		"someone else's":   {owned{uid: me + 1, mode: 0o600}, false},
		"mine, readable":   {owned{uid: me, mode: 0o640}, false},
		"root's, readable": {owned{uid: 0, mode: 0o604}, false},
		"owner unknown":    {owned{sys: "?", mode: 0o600}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkOwner(c.info, "/k")
			if c.good != (err == nil) || err != nil && !errors.Is(err, ErrInsecure) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestFileNamedPipe hangs if the file is opened without care.
func TestFileNamedPipe(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Skipf("no named pipes here: %v", err)
		}
		if _, err := k.read(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("error %v", err)
		}
	})
}

func TestQuote(t *testing.T) {
	for path, want := range map[string]string{
		"/etc/spad/router.key": "/etc/spad/router.key",
		"/home/a b/k":          "'/home/a b/k'",
		"/it's/k":              `'/it'\''s/k'`,
		"/$(reboot)":           "'/$(reboot)'",
		"-rf":                  "'-rf'",
	} {
		if got := quote(path); got != want {
			t.Errorf("quote(%q) = %s, want %s", path, got, want)
		}
	}
}
