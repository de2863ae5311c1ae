package control

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// makeStale leaves a socket at path that nobody listens on, as a killed daemon does.
func makeStale(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestSocketMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // the worst one
	path := filepath.Join(t.TempDir(), "run", "spad", "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		path:               fs.ModeSocket | 0o600,
		path + ".lock":     0o600,
		filepath.Dir(path): fs.ModeDir | 0o700,
	} {
		if i, err := os.Stat(name); err != nil || i.Mode() != want {
			t.Errorf("%s: %v, %v", name, i.Mode(), err)
		}
	}
	l.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestExistingFolderKeepsItsMode(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if i, _ := os.Stat(dir); i.Mode().Perm() != 0o755 {
		t.Errorf("mode %v", i.Mode())
	}
}

func TestListenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("second: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first one's socket: %v", err)
	}
	first.Close()
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("after the first one has gone: %v", err)
	}
	again.Close()
}

func TestListenWhere(t *testing.T) {
	for _, tt := range []struct {
		name string
		put  func(t *testing.T, path string)
		says string // empty: it works
	}{
		{"nothing there", func(*testing.T, string) {}, ""},
		{"stale socket", makeStale, ""},
		{"old lock", func(t *testing.T, path string) { write0(t, path+".lock") }, ""},
		{"socket of a program without our lock", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "in use"},
		{"file", write0, "is not a socket"},
		{"folder", func(t *testing.T, path string) { os.Mkdir(path, 0o700) }, "is not a socket"},
		{"link to nowhere", func(t *testing.T, path string) { os.Symlink("/none", path) }, "is not a socket"},
		{"link to a stale socket", func(t *testing.T, path string) {
			makeStale(t, path+"2")
			os.Symlink(path+"2", path)
		}, "is not a socket"},
		{"lock is a link", func(t *testing.T, path string) { os.Symlink(path+"3", path+".lock") }, "locking the control socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			tt.put(t, path)
			before, _ := os.Lstat(path)
			l, err := Listen(path)
			if tt.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				l.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v", err)
			}
			if before == nil {
				return
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("what was there has gone: %v", err)
			}
		})
	}
}

func write0(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestListenPath(t *testing.T) {
	dir := t.TempDir()
	fill := func(n int) string { return filepath.Join(dir, strings.Repeat("x", n-len(dir)-1)) }
	l, err := Listen(fill(maxPath))
	if err != nil {
		t.Errorf("the longest path: %v", err)
	} else {
		l.Close()
	}
	for name, path := range map[string]string{"too long": fill(maxPath + 1), "empty": "", "abstract": "@spad"} {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "path") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Listen("/proc/none/s"); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("a folder that can't be made: %v", err)
	}
}

func TestOneOfManyStartersWins(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		makeStale(t, path)
		var mu sync.Mutex
		var won []net.Listener
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l, err := Listen(path)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, l)
				case !errors.Is(err, ErrInUse):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d won", len(won))
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Errorf("the winner can't be reached: %v", err)
		} else {
			c.Close()
		}
		won[0].Close()
	}
}

// asNobody runs f on a thread of another user, or skips the test.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set := func(uid uintptr) {
		keep := ^uintptr(0)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep); e != 0 { // this thread alone
			t.Skipf("becoming another user: %v", e)
		}
	}
	set(65534)
	defer set(0)
	f()
}

func TestUserWithoutRights(t *testing.T) {
	dir, err := os.MkdirTemp("", "spad")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	path := filepath.Join(dir, "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := (&fake{}).serve(t, l)
	c := NewClient(path)
	asNobody(t, func() {
		if _, err := c.dial(t.Context(), "", ""); err == nil || !strings.Contains(err.Error(), "no permission for "+path) {
			t.Errorf("by mode: %v", err)
		}
	})
	// Somebody made the socket everyone's: the kernel still says who is there.
	os.Chmod(path, 0o777)
	asNobody(t, func() {
		conn, err := c.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "POST /v1/stop HTTP/1.1\r\nHost: x\r\n\r\n")
		if b, _ := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("answer %q", b)
		}
	})
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("our own user: %v", err)
	}
	if n := len(s.calls()); n != 1 {
		t.Errorf("%d calls came", n)
	}
}
