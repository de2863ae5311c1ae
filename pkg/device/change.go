package device

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"spad/keys"
)

// errUnchanged ends a change that turned out to need no write.
var errUnchanged = errors.New("nothing to write")

// change does edit on a copy without the expired invites, writes it, and only then
// makes it the state: if edit or the disk fails, nothing has happened.
func (s *Store) change(nowMS int64, edit func(*state) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return ErrClosed
	}
	next := s.state.clone()
	next.expire(nowMS)
	if err := edit(&next); errors.Is(err, errUnchanged) {
		return nil
	} else if err != nil {
		return err
	}
	data, err := next.encode()
	if err == nil {
		err = writeFile(s.path, data)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", s.path, err)
	}
	s.state = next
	return nil
}

// open returns how many invites are neither used nor expired.
func (s *state) open(nowMS int64) (n int) {
	for _, i := range s.invites {
		if i.usedBy.IsZero() && !i.expired(nowMS) {
			n++
		}
	}
	return n
}

// dropOpen drops the open invite of this name.
func (s *state) dropOpen(name string) {
	s.invites = slices.DeleteFunc(s.invites, func(i invite) bool { return i.name == name && i.usedBy.IsZero() })
}

// add puts d into the state, unless it can't be right or another device, of the state
// or the configuration, stands in its way.
func (s *Store) add(st *state, d Device) error {
	if err := cmp.Or(d.check(), st.free(d), (&state{devices: s.configured}).free(d)); err != nil {
		return err
	}
	st.devices = append(st.devices, d.clone())
	st.sort()
	return nil
}

// device is what the invite makes of a key.
func (i invite) device(key keys.DevicePublic, nowMS int64) Device {
	return Device{Name: i.name, Key: key, Allow: i.allow, Enrolled: time.UnixMilli(nowMS).UTC()}
}

// enrolledBy returns the device that used the invite, if key is its key.
func (s *state) enrolledBy(i invite, key keys.DevicePublic) (Device, error) {
	n := slices.IndexFunc(s.devices, func(d Device) bool { return d.Key == i.usedBy })
	if n < 0 || i.usedBy != key {
		return Device{}, ErrUsed
	}
	return s.devices[n], nil
}
