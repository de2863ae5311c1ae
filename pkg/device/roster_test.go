package device

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/keys"
	"spad/pkg/wire"
)

func TestActive(t *testing.T) {
	at := time.UnixMilli(noon)
	for _, c := range []struct {
		name string
		d    Device
		want bool
	}{
		{"as a rule", Device{}, true},
		{"disabled", Device{Disabled: true}, false},
		{"expires later", Device{Expires: at.Add(time.Millisecond)}, true},
		{"expires now", Device{Expires: at}, false},
		{"expired", Device{Expires: at.Add(-time.Hour)}, false},
		{"expires later, disabled", Device{Expires: at.Add(time.Hour), Disabled: true}, false},
	} {
		if got := c.d.Active(noon); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestRoster(t *testing.T) {
	configured := []Device{{Name: "server", Key: alice, Allow: []string{"ssh"}}}
	enrolled := []Device{{Name: "laptop", Key: bob, Allow: []string{"nas"}, Disabled: true}}
	r, err := NewRoster(configured, enrolled)
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{enrolled[0], {Name: "server", Key: alice, Allow: []string{"ssh"}}}
	configured[0].Allow[0] = "nas"
	if diff := cmp.Diff(want, r.All(), exact); diff != "" {
		t.Errorf("all: %s", diff)
	}
	if diff := cmp.Diff([]keys.DevicePublic{bob, alice}, r.Keys(), exact); diff != "" {
		t.Errorf("keys: %s", diff)
	}
	byID, ok := r.ByID(wire.DeviceIDOf(bob))
	if diff := cmp.Diff(want[0], byID, exact); diff != "" || !ok {
		t.Errorf("by id: %v, %s", ok, diff)
	}
	byName, ok := r.ByName("server")
	if diff := cmp.Diff(want[1], byName, exact); diff != "" || !ok {
		t.Errorf("by name: %v, %s", ok, diff)
	}
	if _, ok := r.ByName("phone"); ok {
		t.Error("found a name that is not there")
	}
	if d, ok := r.ByID(wire.DeviceID{}); ok || !d.Key.IsZero() {
		t.Error("found an id that is not there")
	}
}

func TestRosterRefuses(t *testing.T) {
	one := []Device{{Name: "laptop", Key: alice}}
	for _, c := range []struct {
		name string
		d    Device
		want string
	}{
		{"name twice", Device{Name: "laptop", Key: bob}, `device "laptop"`},
		{"key twice", Device{Name: "phone", Key: alice}, "its key is that of"},
	} {
		for where, r := range map[string]func() (*Roster, error){
			"in both":            func() (*Roster, error) { return NewRoster(one, []Device{c.d}) },
			"in one":             func() (*Roster, error) { return NewRoster(nil, []Device{one[0], c.d}) },
			"the other way":      func() (*Roster, error) { return NewRoster([]Device{c.d}, one) },
			"in one, configured": func() (*Roster, error) { return NewRoster([]Device{c.d, one[0]}, nil) },
		} {
			if _, err := r(); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v, want %v with %q", c.name, where, err, ErrExists, c.want)
			}
		}
	}
}
