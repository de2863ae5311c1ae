//go:build unix

package client

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInsecureFiles(t *testing.T) {
	s := newScene(t)
	for _, name := range []string{"device.key", "config.toml", "clocks"} {
		t.Run(name, func(t *testing.T) {
			path := s.folder.file(name)
			if _, err := os.Stat(path); err != nil {
				if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			var err error
			switch name {
			case "device.key":
				_, _, err = s.Device()
			case "config.toml":
				_, err = s.Routers()
			default:
				_, err = (&memory{folder: s.folder}).load()
			}
			if !errors.As(err, new(*ConfigError)) || !strings.Contains(err.Error(), "chmod 600") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestForeignFiles(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Chown(4711, -1); err != nil {
		t.Skipf("needs the right to give files away: %v", err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := privateInfo(info, f.Name(), 1000); err == nil || !strings.Contains(err.Error(), "chown 1000") {
		t.Errorf("error %v", err)
	}
	if err := privateInfo(info, f.Name(), 4711); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

func TestFolderIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "knock")
	c, err := New(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if c.Dir() != dir {
		t.Errorf("Dir() = %q", c.Dir())
	}
	if _, err := New(Options{Dir: dir}); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

func TestReplacedFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := replace(path, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
