package device

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"spad/keys"
)

// MaxInvites is how many invites may be open at a time.
const MaxInvites = 256

// Store is the devices and invites in the state directory. It is safe for concurrent use.
type Store struct {
	now  func() int64
	path string

	mu         sync.Mutex
	lock       *os.File // nil when closed
	state      state
	configured []Device
}

// Open makes the state directory if it is missing, locks it and reads devices.json.
// now is the time in milliseconds since 1970, by the knock clock; nil is the system
// clock. It fails with [ErrLocked] if another program has this state, and refuses a
// directory that others may write, a file that others may read, and one that is
// damaged or newer than this program: it never writes over a file that it could not read.
func Open(dir string, now func() int64) (*Store, error) {
	if now == nil {
		now = func() int64 { return time.Now().UnixMilli() }
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("opening the state directory %q: %w", dir, err)
	}
	l, err := lock(dir)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory %q: %w", dir, err)
	}
	path := filepath.Join(dir, fileName)
	s, err := readState(path)
	if err = errors.Join(err, removeLeftovers(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("reading %q: %w", path, err), l.Close())
	}
	return &Store{now: now, path: path, lock: l, state: s}, nil
}

// Close gives the state directory free.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return ErrClosed
	}
	l := s.lock
	s.lock = nil
	return l.Close()
}

// Devices returns the enrolled devices by name.
func (s *Store) Devices() []Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	ds := slices.Clone(s.state.devices)
	for i := range ds {
		ds[i] = ds[i].clone()
	}
	return ds
}

// Invites returns how many invites are open.
func (s *Store) Invites() int {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.open(now)
}

// Invited returns the rights of the open invite for a name. It may have expired.
func (s *Store) Invited(name string) (allow []string, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.state.invites {
		if i.name == name && i.usedBy.IsZero() {
			return slices.Clone(i.allow), true
		}
	}
	return nil, false
}

// SetConfigured tells the store the devices of the configuration, whose names, keys
// and ids it must not give to others.
func (s *Store) SetConfigured(ds []Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configured = slices.Clone(ds)
}

// Add enrols a device whose key was carried by hand. [ErrExists] if its name, key or
// id is taken, [ErrInvalid] if it can't be right. An open invite of that name dies. A
// zero Enrolled becomes now.
func (s *Store) Add(d Device) error {
	now := s.now()
	if d.Enrolled.IsZero() {
		d.Enrolled = time.UnixMilli(now)
	}
	d.Enrolled, d.Expires = d.Enrolled.UTC().Round(0), d.Expires.UTC().Round(0)
	return s.change(now, func(st *state) error {
		st.dropOpen(d.Name)
		return s.add(st, d)
	})
}

// Remove takes a device off, and kills the token it was enrolled with. It returns what
// was removed, or [ErrUnknown].
func (s *Store) Remove(name string) (d Device, err error) {
	err = s.change(s.now(), func(st *state) error {
		i := slices.IndexFunc(st.devices, func(d Device) bool { return d.Name == name })
		if i < 0 {
			return fmt.Errorf("device %q: %w", name, ErrUnknown)
		}
		d = st.devices[i].clone()
		st.devices = slices.Delete(st.devices, i, i+1)
		st.invites = slices.DeleteFunc(st.invites, func(i invite) bool { return i.usedBy == d.Key })
		return nil
	})
	if err != nil {
		return Device{}, err
	}
	return d, nil
}

// Invite opens an invite until expiresMS, milliseconds since 1970, and returns its
// token. An open one of the same name dies. [ErrExists] if a device has the name,
// [ErrFull] if too many are open, [ErrInvalid] if it can't be right.
func (s *Store) Invite(name string, allow []string, expiresMS int64) (keys.Token, error) {
	t, err := keys.NewToken(rand.Reader)
	if err != nil {
		return keys.Token{}, err
	}
	now := s.now()
	i := invite{token: t, name: name, allow: slices.Clone(allow), expiresMS: expiresMS}
	if err := s.change(now, func(st *state) error { return s.invite(st, i, now) }); err != nil {
		return keys.Token{}, err
	}
	return t, nil
}

// invite adds i to the state.
func (s *Store) invite(st *state, i invite, nowMS int64) error {
	if err := checkGrant(i.name, i.allow); err != nil {
		return err
	}
	if i.expired(nowMS) {
		return fmt.Errorf("invite for %q: %w: it would have expired already", i.name, ErrInvalid)
	}
	if slices.ContainsFunc(slices.Concat(st.devices, s.configured), func(d Device) bool { return d.Name == i.name }) {
		return fmt.Errorf("device %q: %w; remove it first, or choose another name", i.name, ErrExists)
	}
	st.dropOpen(i.name)
	if st.open(nowMS) >= MaxInvites || st.invite(i.token.ID) != nil {
		return fmt.Errorf("invite for %q: %w (%d); let some expire", i.name, ErrFull, MaxInvites)
	}
	st.invites = append(st.invites, i)
	return nil
}

// Token returns the secret of the invite with this id, if there is one and it has not
// expired at nowMS, milliseconds since 1970. A used one counts until it expires, so
// that its device can ask again when the answer was lost.
func (s *Store) Token(id keys.TokenID, nowMS int64) (keys.TokenSecret, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.invite(id)
	if i == nil || i.expired(nowMS) {
		return keys.TokenSecret{}, false
	}
	return i.token.Secret, true
}

// Enroll makes key a device by the invite with this id, in one durable write, and
// reports true. The same key again, before the invite expires, gets its device and
// false, and changes nothing. [ErrToken] if there is no such invite at nowMS (ms since
// 1970), [ErrUsed] if another key used it, [ErrExists] if its name or the key is taken.
func (s *Store) Enroll(id keys.TokenID, key keys.DevicePublic, nowMS int64) (d Device, isNew bool, err error) {
	err = s.change(nowMS, func(st *state) (err error) {
		i := st.invite(id)
		switch {
		case i == nil:
			return ErrToken
		case i.usedBy.IsZero():
			d, isNew = i.device(key, nowMS), true
			i.usedBy = key
			return s.add(st, d)
		}
		if d, err = st.enrolledBy(*i, key); err != nil {
			return err
		}
		return errUnchanged
	})
	if err != nil {
		return Device{}, false, err
	}
	return d.clone(), isNew, nil
}
