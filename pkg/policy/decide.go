package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"spad/pkg/wire"
)

// Reason says why a request was refused. It is for logs and counters; a device is told only that it was denied.
type Reason string

// The reasons. An allowed verdict has none.
const (
	UnknownService Reason = "unknown service" // no service has that id
	NotAllowed     Reason = "not allowed"     // the device has no right to the service
	NotFromHere    Reason = "not from here"   // its groups grant it from other sources only
	NotNow         Reason = "not now"         // its groups grant it at other hours only
	NoSuchFamily   Reason = "no such family"  // the service has no door for IPv4, or none for IPv6
)

// Request is a wish to open a service.
type Request struct {
	Allow   []string       // the device's rights: services and group:NAME
	Service wire.ServiceID // what it wants
	TTL     uint16         // for how many seconds; 0: the service's own time
	Source  netip.Addr     // for whom
	At      time.Time      // now, by the knock clock, in the zone that hours mean
}

// Verdict is the answer. The zero value denies.
type Verdict struct {
	Allowed bool
	Reason  Reason        // why not
	Service Service       // what was asked for, if it exists
	Source  netip.Prefix  // whom to open for, masked; IPv4 is always a /32; only if allowed
	TTL     time.Duration // for how long, whole seconds, at least one; only if allowed, and not for a close
}

// Decide says whether a device may open a service, for whom and for how long.
//
// The time is at most the service's limit, and ends with the hours of the group that grants it: hours say when a door
// may be open, not only when it may be opened. Of several granting names the most generous counts.
func (r *Rules) Decide(q Request) Verdict {
	s, ok := r.byID[q.Service]
	if !ok {
		return Verdict{Reason: UnknownService}
	}
	source := q.Source.Unmap().WithZone("")
	if !source.IsValid() || !s.opensFor(source) {
		// Whether the service has that family is nobody's business who may not open it.
		if !r.granted(q.Allow, s.Name) {
			return Verdict{Reason: NotAllowed, Service: s}
		}
		return Verdict{Reason: NoSuchFamily, Service: s}
	}
	prefix := s.prefix(source)
	limit, reason := r.limit(q.Allow, s.Name, prefix, q.At)
	if reason != "" {
		return Verdict{Reason: reason, Service: s}
	}
	return Verdict{Allowed: true, Service: s, Source: prefix, TTL: min(s.ttl(q.TTL), limit)}
}

// ttl returns the time that the service gives to a request for so many seconds.
func (s Service) ttl(seconds uint16) time.Duration {
	if seconds == 0 {
		return s.TTL
	}
	return min(time.Duration(seconds)*time.Second, s.MaxTTL)
}

// limit returns the longest time that a device's rights give a service to a source, in whole seconds and at least one,
// or the reason why they give none.
func (r *Rules) limit(allow []string, service string, source netip.Prefix, at time.Time) (time.Duration, Reason) {
	longest, reason := time.Duration(0), NotAllowed
	for _, right := range allow {
		g, found := r.grants(right, service)
		if !found {
			continue
		}
		if !g.contains(source) {
			if reason == NotAllowed {
				reason = NotFromHere
			}
			continue
		}
		reason = NotNow // the nearest miss, if it is one
		left := MaxTTL
		if g.Hours != nil {
			left = g.Hours.left(at).Truncate(time.Second)
		}
		longest = max(longest, left)
	}
	if longest > 0 {
		return longest, ""
	}
	return 0, reason
}

// grants reports whether a right names a service or a group that has it, and with which conditions: for the service
// itself those of the zero group, which are none.
func (r *Rules) grants(right, service string) (Group, bool) {
	name, isGroup := strings.CutPrefix(right, GroupPrefix)
	if !isGroup {
		return Group{}, right == service
	}
	return r.groups[name], r.members[member{name, service}]
}

func (r *Rules) granted(allow []string, service string) bool {
	return slices.ContainsFunc(allow, func(right string) bool {
		_, ok := r.grants(right, service)
		return ok
	})
}

// DecideClose says whether a device may close a service: it must exist and be among the device's rights. Where the
// device is and what time it is do not matter: shutting a door is never refused for that.
func (r *Rules) DecideClose(allow []string, id wire.ServiceID) Verdict {
	s, ok := r.byID[id]
	if !ok {
		return Verdict{Reason: UnknownService}
	}
	if !r.granted(allow, s.Name) {
		return Verdict{Reason: NotAllowed, Service: s}
	}
	return Verdict{Allowed: true, Service: s}
}

// Granted returns the names of the services that a list of rights can open at some time from somewhere, in order: what
// an invite tells its device.
func (r *Rules) Granted(allow []string) []string {
	var names []string
	for _, s := range r.Services() {
		if r.granted(allow, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}
