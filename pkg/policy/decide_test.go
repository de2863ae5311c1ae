package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/policy"
	"spad/pkg/wire"
)

var noon = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// house is one configuration with everything that decisions turn on.
func house(t testing.TB) *policy.Rules {
	services := []policy.Service{
		{Name: "ssh", TTL: 15 * time.Minute, MaxTTL: time.Hour, IPv4: true, IPv6: true, Roam: true, Port: 22},
		{Name: "nas", TTL: time.Hour, MaxTTL: 8 * time.Hour, IPv6Prefix: 64, IPv4: true, IPv6: true},
		{Name: "cam4", TTL: time.Minute, MaxTTL: time.Minute, IPv4: true},
		{Name: "cam6", TTL: time.Minute, MaxTTL: time.Minute, IPv6: true},
	}
	prefix := netip.MustParsePrefix
	groups := []policy.Group{
		{Name: "all", Services: []string{"ssh", "nas", "cam4", "cam6"}},
		{Name: "here", Services: []string{"nas"}, From: []netip.Prefix{prefix("203.0.113.0/24"), prefix("2001:db8::/32")}},
		{Name: "narrow", Services: []string{"nas"}, From: []netip.Prefix{prefix("2001:db8::/96")}},
		{Name: "day", Services: []string{"nas"}, Hours: &policy.Hours{From: 7 * 60, To: 23 * 60}},
		{Name: "night", Services: []string{"nas"}, Hours: &policy.Hours{From: 22 * 60, To: 6 * 60}},
		{Name: "herebyday", Services: []string{"nas"}, From: []netip.Prefix{prefix("203.0.113.0/24")}, Hours: &policy.Hours{From: 7 * 60, To: 23 * 60}},
		{Name: "empty"},
	}
	return mustRules(t, services, groups)
}

func TestDecide(t *testing.T) {
	rules := house(t)
	at := func(hour, minute int) time.Time { return time.Date(2026, 3, 10, hour, minute, 0, 0, time.UTC) }
	const here, away = "203.0.113.9", "198.51.100.1"
	for name, tt := range map[string]struct {
		allow   []string
		service string
		ttl     uint16
		source  string
		at      time.Time
		want    string // source for ttl, or the reason
	}{
		"by name":                {[]string{"ssh"}, "ssh", 0, away, noon, "198.51.100.1/32 15m0s"},
		"by group":               {[]string{"group:all"}, "ssh", 0, away, noon, "198.51.100.1/32 15m0s"},
		"second right":           {[]string{"nas", "ssh"}, "ssh", 0, away, noon, "198.51.100.1/32 15m0s"},
		"shorter":                {[]string{"ssh"}, "ssh", 1, away, noon, "198.51.100.1/32 1s"},
		"longer than default":    {[]string{"ssh"}, "ssh", 1800, away, noon, "198.51.100.1/32 30m0s"},
		"at the limit":           {[]string{"ssh"}, "ssh", 3600, away, noon, "198.51.100.1/32 1h0m0s"},
		"cut to the limit":       {[]string{"ssh"}, "ssh", 3601, away, noon, "198.51.100.1/32 1h0m0s"},
		"cut from the most":      {[]string{"ssh"}, "ssh", 65535, away, noon, "198.51.100.1/32 1h0m0s"},
		"no rights":              {nil, "ssh", 0, away, noon, "not allowed"},
		"other right":            {[]string{"nas"}, "ssh", 0, away, noon, "not allowed"},
		"unknown service":        {[]string{"vnc"}, "vnc", 0, away, noon, "unknown service"},
		"unknown group":          {[]string{"group:nobody"}, "ssh", 0, away, noon, "not allowed"},
		"group without prefix":   {[]string{"all"}, "ssh", 0, away, noon, "not allowed"},
		"service with prefix":    {[]string{"group:ssh"}, "ssh", 0, away, noon, "not allowed"},
		"empty group":            {[]string{"group:empty"}, "ssh", 0, away, noon, "not allowed"},
		"empty right":            {[]string{""}, "ssh", 0, away, noon, "not allowed"},
		"group of others":        {[]string{"group:here"}, "ssh", 0, here, noon, "not allowed"},
		"v6 alone":               {[]string{"ssh"}, "ssh", 0, "2001:db8::1", noon, "2001:db8::1/128 15m0s"},
		"v6 prefix":              {[]string{"nas"}, "nas", 0, "2001:db8:1:2:3:4:5:6", noon, "2001:db8:1:2::/64 1h0m0s"},
		"v4 is never wider":      {[]string{"nas"}, "nas", 0, away, noon, "198.51.100.1/32 1h0m0s"},
		"mapped":                 {[]string{"nas"}, "nas", 0, "::ffff:198.51.100.1", noon, "198.51.100.1/32 1h0m0s"},
		"zone":                   {[]string{"nas"}, "nas", 0, "fe80::1%eth0", noon, "fe80::/64 1h0m0s"},
		"no address":             {[]string{"nas"}, "nas", 0, "", noon, "no such family"},
		"v4 only, v4":            {[]string{"cam4"}, "cam4", 0, away, noon, "198.51.100.1/32 1m0s"},
		"v4 only, mapped":        {[]string{"cam4"}, "cam4", 0, "::ffff:198.51.100.1", noon, "198.51.100.1/32 1m0s"},
		"v4 only, v6":            {[]string{"cam4"}, "cam4", 0, "2001:db8::1", noon, "no such family"},
		"v6 only, v4":            {[]string{"group:all"}, "cam6", 0, away, noon, "no such family"},
		"v6 only, mapped":        {[]string{"cam6"}, "cam6", 0, "::ffff:198.51.100.1", noon, "no such family"},
		"no right, no family":    {[]string{"ssh"}, "cam6", 0, away, noon, "not allowed"},
		"from here":              {[]string{"group:here"}, "nas", 0, here, noon, "203.0.113.9/32 1h0m0s"},
		"from here, mapped":      {[]string{"group:here"}, "nas", 0, "::ffff:203.0.113.9", noon, "203.0.113.9/32 1h0m0s"},
		"from here, v6":          {[]string{"group:here"}, "nas", 0, "2001:db8:ffff::1", noon, "2001:db8:ffff::/64 1h0m0s"},
		"from away":              {[]string{"group:here"}, "nas", 0, away, noon, "not from here"},
		"from away, v6":          {[]string{"group:here"}, "nas", 0, "2001:db9::1", noon, "not from here"},
		"door wider than from":   {[]string{"group:narrow"}, "nas", 0, "2001:db8::1", noon, "not from here"},
		"away but by name":       {[]string{"group:here", "nas"}, "nas", 0, away, noon, "198.51.100.1/32 1h0m0s"},
		"by day":                 {[]string{"group:day"}, "nas", 0, away, at(7, 0), "198.51.100.1/32 1h0m0s"},
		"before the day":         {[]string{"group:day"}, "nas", 0, away, at(6, 59), "not now"},
		"at its end":             {[]string{"group:day"}, "nas", 0, away, at(23, 0), "not now"},
		"near its end":           {[]string{"group:day"}, "nas", 0, away, at(22, 50), "198.51.100.1/32 10m0s"},
		"less near its end":      {[]string{"group:day"}, "nas", 300, away, at(22, 50), "198.51.100.1/32 5m0s"},
		"in its last moment":     {[]string{"group:day"}, "nas", 0, away, at(23, 0).Add(-time.Millisecond), "not now"},
		"in its last second":     {[]string{"group:day"}, "nas", 0, away, at(23, 0).Add(-1999 * time.Millisecond), "198.51.100.1/32 1s"},
		"by night, before 24":    {[]string{"group:night"}, "nas", 28800, away, at(23, 0), "198.51.100.1/32 7h0m0s"},
		"by night, after 0":      {[]string{"group:night"}, "nas", 28800, away, at(1, 0), "198.51.100.1/32 5h0m0s"},
		"night is over":          {[]string{"group:night"}, "nas", 0, away, at(6, 0), "not now"},
		"night begins":           {[]string{"group:night"}, "nas", 0, away, at(22, 0), "198.51.100.1/32 1h0m0s"},
		"not yet night":          {[]string{"group:night"}, "nas", 0, away, at(21, 59), "not now"},
		"day or night":           {[]string{"group:day", "group:night"}, "nas", 7200, away, at(22, 30), "198.51.100.1/32 2h0m0s"},
		"night or day":           {[]string{"group:night", "group:day"}, "nas", 7200, away, at(22, 30), "198.51.100.1/32 2h0m0s"},
		"not now and not here":   {[]string{"group:herebyday"}, "nas", 0, away, at(3, 0), "not from here"},
		"here but not now":       {[]string{"group:herebyday"}, "nas", 0, here, at(3, 0), "not now"},
		"nearest miss is told":   {[]string{"group:day", "group:here"}, "nas", 0, away, at(3, 0), "not now"},
		"nearest miss, reversed": {[]string{"group:here", "group:day"}, "nas", 0, away, at(3, 0), "not now"},
		"not now but by name":    {[]string{"group:day", "nas"}, "nas", 28800, away, at(22, 59), "198.51.100.1/32 8h0m0s"},
		"the zone of the time":   {[]string{"group:day"}, "nas", 0, away, at(6, 59).In(time.FixedZone("east", 3600)), "198.51.100.1/32 1h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			source, _ := netip.ParseAddr(tt.source)
			v := rules.Decide(policy.Request{Allow: tt.allow, Service: wire.ServiceIDOf(tt.service), TTL: tt.ttl, Source: source, At: tt.at})
			got := string(v.Reason)
			if v.Allowed {
				got = v.Source.String() + " " + v.TTL.String()
			}
			if got != tt.want {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			if v.Allowed == (v.Reason != "") {
				t.Errorf("allowed %v, but reason %q", v.Allowed, v.Reason)
			}
			if !v.Allowed && (v.Source.IsValid() || v.TTL != 0) {
				t.Errorf("a refusal has a source or time: %+v", v)
			}
			if v.Reason != policy.UnknownService && v.Service.Name != tt.service {
				t.Errorf("the verdict is about %q, want %q", v.Service.Name, tt.service)
			}
		})
	}
}

// TestClockChange: hours end when the clock on the wall says so, also on the two days when it jumps.
func TestClockChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here:", err)
	}
	rules := mustRules(t, []policy.Service{{Name: "nas", TTL: 18 * time.Hour, MaxTTL: 18 * time.Hour, IPv4: true}}, []policy.Group{
		{Name: "night", Services: []string{"nas"}, Hours: &policy.Hours{From: 23 * 60, To: 6 * 60}},
		{Name: "gap", Services: []string{"nas"}, Hours: &policy.Hours{From: 60, To: 150}},
		{Name: "late", Services: []string{"nas"}, Hours: &policy.Hours{From: 60, To: 1440}},
	})
	summer := time.Date(2026, 3, 29, 1, 59, 0, 0, berlin)  // one minute before 3:00
	winter := time.Date(2026, 10, 25, 1, 59, 0, 0, berlin) // 3:00 becomes 2:00 in an hour and a minute
	for name, tt := range map[string]struct {
		group string
		at    time.Time
		want  time.Duration
	}{
		"spring":            {"night", summer, 3*time.Hour + time.Minute},
		"spring, eve":       {"night", summer.Add(-2 * time.Hour), 5*time.Hour + time.Minute},
		"autumn":            {"night", winter, 5*time.Hour + time.Minute},
		"autumn, repeated":  {"night", winter.Add(time.Hour + 31*time.Minute), 3*time.Hour + 30*time.Minute},
		"end is skipped":    {"gap", summer, time.Minute},
		"end is repeated":   {"gap", winter.Add(11 * time.Minute), 20 * time.Minute},
		"in the repetition": {"gap", winter.Add(71 * time.Minute), 20 * time.Minute},
		"until midnight":    {"late", winter.Add(14 * time.Hour), 9*time.Hour + time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			v := rules.Decide(policy.Request{Allow: []string{"group:" + tt.group}, Service: wire.ServiceIDOf("nas"), Source: netip.MustParseAddr("192.0.2.1"), At: tt.at})
			if v.TTL != tt.want {
				t.Errorf("at %v: %v, want %v", tt.at, v.TTL, tt.want)
			}
		})
	}
}

func TestDecideClose(t *testing.T) {
	rules := house(t)
	for name, tt := range map[string]struct {
		allow   []string
		service string
		want    policy.Reason
	}{
		"by name":            {[]string{"ssh"}, "ssh", ""},
		"by group":           {[]string{"group:all"}, "ssh", ""},
		"hours do not count": {[]string{"group:herebyday"}, "nas", ""},
		"not allowed":        {[]string{"nas"}, "ssh", policy.NotAllowed},
		"unknown service":    {[]string{"vnc"}, "vnc", policy.UnknownService},
	} {
		t.Run(name, func(t *testing.T) {
			v := rules.DecideClose(tt.allow, wire.ServiceIDOf(tt.service))
			if v.Reason != tt.want || v.Allowed != (tt.want == "") {
				t.Errorf("allowed %v, reason %q, want %q", v.Allowed, v.Reason, tt.want)
			}
			if tt.want != policy.UnknownService && v.Service.Name != tt.service {
				t.Errorf("the verdict is about %q", v.Service.Name)
			}
		})
	}
}

func TestZeroDenies(t *testing.T) {
	if (policy.Verdict{}).Allowed {
		t.Error("the zero verdict allows")
	}
	q := policy.Request{Allow: []string{"ssh"}, Service: wire.ServiceIDOf("ssh"), Source: netip.MustParseAddr("192.0.2.1"), At: noon}
	if v := new(policy.Rules).Decide(q); v.Allowed {
		t.Error("zero rules allow")
	}
	if v := new(policy.Rules).DecideClose(q.Allow, q.Service); v.Allowed {
		t.Error("zero rules allow to close")
	}
	if v := house(t).Decide(policy.Request{}); v.Allowed {
		t.Error("the zero request is allowed")
	}
}

func TestGranted(t *testing.T) {
	rules := house(t)
	for name, tt := range map[string]struct{ allow, want []string }{
		"nothing":      {nil, nil},
		"unknown":      {[]string{"vnc", "group:vnc"}, nil},
		"names":        {[]string{"ssh", "nas"}, []string{"nas", "ssh"}},
		"group":        {[]string{"group:night"}, []string{"nas"}},
		"name & group": {[]string{"group:night", "nas", "ssh"}, []string{"nas", "ssh"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, rules.Granted(tt.allow)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
