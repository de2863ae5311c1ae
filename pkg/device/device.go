// Package device knows who is enrolled, and which invites are open.
//
// A [Store] is the part of that which the router itself writes: devices.json in the
// state directory. It is locked, so that one program at a time has it, and every
// change is on disk, whole, before it is answered; a change that can't be written has
// not happened. A [Roster] is all devices together, those of the configuration and
// those of the store, as the packets find them.
//
// Expiry is judged by a time that the caller passes in, milliseconds since
// 1970-01-01 UTC by the knock clock.
package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// Device is one enrolled device.
type Device struct {
	Name     string
	Key      keys.DevicePublic
	Allow    []string  // names of services, and group:NAME
	Expires  time.Time // zero for never
	Disabled bool
	Delegate bool      // may open for addresses other than its own
	Enrolled time.Time // zero if unknown
}

// Active reports whether the device is enabled and not expired at nowMS, milliseconds since 1970.
func (d Device) Active(nowMS int64) bool {
	return !d.Disabled && (d.Expires.IsZero() || nowMS < d.Expires.UnixMilli())
}

// ID returns what names the device in a packet.
func (d Device) ID() wire.DeviceID { return wire.DeviceIDOf(d.Key) }

// Errors that callers tell apart.
var (
	// ErrExists means that a name, a key or an id is taken.
	ErrExists = errors.New("exists already")
	// ErrUnknown means that there is no such device.
	ErrUnknown = errors.New("no such device")
	// ErrToken means that there is no such token, or that it has expired.
	ErrToken = errors.New("no such invite, or it has expired")
	// ErrUsed means that another key was enrolled with this token.
	ErrUsed = errors.New("this invite was used by another device")
	// ErrFull means that too many invites are open.
	ErrFull = errors.New("too many open invites")
	// ErrInvalid means that a name, a key or a list of services can't be right.
	ErrInvalid = errors.New("invalid")
	// ErrLocked means that another program uses the state directory.
	ErrLocked = errors.New("in use")
	// ErrClosed means that the store was closed.
	ErrClosed = errors.New("the device store is closed")
)

// group is what stands before the name of a group in an Allow list.
const group = "group:"

// check says what is wrong with a device that is to be kept.
func (d Device) check() error {
	if err := checkGrant(d.Name, d.Allow); err != nil {
		return err
	}
	if d.Key.IsZero() {
		return fmt.Errorf("device %q: no key: %w", d.Name, ErrInvalid)
	}
	return nil
}

// checkGrant says what is wrong with the name of a device or with what it may open.
func checkGrant(name string, allow []string) error {
	if !wire.ValidName(name) {
		return fmt.Errorf("device name %q: %w: use 1 to 32 of a-z, 0-9 and -, not - first", name, ErrInvalid)
	}
	if len(allow) == 0 {
		return fmt.Errorf("device %q: %w: name at least one service that it may open", name, ErrInvalid)
	}
	for i, a := range allow {
		if !wire.ValidName(strings.TrimPrefix(a, group)) {
			return fmt.Errorf("device %q: service %q: %w: use a service's name, or %sNAME", name, a, ErrInvalid, group)
		}
		if slices.Contains(allow[:i], a) {
			return fmt.Errorf("device %q: service %q: %w: it is named twice", name, a, ErrInvalid)
		}
	}
	return nil
}

// clone returns a copy that shares no memory with d.
func (d Device) clone() Device {
	d.Allow = slices.Clone(d.Allow)
	return d
}

// clash says why a and b can't both be enrolled, or nothing.
func clash(a, b Device) error {
	switch {
	case a.Name == b.Name:
		return fmt.Errorf("device %q: %w", a.Name, ErrExists)
	case a.Key == b.Key:
		return fmt.Errorf("device %q: its key is that of device %q: %w", a.Name, b.Name, ErrExists)
	case a.ID() == b.ID():
		return fmt.Errorf("device %q: its id is that of device %q: %w: make another key for one of them", a.Name, b.Name, ErrExists)
	}
	return nil
}
