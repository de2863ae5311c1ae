package device

import (
	"cmp"
	"slices"

	"spad/keys"
	"spad/pkg/wire"
)

// Roster is a fixed set of devices, to be looked up by packets and people. It is
// immutable and thus safe for concurrent use; callers must not change what it returns.
type Roster struct {
	all    []Device // by name
	byID   map[wire.DeviceID]*Device
	byName map[string]*Device
}

// NewRoster returns the devices of the configuration and of the store together. A
// name, key or id that is there twice is an [ErrExists].
func NewRoster(configured, enrolled []Device) (*Roster, error) {
	r := &Roster{byID: map[wire.DeviceID]*Device{}, byName: map[string]*Device{}}
	for _, d := range slices.Concat(configured, enrolled) {
		r.all = append(r.all, d.clone())
	}
	slices.SortStableFunc(r.all, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	for i := range r.all {
		if err := r.index(&r.all[i]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Roster) index(d *Device) error {
	for _, other := range []*Device{r.byName[d.Name], r.byID[d.ID()]} {
		if other != nil {
			return clash(*d, *other)
		}
	}
	r.byName[d.Name], r.byID[d.ID()] = d, d
	return nil
}

// ByID returns the device that a packet names.
func (r *Roster) ByID(id wire.DeviceID) (Device, bool) { return found(r.byID[id]) }

// ByName returns the device with this name.
func (r *Roster) ByName(name string) (Device, bool) { return found(r.byName[name]) }

func found(d *Device) (Device, bool) {
	if d == nil {
		return Device{}, false
	}
	return *d, true
}

// All returns the devices by name.
func (r *Roster) All() []Device { return slices.Clone(r.all) }

// Keys returns the keys of all devices, disabled and expired ones too.
func (r *Roster) Keys() []keys.DevicePublic {
	ks := make([]keys.DevicePublic, len(r.all))
	for i, d := range r.all {
		ks[i] = d.Key
	}
	return ks
}
