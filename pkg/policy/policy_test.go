package policy_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/policy"
	"spad/pkg/wire"
)

func service(name string) policy.Service {
	return policy.Service{Name: name, TTL: time.Minute, MaxTTL: time.Hour, IPv4: true, IPv6: true}
}

// clashA and clashB have equal service ids; they were found by trying 31 million names.
const clashA, clashB = "svc-31070680", "svc-22268377"

func TestNewRulesRefuses(t *testing.T) {
	with := func(change func(*policy.Service)) []policy.Service {
		s := service("nas")
		change(&s)
		return []policy.Service{s}
	}
	nas := []policy.Service{service("nas")}
	group := func(g policy.Group) []policy.Group { return []policy.Group{g} }
	prefix := netip.MustParsePrefix
	for name, tt := range map[string]struct {
		services []policy.Service
		groups   []policy.Group
		want     string
	}{
		"bad name":        {with(func(s *policy.Service) { s.Name = "NAS" }), nil, `service "NAS": a name is`},
		"no ttl":          {with(func(s *policy.Service) { s.TTL = 0 }), nil, "want 1s <= ttl"},
		"max below ttl":   {with(func(s *policy.Service) { s.MaxTTL = time.Second }), nil, "ttl <= max_ttl"},
		"max too long":    {with(func(s *policy.Service) { s.MaxTTL = 65536 * time.Second }), nil, "max_ttl <= 18h12m15s"},
		"split second":    {with(func(s *policy.Service) { s.TTL += time.Millisecond }), nil, "whole seconds"},
		"split max":       {with(func(s *policy.Service) { s.MaxTTL += time.Millisecond }), nil, "whole seconds"},
		"wide prefix":     {with(func(s *policy.Service) { s.IPv6Prefix = 47 }), nil, "want 48 to 128"},
		"long prefix":     {with(func(s *policy.Service) { s.IPv6Prefix = 129 }), nil, "want 48 to 128"},
		"no family":       {with(func(s *policy.Service) { s.IPv4, s.IPv6 = false, false }), nil, "neither"},
		"same name":       {append(nas, service("nas")), nil, "same id"},
		"same id":         {[]policy.Service{service(clashA), service(clashB)}, nil, "same id"},
		"group name":      {nas, group(policy.Group{Name: "-"}), `group "-": a name is`},
		"group twice":     {nas, []policy.Group{{Name: "a"}, {Name: "a"}}, "used twice"},
		"group's service": {nas, group(policy.Group{Name: "a", Services: []string{"photos"}}), `unknown service "photos"`},
		"host bits":       {nas, group(policy.Group{Name: "a", From: []netip.Prefix{prefix("10.0.0.1/8")}}), "host bits"},
		"no network":      {nas, group(policy.Group{Name: "a", From: []netip.Prefix{{}}}), "host bits"},
		"mapped network":  {nas, group(policy.Group{Name: "a", From: []netip.Prefix{prefix("::ffff:10.0.0.0/104")}}), "host bits"},
		"empty hours":     {nas, group(policy.Group{Name: "a", Hours: &policy.Hours{From: 60, To: 60}}), `group "a": hours`},
		"late hours":      {nas, group(policy.Group{Name: "a", Hours: &policy.Hours{From: 0, To: 1441}}), "hours"},
		"negative hours":  {nas, group(policy.Group{Name: "a", Hours: &policy.Hours{From: -1, To: 60}}), "hours"},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := policy.NewRules(tt.services, tt.groups)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if rules != nil {
				t.Error("rules beside an error")
			}
		})
	}
}

func TestRulesAreCopies(t *testing.T) {
	services := []policy.Service{service("nas"), service("photos")}
	groups := []policy.Group{
		{Name: "b", Services: []string{"nas"}, From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Hours: &policy.Hours{To: 60}},
		{Name: "a"},
	}
	rules := mustRules(t, services, groups)
	want := rules.Groups()
	services[0].Name, groups[0].Services[0], groups[0].Hours.To = "x", "x", 1
	groups[0].From[0] = netip.MustParsePrefix("0.0.0.0/0")
	got := rules.Groups()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error("what was passed in is still shared:", diff)
	}
	if got[0].Name != "a" || got[1].Name != "b" {
		t.Errorf("groups are not in order: %v", got)
	}
	got[1].Services[0] = "photos"
	if rules.Groups()[1].Services[0] != "nas" {
		t.Error("what was handed out is still shared")
	}
}

func TestLookups(t *testing.T) {
	rules := mustRules(t, []policy.Service{service("photos"), service(clashA)}, nil)
	photos, ok := rules.Service("photos")
	if !ok || photos.IPv6Prefix != 128 {
		t.Errorf("photos: %+v, %v; want IPv6Prefix 128 for one left out", photos, ok)
	}
	if byID, ok := rules.ServiceByID(wire.ServiceIDOf("photos")); !ok || byID != photos {
		t.Errorf("by id: %+v, %v", byID, ok)
	}
	if _, ok := rules.ServiceByID(wire.ServiceID{1}); ok {
		t.Error("an id that nothing has was found")
	}
	if s, ok := rules.Service(clashB); ok {
		t.Errorf("%q was found as %q, which has the same id", clashB, s.Name)
	}
	var got []string
	for _, s := range rules.Services() {
		got = append(got, s.Name)
	}
	if diff := cmp.Diff([]string{"photos", clashA}, got); diff != "" {
		t.Error(diff)
	}
}

func mustRules(t testing.TB, services []policy.Service, groups []policy.Group) *policy.Rules {
	t.Helper()
	rules, err := policy.NewRules(services, groups)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestPortFor(t *testing.T) {
	v4, v6 := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")
	for _, c := range []struct {
		service policy.Service
		v4, v6  uint16
	}{
		{policy.Service{}, 0, 0},
		{policy.Service{Port: 443}, 443, 443},
		{policy.Service{Port: 443, Pinhole: true}, 443, 0},
	} {
		if a, b := c.service.PortFor(v4), c.service.PortFor(v6); a != c.v4 || b != c.v6 {
			t.Errorf("%+v: %d and %d", c.service, a, b)
		}
	}
}
