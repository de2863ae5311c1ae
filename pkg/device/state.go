package device

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"spad/keys"
)

// version is that of devices.json.
const version = 1

// state is what the store remembers.
type state struct {
	devices []Device // by name
	invites []invite
}

// invite is a token that is open, or was used and has not expired yet.
type invite struct {
	token     keys.Token
	name      string
	allow     []string
	expiresMS int64
	usedBy    keys.DevicePublic // zero while it is open
}

// The file, as JSON. Times of devices are RFC 3339 in UTC.
type (
	fileJSON struct {
		Version int          `json:"version"`
		Devices []deviceJSON `json:"devices"`
		Invites []inviteJSON `json:"invites"`
	}
	deviceJSON struct {
		Name     string            `json:"name"`
		Key      keys.DevicePublic `json:"key"`
		Allow    []string          `json:"allow"`
		Expires  time.Time         `json:"expires,omitzero"`
		Disabled bool              `json:"disabled,omitzero"`
		Delegate bool              `json:"delegate,omitzero"`
		Enrolled time.Time         `json:"enrolled,omitzero"`
	}
	inviteJSON struct {
		Name      string            `json:"name"`
		Allow     []string          `json:"allow"`
		ExpiresMS int64             `json:"expires_ms"`
		ID        []byte            `json:"id"`
		Secret    []byte            `json:"secret"`
		UsedBy    keys.DevicePublic `json:"used_by,omitzero"`
	}
)

// encode returns the file's bytes, the same for the same state.
func (s state) encode() ([]byte, error) {
	f := fileJSON{Version: version, Devices: []deviceJSON{}, Invites: []inviteJSON{}}
	for _, d := range s.devices {
		f.Devices = append(f.Devices, deviceJSON(d))
	}
	for _, i := range s.invites {
		f.Invites = append(f.Invites, inviteJSON{i.name, i.allow, i.expiresMS, i.token.ID[:], i.token.Secret[:], i.usedBy})
	}
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

// decode reads the file. It refuses what it would not have written; its errors repeat nothing of an invite.
func decode(b []byte) (state, error) {
	if err := checkVersion(b); err != nil {
		return state{}, err
	}
	var f fileJSON
	in := json.NewDecoder(bytes.NewReader(b))
	in.DisallowUnknownFields()
	if err := in.Decode(&f); err != nil {
		return state{}, errors.New("damaged: a field that is unknown or of the wrong kind, or a key that is none")
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return state{}, fmt.Errorf("damaged: something follows the end at byte %d", in.InputOffset())
	}
	return f.state()
}

// checkVersion looks at nothing but the version, so that a newer file is called newer and not damaged.
func checkVersion(b []byte) error {
	var f struct {
		Version int `json:"version"`
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&f); err != nil {
		return errors.New("damaged: not JSON, or cut short")
	}
	if f.Version != version {
		return fmt.Errorf("it has version %d, this spad reads version %d: run the spad that wrote it", f.Version, version)
	}
	return nil
}

// state checks every line of the file, and the lines against each other.
func (f fileJSON) state() (s state, err error) {
	for _, j := range f.Devices {
		d := Device(j)
		if err := cmp.Or(d.check(), s.free(d)); err != nil {
			return state{}, err
		}
		s.devices = append(s.devices, d)
	}
	for n, j := range f.Invites {
		i, err := j.invite()
		if err != nil {
			return state{}, fmt.Errorf("invite %d: %w", n+1, err)
		}
		if s.invite(i.token.ID) != nil {
			return state{}, fmt.Errorf("invite %d: its token %w", n+1, ErrExists)
		}
		s.invites = append(s.invites, i)
	}
	s.sort()
	return s, nil
}

func (j inviteJSON) invite() (invite, error) {
	if err := checkGrant(j.Name, j.Allow); err != nil {
		return invite{}, err
	}
	if len(j.ID) != len(keys.TokenID{}) || len(j.Secret) != len(keys.TokenSecret{}) {
		return invite{}, fmt.Errorf("token of the wrong length: %w", ErrInvalid)
	}
	t := keys.Token{ID: keys.TokenID(j.ID), Secret: keys.TokenSecret(j.Secret)}
	return invite{t, j.Name, j.Allow, j.ExpiresMS, j.UsedBy}, nil
}

// free says which device of the state stands in d's way.
func (s *state) free(d Device) error {
	for _, other := range s.devices {
		if err := clash(d, other); err != nil {
			return err
		}
	}
	return nil
}

// invite returns the invite with this token. It takes the same time wherever it is.
func (s *state) invite(id keys.TokenID) (found *invite) {
	for n := range s.invites {
		if s.invites[n].token.ID.Equal(id) {
			found = &s.invites[n]
		}
	}
	return found
}

// clone returns a copy to be changed. Lists inside devices and invites are shared and never changed.
func (s *state) clone() state {
	return state{slices.Clone(s.devices), slices.Clone(s.invites)}
}

// expire drops the invites that have expired.
func (s *state) expire(nowMS int64) {
	s.invites = slices.DeleteFunc(s.invites, func(i invite) bool { return i.expired(nowMS) })
}

func (i invite) expired(nowMS int64) bool { return nowMS >= i.expiresMS }

func (s *state) sort() {
	slices.SortFunc(s.devices, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
}
