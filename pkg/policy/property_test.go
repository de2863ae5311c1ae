package policy_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"spad/pkg/policy"
	"spad/pkg/wire"
)

// TestNeverWider makes up configurations and knocks, and holds each verdict against the rules read word by word, in
// another way than the code does: as the set of seconds and addresses that somebody wrote down.
func TestNeverWider(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	allowed := 0
	for range 20_000 {
		services, groups := randomRules(rnd)
		rules := mustRules(t, services, groups)
		q := randomRequest(rnd)
		v := rules.Decide(q)
		granted := slices.ContainsFunc(q.Allow, func(right string) bool { return !v.Allowed || written(services, groups, right, q, v) })
		if v.Allowed && !granted {
			t.Fatalf("nobody wrote that\nservices %+v\ngroups %+v\nrequest %+v\nverdict %+v", services, groups, q, v)
		}
		if v.Allowed {
			allowed++
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d knocks were allowed: the test says nothing", allowed)
	}
}

// written reports whether a right covers all of a verdict: every address and every second of it.
func written(services []policy.Service, groups []policy.Group, right string, q policy.Request, v policy.Verdict) bool {
	i := slices.IndexFunc(services, func(s policy.Service) bool { return wire.ServiceIDOf(s.Name) == q.Service })
	s := services[i]
	asked := time.Duration(q.TTL) * time.Second
	if v.Service.Name != s.Name || v.TTL < time.Second || v.TTL > s.MaxTTL || asked != 0 && v.TTL > asked || asked == 0 && v.TTL > s.TTL {
		return false
	}
	source := q.Source.Unmap()
	first, bits := v.Source.Addr(), 128
	if source.Is4() {
		bits = 32
	} else {
		bits = s.IPv6Prefix
	}
	if v.Source.Bits() != bits || !v.Source.Contains(source) || source.Is4() && !s.IPv4 || source.Is6() && !s.IPv6 {
		return false
	}
	if right == s.Name {
		return true
	}
	for _, g := range groups {
		if right != "group:"+g.Name || !slices.Contains(g.Services, s.Name) {
			continue
		}
		inside := len(g.From) == 0
		for _, p := range g.From {
			inside = inside || p.Contains(first) && p.Contains(last(v.Source))
		}
		return inside && everyMinute(g.Hours, q.At, v.TTL)
	}
	return false
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// everyMinute reports whether all of a time lies in the hours.
func everyMinute(h *policy.Hours, at time.Time, ttl time.Duration) bool {
	if h == nil {
		return true
	}
	var minutes []bool // of the day
	for m := range 1440 {
		minutes = append(minutes, h.From < h.To && m >= h.From && m < h.To || h.From > h.To && (m >= h.From || m < h.To))
	}
	in := func(at time.Time) bool { return minutes[at.Hour()*60+at.Minute()] }
	for left := time.Duration(0); left < ttl; left += time.Minute {
		if !in(at.Add(left)) {
			return false
		}
	}
	return in(at.Add(ttl - time.Nanosecond))
}

func randomRules(rnd *rand.Rand) ([]policy.Service, []policy.Group) {
	var services []policy.Service
	for _, name := range []string{"a", "b"} {
		ttl := time.Duration(1+rnd.IntN(7200)) * time.Second
		family := 1 + rnd.IntN(3)
		services = append(services, policy.Service{
			Name: name, TTL: ttl, MaxTTL: ttl + time.Duration(rnd.IntN(7200))*time.Second,
			IPv6Prefix: []int{48, 56, 64, 100, 128}[rnd.IntN(5)], IPv4: family&1 != 0, IPv6: family&2 != 0,
		})
	}
	var groups []policy.Group
	for _, name := range []string{"g", "h"} {
		g := policy.Group{Name: name, Services: strings.Split("a b", " ")[rnd.IntN(2):]}
		for range rnd.IntN(3) {
			p := netip.PrefixFrom(randomAddr(rnd).Unmap(), rnd.IntN(33))
			if p.Addr().Is6() {
				p = netip.PrefixFrom(p.Addr(), rnd.IntN(129))
			}
			g.From = append(g.From, p.Masked())
		}
		if h := (policy.Hours{From: rnd.IntN(1440), To: rnd.IntN(1441)}); rnd.IntN(2) == 0 && h.From != h.To {
			g.Hours = &h
		}
		groups = append(groups, g)
	}
	return services, groups
}

// randomAddr picks from a few networks, so that some match: IPv4, mapped, IPv6.
func randomAddr(rnd *rand.Rand) netip.Addr {
	b := [16]byte{0x20, 1, 0xd, 0xb8, byte(rnd.IntN(2)), 15: byte(rnd.IntN(4))}
	if rnd.IntN(2) == 0 {
		return netip.AddrFrom16(b)
	}
	a := netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), 0, byte(rnd.IntN(4))})
	if rnd.IntN(4) == 0 {
		return netip.AddrFrom16(a.As16())
	}
	return a
}

// days are an ordinary one and, where time zones are known, those on which the clocks change.
var days = func() []time.Time {
	days := []time.Time{noon}
	if berlin, err := time.LoadLocation("Europe/Berlin"); err == nil {
		days = append(days, time.Date(2026, 3, 28, 12, 0, 0, 0, berlin), time.Date(2026, 10, 24, 12, 0, 0, 0, berlin))
	}
	return days
}()

func randomRequest(rnd *rand.Rand) policy.Request {
	rights := []string{"a", "b", "group:g", "group:h", "group:x", "x", ""}
	q := policy.Request{
		Service: wire.ServiceIDOf(rights[rnd.IntN(2)]),
		TTL:     uint16(rnd.IntN(3) * rnd.IntN(20_000)),
		Source:  randomAddr(rnd),
		At:      days[rnd.IntN(len(days))].Add(time.Duration(rnd.Int64N(int64(48 * time.Hour)))),
	}
	for range rnd.IntN(4) {
		q.Allow = append(q.Allow, rights[rnd.IntN(len(rights))])
	}
	return q
}
