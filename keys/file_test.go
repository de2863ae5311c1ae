package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// kind lets the tests of key files run for both roles.
type kind struct {
	write, writeZero  func(path string) error
	read              func(path string) (string, error)
	text, public      string
	otherText, remedy string
}

var kinds = map[string]kind{
	"router": {
		write:     func(p string) error { return WriteRouterFile(p, testRouter) },
		writeZero: func(p string) error { return WriteRouterFile(p, RouterSecret{}) },
		read:      func(p string) (string, error) { k, err := ReadRouterFile(p); return k.Text(), err },
		text:      testRouter.Text(), public: testRouter.Public().String(), otherText: testDevice.Text(), remedy: "spad init",
	},
	"device": {
		write:     func(p string) error { return WriteDeviceFile(p, testDevice) },
		writeZero: func(p string) error { return WriteDeviceFile(p, DeviceSecret{}) },
		read:      func(p string) (string, error) { k, err := ReadDeviceFile(p); return k.Text(), err },
		text:      testDevice.Text(), public: testDevice.Public().String(), otherText: testRouter.Text(), remedy: "knock enroll",
	},
}

func eachKind(t *testing.T, f func(t *testing.T, k kind, path string)) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) { f(t, k, filepath.Join(t.TempDir(), "a key")) })
	}
}

func TestFileRoundTrip(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		if err := k.write(path); err != nil {
			t.Fatal(err)
		}
		if got, err := k.read(path); err != nil || got != k.text {
			t.Errorf("read back wrong, %v", err)
		}
		data := string(must(os.ReadFile(path)))
		if !strings.Contains(data, "# public key: "+k.public+"\n") || !strings.HasSuffix(data, "\n"+k.text+"\n") {
			t.Error("file is not comments, public key, secret key")
		}
		onlyFile(t, path)
	})
}

// onlyFile fails if there is anything but this file in its folder.
func onlyFile(t *testing.T, path string) {
	t.Helper()
	for _, e := range must(os.ReadDir(filepath.Dir(path))) {
		if e.Name() != filepath.Base(path) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestFileContents(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		body := k.text[strings.Index(k.text, ":")+1:]
		for name, c := range map[string]struct {
			data string
			want error
			says string
		}{
			"bare":                {k.text, nil, ""},
			"Windows line ends":   {"# a comment\r\n" + k.text + "\r\n", nil, ""},
			"blank lines":         {"\n\n  " + k.text + "  \n\n# " + k.text + "\n", nil, ""},
			"empty":               {"", ErrText, "holds none"},
			"only comments":       {"# nothing\n", ErrText, "holds none"},
			"cut in the key":      {k.text[:len(k.text)-5], ErrText, "cut short"},
			"cut in the prefix":   {k.text[:7], ErrText, "starts with"},
			"zeros after a crash": {strings.Repeat("\x00", 200), ErrText, "starts with"},
			"two keys":            {k.text + "\n" + k.text + "\n", ErrText, "2 lines"},
			"other role":          {k.otherText + "\n", ErrRole, "this is a"},
			"public key":          {k.public + "\n", ErrRole, "this is a"},
			"garbage":             {"\x7fELF\x02\x01\n", ErrText, "starts with"},
			"large":               {"#" + strings.Repeat("#\n", 4000) + k.text, ErrText, "larger than"},
		} {
			t.Run(name, func(t *testing.T) {
				if err := os.WriteFile(path, []byte(c.data), 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := k.read(path)
				if c.want == nil {
					if err != nil || got != k.text {
						t.Errorf("not read: %v", err)
					}
					return
				}
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), k.remedy) {
					t.Errorf("error %v, want %v that says %q and %q", err, c.want, c.says, k.remedy)
				}
				echoes(t, err, body)
				echoes(t, err, k.otherText[strings.Index(k.otherText, ":")+1:])
			})
		}
	})
}

func TestFileMissing(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		_, err := k.read(path)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), k.remedy) || strings.Count(err.Error(), filepath.Base(path)) != 1 {
			t.Errorf("error %v", err)
		}
		if _, err := k.read(filepath.Dir(path)); err == nil {
			t.Error("a folder was read as a key")
		}
	})
}

func TestFileIsNeverOverwritten(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := k.write(path)
		if !errors.Is(err, fs.ErrExist) || strings.Count(err.Error(), filepath.Base(path)) != 1 || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("error %v", err)
		}
		if got := string(must(os.ReadFile(path))); got != "mine" {
			t.Errorf("file is now %q", got)
		}
		onlyFile(t, path)
	})
}

func TestFileCannotBeWritten(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind, path string) {
		if err := k.writeZero(path); !errors.Is(err, ErrZero) {
			t.Errorf("zero key: %v", err)
		}
		if err := k.write(filepath.Join(path, "missing", "key")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("missing folder: %v", err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is something all the same: %v", err)
		}
	})
}

// TestFileOneWinner lets many write at once, each its own key.
func TestFileOneWinner(t *testing.T) {
	for name, write := range map[string]func(string, DeviceSecret) error{
		"linked":    WriteDeviceFile,
		"exclusive": func(p string, k DeviceSecret) error { return createExclusive(p, fileText("device", "", k.Text())) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "device.key")
			var won sync.Map
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					k := NewDeviceSecret(testBytes(byte(i)))
					switch err := write(path, k); {
					case err == nil:
						won.Store(k.Text(), true)
					case !errors.Is(err, fs.ErrExist):
						t.Errorf("writer %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			n := 0
			won.Range(func(any, any) bool { n++; return true })
			if n != 1 {
				t.Errorf("%d writers won", n)
			}
			k, err := ReadDeviceFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := won.Load(k.Text()); !ok {
				t.Error("the file is not the winner's")
			}
			onlyFile(t, path)
		})
	}
}

func TestCreateExclusiveRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := createExclusive(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := createExclusive(path, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second write: %v", err)
	}
	if got := string(must(os.ReadFile(path))); got != "one" {
		t.Errorf("file is %q", got)
	}
}

func TestReason(t *testing.T) {
	inner := errors.New("inner")
	for name, err := range map[string]error{
		"path":  &fs.PathError{Op: "open", Path: "/p", Err: inner},
		"link":  &os.LinkError{Op: "link", Old: "/a", New: "/b", Err: inner},
		"plain": inner,
	} {
		if got := reason(err); got != inner {
			t.Errorf("%s: %v", name, got)
		}
	}
}
