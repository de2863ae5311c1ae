package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"

	"spad/pkg/firewall"
)

// seed adds all configurations in testdata, the reference and the template.
func seed(f *testing.F) {
	f.Helper()
	for _, file := range append(append(files(f, "good"), files(f, "bad")...), "reference.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(Template(41372, ""))
}

// FuzzParse: any bytes are a configuration that opens nothing which is not written, or problems that have a line.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) { parse(t, data) })
}

// TestMutated does without the fuzzer what it would do: it takes the files of testdata and spoils them.
func TestMutated(t *testing.T) {
	var texts [][]byte
	for _, file := range append(append(files(t, "good"), files(t, "bad")...), "reference.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, data)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	valid := 0
	for range 10_000 {
		data := slices.Clone(texts[rnd.IntN(len(texts))])
		for range 1 + rnd.IntN(3) {
			data = spoil(rnd, data, texts[rnd.IntN(len(texts))])
		}
		if parse(t, data) {
			valid++
		}
	}
	if valid < 100 {
		t.Errorf("only %d of the files were valid: the test says little", valid)
	}
}

// spoil changes, drops, doubles or mixes something.
func spoil(rnd *rand.Rand, data, other []byte) []byte {
	if len(data) == 0 {
		return other
	}
	at := rnd.IntN(len(data))
	to := min(len(data), at+1+rnd.IntN(20))
	lines := bytes.SplitAfter(data, []byte("\n"))
	one, two := rnd.IntN(len(lines)), rnd.IntN(len(lines))
	switch rnd.IntN(7) {
	case 0:
		data[at] ^= 1 << rnd.IntN(8)
	case 1:
		return slices.Delete(data, at, to)
	case 2:
		return slices.Insert(data, at, data[at:to]...)
	case 3:
		from := bytes.SplitAfter(other, []byte("\n"))
		return slices.Insert(data, at, from[rnd.IntN(len(from))]...)
	case 4:
		lines[one], lines[two] = lines[two], lines[one]
		return bytes.Join(lines, nil)
	case 5:
		return bytes.Join(slices.Delete(lines, one, one+1), nil)
	default:
		digits := []byte("0123456789")
		if i := bytes.IndexAny(data[at:], "0123456789"); i >= 0 {
			data[at+i] = digits[rnd.IntN(10)]
		}
	}
	return data
}

// parse checks what is promised of any bytes, and reports whether they are a configuration.
func parse(t testing.TB, data []byte) bool {
	c, err := Parse("f.toml", data)
	if err == nil {
		asWritten(t, data, c)
		return true
	}
	var problems *Problems
	if c != nil || !errors.As(err, &problems) || len(problems.List) == 0 {
		t.Fatalf("config %v, error %v", c, err)
	}
	last := 1
	for _, p := range problems.List {
		if p.Line < last || p.Line > bytes.Count(data, []byte("\n"))+1 {
			t.Fatalf("%v: line %d after line %d, of %d", p, p.Line, last, bytes.Count(data, []byte("\n"))+1)
		}
		last = p.Line
		text := p.Error()
		if !strings.HasPrefix(text, fmt.Sprintf("f.toml:%d: ", p.Line)) || p.What == "" || p.Remedy == "" || len(text) > 1000 {
			t.Fatalf("%q is no problem", text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
			t.Fatalf("%q has control characters", text)
		}
	}
	return false
}

// asWritten derives from the text, in its own way, what may be open, and holds the configuration against it.
func asWritten(t testing.TB, data []byte, c *Config) {
	var raw map[string]any
	if _, err := toml.Decode(string(data), &raw); err != nil {
		t.Fatal(err)
	}
	if err := c.Ruleset(c.Port).Check(); err != nil {
		t.Fatal("the firewall refuses it:", err)
	}
	services, _ := raw["service"].(map[string]any)
	if len(c.Doors) != len(services) || len(c.Rules.Services()) != len(services) {
		t.Fatalf("%d doors, %d rules of %d services", len(c.Doors), len(c.Rules.Services()), len(services))
	}
	for _, d := range c.Doors {
		written := services[d.Name].(map[string]any)
		if got, want := doorPorts(d), writtenPorts(written); !slices.Equal(got, want) {
			t.Fatalf("%s opens %v, written is %v", d.Name, got, want)
		}
		asWrittenDoor(t, raw, written, d)
		asWrittenPolicy(t, written, c, d)
	}
	asWrittenNetworks(t, raw["always_allow"], c.AlwaysAllow)
	asWrittenNetworks(t, raw["lan"], c.LAN)
	groups, _ := raw["group"].(map[string]any)
	for _, g := range c.Rules.Groups() {
		written := groups[g.Name].(map[string]any)
		_, from := written["from"]
		_, hours := written["hours"]
		if len(g.Services) != len(written["services"].([]any)) || from != (len(g.From) > 0) || hours != (g.Hours != nil) {
			t.Fatalf("group %+v, written is %v", g, written)
		}
	}
	devices, _ := raw["device"].(map[string]any)
	for _, d := range c.Devices {
		written := devices[d.Name].(map[string]any)
		at, expires := written["expires"].(time.Time)
		if fmt.Sprint(d.Allow) != fmt.Sprint(written["allow"]) || d.Key.String() != written["key"] ||
			expires != !d.Expires.IsZero() || !d.Expires.Equal(at) || d.Disabled != (written["disabled"] == true) || d.Delegate != (written["delegate"] == true) {
			t.Fatalf("device %+v, written is %v", d, written)
		}
	}
	if len(devices) != len(c.Devices) || len(groups) != len(c.Rules.Groups()) {
		t.Fatal("devices or groups were lost or found")
	}
}

// doorPorts lists the protocols and ports of a door one by one.
func doorPorts(d firewall.Service) []string {
	var all []string
	ranges := d.Open
	if d.Forward != nil {
		ranges = []firewall.Ports{d.Forward.Port}
	}
	for _, p := range ranges {
		for n := int(p.First); n <= int(p.Last); n++ {
			all = append(all, fmt.Sprintf("%v/%d", p.Proto, n))
		}
	}
	slices.Sort(all)
	return all
}

func writtenPorts(service map[string]any) []string {
	texts, _ := service["open"].([]any)
	if f, ok := service["forward"].(map[string]any); ok {
		texts = append(slices.Clone(texts), f["port"])
	}
	var all []string
	for _, text := range texts {
		proto, ports, _ := strings.Cut(text.(string), "/")
		first, last, ranged := strings.Cut(ports, "-")
		if !ranged {
			last = first
		}
		n, _ := strconv.Atoi(first)
		most, _ := strconv.Atoi(last)
		for ; n <= most; n++ {
			all = append(all, fmt.Sprintf("%s/%d", proto, n))
		}
	}
	slices.Sort(all)
	return all
}

func asWrittenDoor(t testing.TB, raw, written map[string]any, d firewall.Service) {
	var got, want []string
	if d.Forward != nil {
		for _, to := range []netip.AddrPort{d.Forward.To4, d.Forward.To6} {
			if to.IsValid() {
				got = append(got, fmt.Sprintf("%v to %d", to, int(to.Port())+len(doorPorts(d))-1))
			}
		}
		for _, text := range writtenTexts(written["forward"].(map[string]any)["to"]) {
			want = append(want, writtenTarget(t, text))
		}
		if at, ok := written["forward"].(map[string]any)["pinhole"]; ok {
			if want = append(want, at.(string)); d.Forward.Hole.Bits < 64 || d.Forward.To6.IsValid() {
				t.Fatalf("%s has the pinhole %v", d.Name, d.Forward.Hole)
			}
		}
		if d.Forward.Hole.IsValid() {
			got = append(got, d.Forward.Hole.String())
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s goes to %v, written is %v", d.Name, got, want)
	}
	guard, prefix := raw["guard"], raw["ipv6_prefix"]
	if own, ok := written["guard"]; ok {
		guard = own
	}
	if own, ok := written["ipv6_prefix"]; ok {
		prefix = own
	}
	if guard == nil {
		guard = "drop"
	}
	if prefix == nil {
		prefix = int64(128)
	}
	if d.Guard.String() != guard || int64(d.IPv6Prefix) != prefix || d.IPv6Prefix < 48 || d.Cut != (written["on_expire"] == "cut") {
		t.Fatalf("%+v, written is %v", d, written)
	}
}

// writtenTexts returns a text, or those of a list.
func writtenTexts(v any) (texts []string) {
	if text, ok := v.(string); ok {
		return []string{text}
	}
	list, _ := v.([]any)
	for _, text := range list {
		texts = append(texts, text.(string))
	}
	return texts
}

// writtenTarget returns the address, the first port and the last.
func writtenTarget(t testing.TB, text string) string {
	at := strings.LastIndex(text, ":")
	first, last, ranged := strings.Cut(text[at+1:], "-")
	if !ranged {
		last = first
	}
	to, err := netip.ParseAddrPort(text[:at+1] + first)
	if err != nil || to.Addr().IsLoopback() || to.Addr().IsMulticast() || to.Addr().IsUnspecified() || to.Port() == 0 {
		t.Fatalf("%q is a target: %v", text, err)
	}
	return fmt.Sprintf("%v to %s", to, last)
}

func asWrittenPolicy(t testing.TB, written map[string]any, c *Config, d firewall.Service) {
	s, ok := c.Rules.Service(d.Name)
	if !ok || slices.Contains(reserved, d.Name) {
		t.Fatalf("service %q: known %v", d.Name, ok)
	}
	ttl, most := 15*time.Minute, 8*time.Hour
	if text, ok := written["ttl"].(string); ok {
		ttl, _ = time.ParseDuration(text)
		most = max(most, ttl)
	}
	if text, ok := written["max_ttl"].(string); ok {
		most, _ = time.ParseDuration(text)
	}
	if s.TTL != ttl || s.MaxTTL != most || most > firewall.MaxTTL || s.IPv6Prefix != d.IPv6Prefix || s.Roam != (written["roam"] != false) {
		t.Fatalf("%+v, written is %v", s, written)
	}
	v4, v6 := true, true
	if d.Forward != nil {
		v4, v6 = d.Forward.To4.IsValid(), d.Forward.To6.IsValid() || d.Forward.Hole.IsValid()
	}
	if s.IPv4 != v4 || s.IPv6 != v6 {
		t.Fatalf("%+v opens for families that %+v has not", s, d)
	}
	ports := doorPorts(d)
	if len(d.Ports()) == 0 { // a mere pinhole: none of them is the router's
		ports = nil
	}
	if s.Port != 0 && (len(ports) != 1 || !strings.HasSuffix(ports[0], fmt.Sprintf("/%d", s.Port))) || s.Port == 0 && len(ports) == 1 {
		t.Fatalf("port %d of %v", s.Port, ports)
	}
}

// asWrittenNetworks checks that networks are as wide as what is written: each is there, and nothing else.
func asWrittenNetworks(t testing.TB, raw any, networks []netip.Prefix) {
	written := map[netip.Prefix]bool{}
	texts, _ := raw.([]any)
	for _, text := range texts {
		p, err := netip.ParsePrefix(text.(string))
		if err != nil {
			a := netip.MustParseAddr(text.(string))
			p = netip.PrefixFrom(a, a.BitLen())
		}
		written[p] = true
	}
	for _, p := range networks {
		if !written[p] || p.Bits() == 0 {
			t.Fatalf("there is %v, written is %v", p, texts)
		}
	}
	for p := range maps.Keys(written) {
		if !slices.ContainsFunc(networks, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }) {
			t.Fatalf("%v is written, there is %v", p, networks)
		}
	}
}
