package config

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/firewall"
	"spad/pkg/policy"
)

var (
	header = regexp.MustCompile(`^\[(service|group|device|webhook|exec)\.`)
	pair   = regexp.MustCompile(`^(# )?([a-z0-9_]+) = (.*)$`)
	inline = regexp.MustCompile(`([a-z0-9_]+) = `)
)

// documented is a key that the reference shows.
type documented struct {
	key       string
	commented bool
	value     string
}

// readReference returns the keys by kind of table.
func readReference(t *testing.T) map[string][]documented {
	data, err := os.ReadFile("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	kind, all := topKind, map[string][]documented{}
	for line := range strings.Lines(string(data)) {
		if m := header.FindStringSubmatch(line); m != nil {
			kind = "[" + m[1] + ".NAME]"
			all[topKind] = append(all[topKind], documented{key: m[1]})
		}
		m := pair.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		all[kind] = append(all[kind], documented{m[2], m[1] != "", m[3]})
		if m[2] == budgetKind || m[2] == forwardKind {
			for _, in := range inline.FindAllStringSubmatch(m[3], -1) {
				all[m[2]] = append(all[m[2]], documented{key: in[1]})
			}
		}
	}
	return all
}

func TestReferenceHasEveryKey(t *testing.T) {
	reference := readReference(t)
	for kind, known := range schema {
		shown := map[string]bool{}
		for _, d := range reference[kind] {
			shown[d.key] = true
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(known)), slices.Sorted(maps.Keys(shown))); diff != "" {
			t.Errorf("%s (-known +documented):\n%s", kind, diff)
		}
	}
}

// TestReferenceShowsDefaults: what is commented out is the default, so it changes nothing; examples are valid.
func TestReferenceShowsDefaults(t *testing.T) {
	data, err := os.ReadFile("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	examples := []string{"external", "remote", "always_allow", "lan", "from", "hours", "expires", "ca_file"}
	planned := []string{"proxy", "iptables", "secret"} // iptables stands only beside another firewall than the default, secret beside no file
	uncomment := func(text string, leave ...string) string {
		var b strings.Builder
		for line := range strings.Lines(text) {
			if m := pair.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil && m[1] != "" && !slices.Contains(leave, m[2]) {
				line = strings.TrimPrefix(line, "# ")
			}
			b.WriteString(line)
		}
		return b.String()
	}
	plain := mustParse(t, string(data))
	defaults := uncomment(string(data), append(slices.Clone(examples), planned...)...)
	if strings.Count(defaults, "\n# ") >= strings.Count(string(data), "\n# ")-10 {
		t.Error("almost nothing was uncommented")
	}
	if diff := cmp.Diff(describe(plain), describe(mustParse(t, defaults))); diff != "" {
		t.Error("a default is not one:", diff)
	}
	full := mustParse(t, uncomment(string(data), planned...))
	if describe(full) == describe(plain) || !full.Remote.IsValid() || len(full.AlwaysAllow) == 0 || len(full.LAN) == 0 || full.Devices[0].Expires.IsZero() || full.Rules.Groups()[0].Hours == nil {
		t.Error("an example was not taken")
	}
}

// TestReferenceBounds: the numbers in the comments are those in the code.
func TestReferenceBounds(t *testing.T) {
	data, err := os.ReadFile("reference.toml")
	if err != nil {
		t.Fatal(err)
	}
	prose := strings.Join(strings.Fields(strings.ReplaceAll(string(data), "#", "")), " ")
	for _, want := range []string{
		fmt.Sprintf("%s to %s, default %q", short(MinWindow), short(MaxWindow), short(DefaultWindow)),
		fmt.Sprintf("%s to %ds (%s). Default: %q", short(policy.MinTTL), policy.MaxTTL/1e9, short(policy.MaxTTL), short(DefaultTTL)),
		fmt.Sprintf("ttl to %ds. Default: %q, or ttl", policy.MaxTTL/1e9, short(DefaultMaxTTL)),
		fmt.Sprintf("%d to 128. Default: 128", policy.MinIPv6Prefix),
		fmt.Sprintf("at most %d characters", maxHost),
		fmt.Sprintf("at most %d ports, any number", firewall.MaxShifted),
		fmt.Sprintf(`"1/s" to "%d/s"; bursts 1 to %d`, maxRate, maxRate),
		strings.Join(reserved, ", "),
		fmt.Sprintf("%s to %s, default %q", short(MinSinkTimeout), short(MaxSinkTimeout), short(DefaultSinkTimeout)),
	} {
		if !strings.Contains(prose, want) {
			t.Errorf("reference.toml does not say %q", want)
		}
	}
}

// TestEveryKeyIsRead: a key that is known but read by nobody would be ignored in silence. So each gets a value that
// can't be right, and there must be a problem with it.
func TestEveryKeyIsRead(t *testing.T) {
	tables := map[string]string{
		topKind: "%s\n", budgetKind: "[budget]\n%s\n", serviceKind: "[service.x]\n%s\n", forwardKind: "[service.x.forward]\n%s\n",
		groupKind: "[group.x]\n%s\n", deviceKind: "[device.x]\n%s\n", webhookKind: "[webhook.x]\n%s\n", execKind: "[exec.x]\n%s\n",
	}
	for kind, known := range schema {
		for _, key := range known {
			value := "2027-01-01T00:00:00Z"
			if key == "expires" {
				value = "true"
			}
			_, err := Parse("f", fmt.Appendf(nil, tables[kind], key+" = "+value))
			want := regexp.MustCompile(`(?m)^f:\d: ([a-z.]+\.)?` + key + `: (is a date|is true or false|.* is planned)`)
			if err == nil || !want.MatchString(err.Error()) {
				t.Errorf("%s of %s is not read: %v", key, kind, err)
			}
		}
	}
}

func TestTemplate(t *testing.T) {
	for name, hostname := range map[string]string{"no name": "", "name": "home.example.net", "IPv6": "2001:db8::1"} {
		t.Run(name, func(t *testing.T) {
			text := Template(53123, hostname)
			c := mustParse(t, string(text))
			if c.Port != 53123 || c.Hostname != hostname || len(c.Doors) != 1 || c.Doors[0].Name != "ssh" {
				t.Errorf("%+v", c)
			}
			if err := c.Ruleset(c.Port).Check(); err != nil {
				t.Error(err)
			}
			if !strings.Contains(string(text), "# always_allow = ") {
				t.Error("always_allow is not shown")
			}
			uncommented := regexp.MustCompile(`(?m)^# (\[|[a-z_]+ *= )`).ReplaceAllString(string(text), "$1")
			uncommented = strings.ReplaceAll(uncommented, "knock-device:...", "knock-device:Ka0VBd-D75xTuu0Uw2SEkFHGFFzaMb04sEdSeBl6KGg")
			if c := mustParse(t, uncommented); len(c.Doors) != 2 || len(c.Devices) != 1 || len(c.Rules.Groups()) != 1 || len(c.AlwaysAllow) != 2 {
				t.Errorf("with its examples: %+v", c)
			}
		})
	}
}

func TestCheckHostname(t *testing.T) {
	if err := CheckHostname("home.example.net"); err != nil {
		t.Error(err)
	}
	want := `hostname: "a:1" has a port; write the name alone here, or external = "HOST:PORT" instead`
	if err := CheckHostname("a:1"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
