package device

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/keys"
)

func TestModes(t *testing.T) {
	s, dir := open(t, "")
	invited(t, s, "laptop")
	for path, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, fileName: 0o600, lockName: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode() != want {
			t.Errorf("%q has mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestLock(t *testing.T) {
	s, dir := open(t, "")
	if _, err := Open(dir, nil); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "--state") {
		t.Errorf("a second store: %v, want %v", err, ErrLocked)
	}
	reopened(t, s, dir)
}

func TestOpenUsesTheSystemClock(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if now := time.Now().UnixMilli(); s.now() < now-minute || s.now() > now+minute {
		t.Errorf("now is %d, want about %d", s.now(), now)
	}
}

// TestOpenRefuses opens what it must not trust, and checks that it leaves it alone.
func TestOpenRefuses(t *testing.T) {
	good, err := goodState().encode()
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte, mode os.FileMode) func(string) error {
		return func(dir string) error {
			path := filepath.Join(dir, fileName)
			return errors.Join(os.WriteFile(path, data, 0o600), os.Chmod(path, mode))
		}
	}
	for _, c := range []struct {
		name string
		make func(dir string) error
		want string
	}{
		{"directory writable by its group", func(d string) error { return os.Chmod(d, 0o770) }, "chmod 700 "},
		{"directory writable by all", func(d string) error { return os.Chmod(d, 0o707) }, "chmod 700 "},
		{"no directory", func(d string) error { return errors.Join(os.Remove(d), os.WriteFile(d, nil, 0o600)) }, "not a directory"},
		{"lock is a directory", func(d string) error { return os.Mkdir(filepath.Join(d, lockName), 0o700) }, "is a directory"},
		{"file is a directory", func(d string) error { return os.Mkdir(filepath.Join(d, fileName), 0o700) }, "is a directory"},
		{"file readable by its group", write(good, 0o640), "chmod 600 "},
		{"file writable by all", write(good, 0o602), "chmod 600 "},
		{"damaged file", write(good[:40], 0o600), "put back a good copy"},
		{"newer file", write([]byte(`{"version":2,"new":1}`), 0o600), "run the spad that wrote it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(filepath.Join(dir, fileName))
			_, err := Open(dir, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want one with %q and the path", err, c.want)
			}
			if after, _ := os.ReadFile(filepath.Join(dir, fileName)); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpenRefusesForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a file away needs root")
	}
	for _, name := range []string{"", fileName} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), 1, -1); err != nil {
			t.Skipf("giving a file away: %v", err)
		}
		if _, err := Open(dir, nil); err == nil || !strings.Contains(err.Error(), "chown 0 ") {
			t.Errorf("%q belongs to another: %v, want an error with chown", name, err)
		}
	}
}

func TestOpenNeedsItsParent(t *testing.T) {
	if _, err := Open("/dev/null/state", nil); err == nil {
		t.Error("opened below a file")
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	s, dir := open(t, "")
	invited(t, s, "laptop")
	for _, name := range []string{".devices.json12", ".devices.jsonx", ".replay.journal5"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reopened(t, s, dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".devices.jsonx", ".replay.journal5", fileName, lockName}, names); diff != "" {
		t.Error(diff)
	}
}

// goodState is a state with everything in it.
func goodState() state {
	return state{
		devices: []Device{
			{Name: "laptop", Key: alice, Allow: []string{"ssh"}, Enrolled: time.UnixMilli(noon).UTC()},
			{Name: "phone", Key: bob, Allow: []string{"group:family", "nas"}, Disabled: true, Delegate: true, Expires: time.UnixMilli(noon + 1).UTC()},
		},
		invites: []invite{
			{token: keys.Token{ID: keys.TokenID{1}, Secret: keys.TokenSecret{2}}, name: "tablet", allow: []string{"ssh"}, expiresMS: noon},
			{token: keys.Token{ID: keys.TokenID{3}}, name: "laptop", allow: []string{"ssh"}, expiresMS: noon + 1, usedBy: alice},
		},
	}
}

func TestEncodeDecode(t *testing.T) {
	for name, s := range map[string]state{"nothing": {}, "everything": goodState()} {
		data, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(data)
		if diff := cmp.Diff(s, got, exact, empty); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", name, err, diff)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := goodState().encode()
	if err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) string {
		if !strings.Contains(string(good), old) {
			t.Fatalf("the good file has no %s", old)
		}
		return strings.Replace(string(good), old, new, 1)
	}
	for _, c := range []struct{ name, data, want string }{
		{"empty", "", "not JSON"},
		{"not JSON", "devices = 1", "not JSON"},
		{"cut short", string(good[:len(good)-3]), "cut short"},
		{"a list", "[]", "not JSON"},
		{"no version", "{}", "version 0"},
		{"newer, with new fields", `{"version": 2, "new": 1}`, "run the spad that wrote it"},
		{"unknown field", swap(`"version": 1`, `"version": 1, "extra": 1`), "unknown"},
		{"unknown field of a device", swap(`"name": "laptop"`, `"name": "laptop", "root": true`), "unknown"},
		{"wrong type", swap(`"disabled": true`, `"disabled": 1`), "wrong kind"},
		{"something after the end", string(good) + "{}", "follows"},
		{"garbled key", swap("knock-device:", "knock-device:_"), "wrong kind"},
		{"router key", swap("knock-device:", "knock-router:"), "wrong kind"},
		{"device without a key", `{"version":1,"devices":[{"name":"a","allow":["ssh"]}]}`, "no key"},
		{"bad device name", swap(`"name": "laptop"`, `"name": "LAPTOP"`), "1 to 32"},
		{"device twice", swap(`"name": "phone"`, `"name": "laptop"`), "exists"},
		{"key twice", swap(bob.String(), alice.String()), "exists"},
		{"bad invite name", swap(`"name": "tablet"`, `"name": ""`), "invite 1"},
		{"short token id", swap(`"id": "AQAAAAAA"`, `"id": "AQAA"`), "invite 1: token of the wrong length"},
		{"long secret", swap(`"secret": "`, `"secret": "AAAA`), "invite 1: token of the wrong length"},
		{"token twice", swap(`"id": "AwAAAAAA"`, `"id": "AQAAAAAA"`), "invite 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := decode([]byte(c.data))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if len(s.devices)+len(s.invites) != 0 {
				t.Error("something was read all the same")
			}
		})
	}
}

// TestErrorsKeepSecrets damages a file with a token in every byte.
func TestErrorsKeepSecrets(t *testing.T) {
	s := goodState()
	s.invites[0].token.Secret = keys.TokenSecret([]byte("0123456789abcdef"))
	secret := base64.StdEncoding.EncodeToString(s.invites[0].token.Secret[:])
	good, err := s.encode()
	if err != nil || !strings.Contains(string(good), secret) {
		t.Fatalf("the secret is not in the file as %q: %v", secret, err)
	}
	refused := 0
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] = '"'
		if _, err := decode(bad); err != nil {
			refused++
			for n := 0; n+4 <= len(secret); n++ {
				if strings.Contains(err.Error(), secret[n:n+4]) {
					t.Fatalf("byte %d: the error %q has a piece of the secret", at, err)
				}
			}
		}
	}
	if refused < len(good)/2 {
		t.Errorf("only %d of %d damaged files were refused", refused, len(good))
	}
}

// FuzzDecode asserts that what is read is written again in one spelling, and read again as the same.
func FuzzDecode(f *testing.F) {
	var seeds [][]byte
	for _, s := range []state{{}, goodState()} {
		data, err := s.encode()
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, data)
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode(data)
		if err != nil {
			return
		}
		once, err := s.encode()
		if err != nil {
			t.Fatalf("%q is read but can't be written: %v", data, err)
		}
		again, err := decode(once)
		if err != nil {
			t.Fatalf("%q is written as %q, which can't be read: %v", data, once, err)
		}
		if twice, err := again.encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q is written as %q, then as %q, %v", data, once, twice, err)
		}
	})
}
