package replay

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	j, err := Open(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Save(); err != nil {
		t.Fatal(err)
	}
	running, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	clean, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(running)
	broken[len(broken)-1] ^= 1
	for _, tt := range []struct {
		name    string
		data    []byte // nil: no file
		missing bool
		killed  bool
		damaged bool
		saved   bool
		bad     bool
	}{
		{name: "clean", data: clean, saved: true},
		{name: "in use", data: running, killed: true, saved: true},
		{name: "missing", missing: true},
		{name: "cut short", data: clean[:len(clean)-1], damaged: true, saved: true},
		{name: "damaged", data: broken, damaged: true},
		{name: "empty", data: []byte{}, damaged: true},
		{name: "newer", data: header(version + 1), bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal")
			if tt.data != nil {
				if err := os.WriteFile(path, tt.data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c, err := Inspect(path)
			if c.Missing != tt.missing || c.Killed != tt.killed || (c.Damage != "") != tt.damaged || (err != nil) != tt.bad {
				t.Errorf("%+v, %v", c, err)
			}
			if saved := c.Saved.After(time.Now().Add(-time.Hour)); saved != tt.saved {
				t.Errorf("saved %v", c.Saved)
			}
			if now, err := os.ReadFile(path); tt.data != nil && (err != nil || !bytes.Equal(now, tt.data)) {
				t.Errorf("the journal was changed: %v", err)
			}
		})
	}
}
