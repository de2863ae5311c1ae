package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"spad/keys"
	"spad/pkg/device"
	"spad/pkg/policy"
	"spad/pkg/wire"
)

// groups reads all groups of services.
func (t table) groups(services services) []policy.Group {
	var all []policy.Group
	for _, in := range t.tables("group", groupKind) {
		in.checkName("group")
		g := policy.Group{Name: in.name(), Services: in.members(services.names())}
		for _, n := range in.networks("from") {
			g.From = append(g.From, n.network)
			in.checkWidth(n, g.Services, services)
		}
		if v, isList := in.keys["from"].([]any); isList && len(v) == 0 {
			in.bad("from", "the list is empty, so that the group would grant to nobody or to everybody", "name the networks, or drop the line")
		}
		g.Hours = in.hours()
		all = append(all, g)
	}
	return all
}

func (t table) checkName(of string) {
	if !wire.ValidName(t.name()) {
		t.problem(t.path, fmt.Sprintf("%s can't be the name of a %s", quote(t.name()), of), nameRule)
	}
}

// members reads the services of a group.
func (t table) members(services []string) []string {
	known := names{services: services}
	var members []string
	for _, item := range t.texts("services", "nas") {
		what, remedy := known.check(item.text)
		switch {
		case strings.HasPrefix(item.text, policy.GroupPrefix):
			t.badItem("services", item.i, quote(item.text)+" is a group, and groups hold services only", "name the services of that group")
		case what != "":
			t.badItem("services", item.i, what, remedy)
		default:
			members = append(members, item.text)
		}
	}
	t.wanted("services", `["nas"]`)
	return members
}

// wanted notes a list that is missing or empty.
func (t table) wanted(key, example string) {
	v, present := t.keys[key]
	if list, isList := v.([]any); !present || isList && len(list) == 0 {
		t.bad(key, "names nothing", fmt.Sprintf("write %s = %s", key, example))
	}
}

// checkWidth notes a network that is narrower than the IPv6 door of a service: opening it would let neighbours in that
// the group leaves out, so policy would never grant it.
func (t table) checkWidth(n network, members []string, services services) {
	for _, s := range services {
		if n.network.Addr().Is6() && slices.Contains(members, s.name()) && n.network.Bits() > s.door.IPv6Prefix {
			t.badItem("from", n.i, fmt.Sprintf("%v is narrower than the /%d that %s opens for", n.network, s.door.IPv6Prefix, s.name()),
				fmt.Sprintf("write ipv6_prefix = %d in [service.%s], or a wider network", n.network.Bits(), s.name()))
		}
	}
}

func (t table) hours() *policy.Hours {
	const example = "07:00-23:00"
	text, ok := t.text("hours", example)
	if !ok {
		return nil
	}
	h, valid := parseHours(text)
	switch {
	case !valid:
		t.bad("hours", quote(text)+" is no time of day", fmt.Sprintf("write two times of the router's clock, such as %q", example))
	case h.From == h.To || h.From == 0 && h.To == 24*60:
		t.bad("hours", quote(text)+" is the whole day or nothing of it", "write two different times, or drop the line for the whole day")
	}
	return &h
}

// devices reads the devices that are enrolled in the file.
func (t table) devices(services services, groups []policy.Group) []device.Device {
	known := names{services: services.names()}
	if in, ok := t.keys["group"].(map[string]any); ok {
		for name := range in { // also those with problems of their own
			known.groups = append(known.groups, name)
		}
	}
	slices.Sort(known.groups)
	var all []device.Device
	owners := map[wire.DeviceID]string{}
	for _, in := range t.tables("device", deviceKind) {
		in.checkName("device")
		d := device.Device{
			Name:     in.name(),
			Key:      in.deviceKey(owners),
			Allow:    in.rights(known),
			Expires:  in.expiry(),
			Disabled: in.truth("disabled", false),
			Delegate: in.truth("delegate", false),
		}
		all = append(all, d)
	}
	return all
}

// deviceKey reads a device's public key. What is wrong with it is said without repeating it: it may be a secret in the
// wrong place.
func (t table) deviceKey(owners map[wire.DeviceID]string) keys.DevicePublic {
	text, ok := t.text("key", "knock-device:…")
	if _, present := t.keys["key"]; !present {
		t.bad("key", "is missing", `write what the device prints for: knock key`)
	}
	if !ok {
		return keys.DevicePublic{}
	}
	key, err := keys.ParseDevicePublic(text)
	if err != nil {
		t.bad("key", plain(err.Error()), "write what the device prints for: knock key")
		return keys.DevicePublic{}
	}
	id := wire.DeviceIDOf(key)
	if other, taken := owners[id]; taken {
		t.bad("key", fmt.Sprintf("device %q has this key, or one of the same id", other), "give every device a key of its own")
	}
	owners[id] = t.name()
	return key
}

// rights reads what a device may open.
func (t table) rights(known names) []string {
	var rights []string
	for _, item := range t.texts("allow", "ssh") {
		if what, remedy := known.check(item.text); what != "" {
			t.badItem("allow", item.i, what, remedy)
		}
		rights = append(rights, item.text)
	}
	t.wanted("allow", `["ssh"]`)
	return rights
}

// expiry reads until when a device may knock; the zero time is for ever.
func (t table) expiry() time.Time {
	const example = "expires = 2027-01-01T00:00:00Z"
	at, ok := value[time.Time](t, "expires", "a date and time without quotes, such as "+example)
	if !ok {
		return time.Time{}
	}
	switch at.Location().String() { // so the decoder says what was left out
	case "datetime-local", "date-local", "time-local":
		t.bad("expires", "has no time or no time zone", "write both, Z for UTC, such as "+example)
	}
	if at.Year() < 1970 {
		t.bad("expires", "is before 1970", "write a later time, or disabled = true")
	}
	return at
}
