package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spad/keys"
)

const (
	noon   = 1_800_000_000_000 // the time of most tests, ms
	minute = 60_000
)

var (
	exact = cmp.AllowUnexported(state{}, invite{}, keys.DevicePublic{})
	empty = cmpopts.EquateEmpty()

	alice, bob = deviceKey(1), deviceKey(2)
)

// deviceKey returns a device's public key, the same for the same n.
func deviceKey(n byte) keys.DevicePublic { return keys.NewDeviceSecret([32]byte{n}).Public() }

// open opens a store at noon, in a directory of its own unless one is given.
func open(t *testing.T, dir string) (*Store, string) {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "state")
	}
	s, err := Open(dir, func() int64 { return noon })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, dir
}

// reopened returns what another program would find.
func reopened(t *testing.T, s *Store, dir string) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir)
	return s
}

// invited opens an invite for an hour.
func invited(t *testing.T, s *Store, name string) keys.TokenID {
	t.Helper()
	token, err := s.Invite(name, []string{"ssh", "group:family"}, noon+60*minute)
	if err != nil {
		t.Fatal(err)
	}
	return token.ID
}

func TestAddAndRemove(t *testing.T) {
	s, dir := open(t, "")
	phone := Device{
		Name: "phone", Key: bob, Allow: []string{"nas"}, Disabled: true, Delegate: true,
		Expires: time.UnixMilli(noon + 1).In(time.FixedZone("elsewhere", 3600)), Enrolled: time.UnixMilli(noon - 1).UTC(),
	}
	laptop := Device{Name: "laptop", Key: alice, Allow: []string{"ssh", "group:family"}}
	for _, d := range []Device{phone, laptop} {
		if err := s.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	laptop.Enrolled, phone.Expires = time.UnixMilli(noon).UTC(), phone.Expires.UTC()
	want := []Device{laptop, phone}
	if diff := cmp.Diff(want, s.Devices(), exact); diff != "" {
		t.Errorf("devices: %s", diff)
	}
	s = reopened(t, s, dir)
	if diff := cmp.Diff(want, s.Devices(), exact); diff != "" {
		t.Errorf("devices after a restart: %s", diff)
	}
	got, err := s.Remove("phone")
	if diff := cmp.Diff(phone, got, exact); diff != "" || err != nil {
		t.Errorf("removed: %v, %s", err, diff)
	}
	if _, err := s.Remove("phone"); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v, want %v", err, ErrUnknown)
	}
	s = reopened(t, s, dir)
	if diff := cmp.Diff(want[:1], s.Devices(), exact); diff != "" {
		t.Errorf("devices after the removal: %s", diff)
	}
}

func TestDevicesAreCopies(t *testing.T) {
	s, _ := open(t, "")
	allow := []string{"ssh"}
	if err := s.Add(Device{Name: "laptop", Key: alice, Allow: allow}); err != nil {
		t.Fatal(err)
	}
	allow[0] = "nas"
	s.Devices()[0].Allow[0] = "nas"
	s.Devices()[0].Name = "phone"
	if d := s.Devices()[0]; d.Allow[0] != "ssh" || d.Name != "laptop" {
		t.Errorf("a caller changed the store: %+v", d)
	}
}

func TestAddRefuses(t *testing.T) {
	s, _ := open(t, "")
	if err := s.Add(Device{Name: "laptop", Key: alice, Allow: []string{"ssh"}}); err != nil {
		t.Fatal(err)
	}
	s.SetConfigured([]Device{{Name: "server", Key: deviceKey(9)}})
	for _, c := range []struct {
		name  string
		d     Device
		class error
		want  string
	}{
		{"same name", Device{Name: "laptop", Key: bob, Allow: []string{"ssh"}}, ErrExists, `"laptop"`},
		{"same key", Device{Name: "phone", Key: alice, Allow: []string{"ssh"}}, ErrExists, `"laptop"`},
		{"name in the configuration", Device{Name: "server", Key: bob, Allow: []string{"ssh"}}, ErrExists, `"server"`},
		{"key in the configuration", Device{Name: "phone", Key: deviceKey(9), Allow: []string{"ssh"}}, ErrExists, `"server"`},
		{"no name", Device{Key: bob, Allow: []string{"ssh"}}, ErrInvalid, "1 to 32"},
		{"bad name", Device{Name: "../x", Key: bob, Allow: []string{"ssh"}}, ErrInvalid, "1 to 32"},
		{"no key", Device{Name: "phone", Allow: []string{"ssh"}}, ErrInvalid, "no key"},
		{"may do nothing", Device{Name: "phone", Key: bob}, ErrInvalid, "at least one"},
		{"bad service", Device{Name: "phone", Key: bob, Allow: []string{"ssh", "a b"}}, ErrInvalid, `"a b"`},
		{"bad group", Device{Name: "phone", Key: bob, Allow: []string{"group:"}}, ErrInvalid, "group:NAME"},
		{"group of groups", Device{Name: "phone", Key: bob, Allow: []string{"group:group:a"}}, ErrInvalid, "group:NAME"},
		{"service twice", Device{Name: "phone", Key: bob, Allow: []string{"ssh", "ssh"}}, ErrInvalid, "twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.Add(c.d)
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %v on one line with %s", err, c.class, c.want)
			}
			if n := len(s.Devices()); n != 1 {
				t.Errorf("%d devices, want 1", n)
			}
		})
	}
}

func TestEnroll(t *testing.T) {
	s, dir := open(t, "")
	id := invited(t, s, "laptop")
	s = reopened(t, s, dir)
	want := Device{Name: "laptop", Key: alice, Allow: []string{"ssh", "group:family"}, Enrolled: time.UnixMilli(noon + minute).UTC()}
	d, isNew, err := s.Enroll(id, alice, noon+minute)
	if diff := cmp.Diff(want, d, exact); diff != "" || !isNew || err != nil {
		t.Fatalf("enrolled: new %v, %v, %s", isNew, err, diff)
	}
	if n := s.Invites(); n != 0 {
		t.Errorf("%d invites open after it was used", n)
	}
	for range 2 {
		d, isNew, err := s.Enroll(id, alice, noon+2*minute) // the answer was lost
		if diff := cmp.Diff(want, d, exact); diff != "" || isNew || err != nil {
			t.Errorf("the same again: new %v, %v, %s", isNew, err, diff)
		}
		if _, ok := s.Token(id, noon+2*minute); !ok {
			t.Error("the secret to check the same again with is gone")
		}
		if d, isNew, err := s.Enroll(id, bob, noon+2*minute); !errors.Is(err, ErrUsed) || isNew || d.Name != "" {
			t.Errorf("another key: %v, %v, %v; want %v", d, isNew, err, ErrUsed)
		}
		if diff := cmp.Diff([]Device{want}, s.Devices(), exact); diff != "" {
			t.Errorf("devices: %s", diff)
		}
		s = reopened(t, s, dir)
	}
	if _, _, err := s.Enroll(id, alice, noon+60*minute); !errors.Is(err, ErrToken) {
		t.Errorf("after it expired: %v, want %v", err, ErrToken)
	}
	if _, ok := s.Token(id, noon+60*minute); ok {
		t.Error("an expired token has a secret")
	}
}

func TestEnrollRefuses(t *testing.T) {
	s, _ := open(t, "")
	laptop, phone, tablet := invited(t, s, "laptop"), invited(t, s, "phone"), invited(t, s, "tablet")
	if _, _, err := s.Enroll(laptop, alice, noon); err != nil {
		t.Fatal(err)
	}
	s.SetConfigured([]Device{{Name: "tablet", Key: deviceKey(9)}})
	for _, c := range []struct {
		name  string
		id    keys.TokenID
		key   keys.DevicePublic
		now   int64
		class error
	}{
		{"unknown token", keys.TokenID{1}, bob, noon, ErrToken},
		{"zero token", keys.TokenID{}, bob, noon, ErrToken},
		{"late", phone, bob, noon + 60*minute, ErrToken},
		{"used by another", laptop, bob, noon, ErrUsed},
		{"a key that is enrolled", phone, alice, noon, ErrExists},
		{"a key of the configuration", phone, deviceKey(9), noon, ErrExists},
		{"a name of the configuration", tablet, bob, noon, ErrExists},
		{"no key", phone, keys.DevicePublic{}, noon, ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d, isNew, err := s.Enroll(c.id, c.key, c.now); !errors.Is(err, c.class) || isNew || d.Name != "" {
				t.Errorf("%+v, %v, %v; want %v", d, isNew, err, c.class)
			}
		})
	}
	if d, isNew, err := s.Enroll(phone, bob, noon+60*minute-1); err != nil || !isNew || d.Name != "phone" {
		t.Errorf("at the last moment, after the refusals: %+v, %v, %v", d, isNew, err)
	}
}

func TestRemoveKillsItsToken(t *testing.T) {
	s, dir := open(t, "")
	laptop, phone := invited(t, s, "laptop"), invited(t, s, "phone")
	for id, k := range map[keys.TokenID]keys.DevicePublic{laptop: alice, phone: bob} {
		if _, _, err := s.Enroll(id, k, noon); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Remove("laptop"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := s.Enroll(laptop, alice, noon); !errors.Is(err, ErrToken) {
			t.Errorf("enrolling again with a killed token: %v, want %v", err, ErrToken)
		}
		if _, ok := s.Token(laptop, noon); ok {
			t.Error("a killed token has a secret")
		}
		if _, ok := s.Token(phone, noon); !ok {
			t.Error("another device's token was killed too")
		}
		s = reopened(t, s, dir)
	}
}

func TestInvite(t *testing.T) {
	s, dir := open(t, "")
	first := invited(t, s, "laptop")
	second, err := s.Invite("laptop", []string{"nas"}, noon+minute)
	if err != nil {
		t.Fatal(err)
	}
	s = reopened(t, s, dir)
	if _, ok := s.Token(first, noon); ok || s.Invites() != 1 {
		t.Errorf("the first invite lives, %d are open; want the second alone", s.Invites())
	}
	if secret, ok := s.Token(second.ID, noon+minute-1); !ok || secret != second.Secret {
		t.Error("the second invite's secret is lost")
	}
	if _, ok := s.Token(second.ID, noon+minute); ok {
		t.Error("the second invite has a secret after it expired")
	}
	if err := s.Add(Device{Name: "laptop", Key: alice, Allow: []string{"ssh"}}); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Token(second.ID, noon); ok {
		t.Error("an invite lives on though a device has its name")
	}
}

func TestInviteRefuses(t *testing.T) {
	s, _ := open(t, "")
	if err := s.Add(Device{Name: "laptop", Key: alice, Allow: []string{"ssh"}}); err != nil {
		t.Fatal(err)
	}
	s.SetConfigured([]Device{{Name: "server", Key: bob}})
	for _, c := range []struct {
		name, device string
		allow        []string
		expires      int64
		class        error
	}{
		{"a device has the name", "laptop", []string{"ssh"}, noon + 1, ErrExists},
		{"the configuration has the name", "server", []string{"ssh"}, noon + 1, ErrExists},
		{"bad name", "Phone", []string{"ssh"}, noon + 1, ErrInvalid},
		{"no service", "phone", nil, noon + 1, ErrInvalid},
		{"bad service", "phone", []string{"s s h"}, noon + 1, ErrInvalid},
		{"expired at once", "phone", []string{"ssh"}, noon, ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			token, err := s.Invite(c.device, c.allow, c.expires)
			if !errors.Is(err, c.class) || token != (keys.Token{}) {
				t.Errorf("error %v, want %v and no token", err, c.class)
			}
		})
	}
}

func TestInvitesAreBounded(t *testing.T) {
	s, dir := open(t, "")
	for n := range MaxInvites {
		s.state.invites = append(s.state.invites, invite{
			token: keys.Token{ID: keys.TokenID{byte(n), byte(n >> 8)}}, name: fmt.Sprint("d", n), allow: []string{"ssh"}, expiresMS: noon + minute,
		})
	}
	if _, err := s.Invite("phone", []string{"ssh"}, noon+2*minute); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v, want %v", err, ErrFull)
	}
	if _, err := s.Invite("d7", []string{"ssh"}, noon+2*minute); err != nil {
		t.Errorf("in the place of an open one: %v", err)
	}
	s.now = func() int64 { return noon + minute }
	if _, err := s.Invite("phone", []string{"ssh"}, noon+2*minute); err != nil {
		t.Errorf("when the others have expired: %v", err)
	}
	if s = reopened(t, s, dir); len(s.state.invites) != 2 {
		t.Errorf("%d invites on disk, want 2", len(s.state.invites))
	}
}

// TestUsedByTwoAtOnce lets many keys race for one token.
func TestUsedByTwoAtOnce(t *testing.T) {
	s, _ := open(t, "")
	id := invited(t, s, "laptop")
	var wg sync.WaitGroup
	var won atomic.Int64
	for n := range byte(8) {
		wg.Go(func() {
			_, isNew, err := s.Enroll(id, deviceKey(n), noon)
			if isNew && err == nil {
				won.Add(1)
			} else if !errors.Is(err, ErrUsed) {
				t.Errorf("key %d: %v, %v", n, isNew, err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || len(s.Devices()) != 1 {
		t.Errorf("%d keys won, %d devices; want 1 and 1", won.Load(), len(s.Devices()))
	}
}

// TestNothingHalfDone makes every write fail: the memory stays as it was, and so does the file.
func TestNothingHalfDone(t *testing.T) {
	s, dir := open(t, "")
	id := invited(t, s, "laptop")
	if err := s.Add(Device{Name: "phone", Key: bob, Allow: []string{"ssh"}}); err != nil {
		t.Fatal(err)
	}
	before := s.state.clone()
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"Enroll": func() error { _, _, err := s.Enroll(id, alice, noon); return err },
		"Add":    func() error { return s.Add(Device{Name: "tablet", Key: alice, Allow: []string{"ssh"}}) },
		"Remove": func() error { _, err := s.Remove("phone"); return err },
		"Invite": func() error { _, err := s.Invite("tablet", []string{"ssh"}, noon+1); return err },
	} {
		if err := change(); err == nil || !strings.Contains(err.Error(), fileName) {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
		if diff := cmp.Diff(before, s.state, exact); diff != "" {
			t.Errorf("%s changed the memory: %s", name, diff)
		}
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	if _, isNew, err := s.Enroll(id, alice, noon); !isNew || err != nil {
		t.Errorf("when the disk is back: %v, %v", isNew, err)
	}
}

func TestClosed(t *testing.T) {
	s, _ := open(t, "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed twice: %v, want %v", err, ErrClosed)
	}
	if err := s.Add(Device{Name: "phone", Key: bob, Allow: []string{"ssh"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("added to a closed store: %v, want %v", err, ErrClosed)
	}
}

func TestInvited(t *testing.T) {
	s, _ := open(t, t.TempDir())
	if _, there := s.Invited("laptop"); there {
		t.Error("an invite that nobody made")
	}
	if _, err := s.Invite("laptop", []string{"nas"}, noon+minute); err != nil {
		t.Fatal(err)
	}
	if allow, there := s.Invited("laptop"); !there || len(allow) != 1 || allow[0] != "nas" {
		t.Errorf("an open invite: %v, %v", allow, there)
	}
}
