package device

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPeek looks into a state that somebody else has, and into what is none.
func TestPeek(t *testing.T) {
	s, dir := open(t, "")
	defer s.Close()
	invited(t, s, "laptop")
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	far := time.Now().AddDate(100, 0, 0).UnixMilli()
	for _, tt := range []struct {
		name    string
		dir     string
		now     int64
		invites int
		bad     bool
	}{
		{"in use", dir, s.now(), 1, false},
		{"long after", dir, far, 0, false},
		{"missing", filepath.Join(dir, "none"), 0, 0, false},
		{"damaged", damaged(t), 0, 0, true},
	} {
		devices, invites, err := Peek(tt.dir, tt.now)
		if len(devices) != 0 || invites != tt.invites || (err != nil) != tt.bad {
			t.Errorf("%s: %v, %d invites, %v", tt.name, devices, invites, err)
		}
	}
	if after, err := os.ReadDir(dir); err != nil || len(after) != len(before) {
		t.Errorf("%v became %v, %v", before, after, err)
	}
}

func damaged(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
