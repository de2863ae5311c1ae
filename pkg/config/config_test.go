package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/firewall"
	"spad/pkg/policy"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "good.toml", "listen = \":41372\"\n")
	for name, tt := range map[string]struct {
		path string
		want string // of the error, after the path
		is   error
	}{
		"good":      {good, "", nil},
		"missing":   {filepath.Join(dir, "none.toml"), ": there is no such file; make one with: spad init, or name another with --config FILE", fs.ErrNotExist},
		"folder":    {dir, ": is a folder or a device, not a file; name the file itself, such as spad.toml", errNotRegular},
		"below":     {filepath.Join(good, "spad.toml"), ": can't be read: not a directory; check the path and the disk", nil},
		"too large": {write(t, dir, "large.toml", strings.Repeat("#\n", MaxSize/2)+"#"), ": is larger than 1048576 bytes; name a configuration, or make it smaller", errTooLarge},
		"largest":   {write(t, dir, "largest.toml", "listen=':1'\n"+strings.Repeat("#", MaxSize-12)), "", nil},
		"bad":       {write(t, dir, "bad.toml", "\nlisten = 1\n"), `:2: listen: is a number; write a text in quotes, such as listen = ":41372"`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && name == "below" {
				t.Skip("another error there")
			}
			c, err := Load(tt.path)
			if (err == nil) != (tt.want == "") || (c == nil) != (tt.want != "") {
				t.Fatalf("config %v, error %v, want %q", c, err, tt.want)
			}
			if err == nil {
				if c.Path != tt.path {
					t.Errorf("path %q", c.Path)
				}
				return
			}
			if err.Error() != tt.path+tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.path+tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is no %v", err, tt.is)
			}
			var problems *Problems
			if !errors.As(err, &problems) {
				t.Errorf("%T, want *Problems", err)
			}
		})
	}
}

// TestUnreadable can't rely on modes: root reads everything.
func TestUnreadable(t *testing.T) {
	p := unreadable("spad.toml", &fs.PathError{Op: "open", Path: "spad.toml", Err: fs.ErrPermission})
	if got, want := p.Error(), "spad.toml: can't be read: permission denied; run this as the user that owns the file, as a rule root"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTooLarge(t *testing.T) {
	_, err := Parse("f", make([]byte, MaxSize+1))
	if want := "f:1: the file is larger than 1048576 bytes; make it smaller"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestHostile: no text takes long. Some of these took the decoder alone minutes.
func TestHostile(t *testing.T) {
	repeat := func(format string) string {
		var b strings.Builder
		b.WriteString("listen = ':1'\n")
		for i := 0; b.Len() < MaxSize/4; i++ { // in proportion to the length: a quarter is enough
			b.WriteString(strings.ReplaceAll(format, "#", fmt.Sprint(i)))
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"dots":           strings.Repeat("a.", MaxSize/2),
		"dotted headers": repeat("[a.a.a.a.a.a.a#]\n"),
		"lists":          "a = " + strings.Repeat("[", MaxSize-4),
		"inline tables":  strings.Repeat("a={", MaxSize/3),
		"unknown keys":   repeat("listem# = 1\n"),
		"escaped keys":   repeat("\"\\u0061#\" = 1\n"),
		"tables":         repeat("[service.s#]\nopen=['tcp/22']\n"),
		"ports":          "listen = ':1'\n[service.a]\nopen = [" + repeat("'tcp/22',\n")[14:] + "]",
		"overlaps":       "listen = ':1'\n[service.a]\nopen = [" + repeat("'tcp/1-6#',\n")[14:] + "]",
		"allow":          repeat("[device.d#]\nallow=['x#']\n"),
		"one long key":   strings.Repeat("k", MaxSize-10) + " = 1",
		"one long value": "listen = '" + strings.Repeat("k", MaxSize-11) + "'",
	} {
		t.Run(name, func(t *testing.T) {
			if len(text) > MaxSize {
				t.Fatal("larger than what is read")
			}
			if _, err := Parse("f", []byte(text)); err == nil {
				t.Error("no problem found")
			}
		})
	}
}

func TestOverlapsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("listen = ':1'\n")
	for i := range 40 {
		fmt.Fprintf(&b, "[service.s%d]\nopen = ['tcp/22']\n", i)
	}
	_, err := Parse("f", []byte(b.String()))
	var problems *Problems
	if !errors.As(err, &problems) || len(problems.List) != maxOverlaps {
		t.Errorf("%v, want %d problems", err, maxOverlaps)
	}
}

func TestInviteAddr(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"hostname": {`hostname = "home.example.net"`, "home.example.net:41372"},
		"address":  {`hostname = "192.0.2.1"`, "192.0.2.1:41372"},
		"IPv6":     {`hostname = "2001:db8::1"`, "[2001:db8::1]:41372"},
		"external": {"hostname = \"home.example.net\"\nexternal = \"example.org:5\"", "example.org:5"},
		"neither":  {"", `f: neither hostname nor external is set, so that an invite can't say where to knock; write hostname = "home.example.net"`},
	} {
		t.Run(name, func(t *testing.T) {
			addr, err := mustParse(t, "listen = \":41372\"\n"+tt.text).InviteAddr()
			if err != nil {
				addr = err.Error()
			}
			if addr != tt.want {
				t.Errorf("got %q, want %q", addr, tt.want)
			}
		})
	}
}

func TestRuleset(t *testing.T) {
	c := mustParse(t, "listen = ':41372'\nalways_allow = ['10.0.0.0/8']\nmark = 0x1\n[service.ssh]\nopen = ['tcp/22']")
	got := c.Ruleset(5)
	if got.KnockPort != 5 || got.Mark != 1 || len(got.AlwaysAllow) != 1 || len(got.Services) != 1 || got.Services[0].Open[0] != (firewall.Ports{Proto: firewall.TCP, First: 22, Last: 22}) {
		t.Errorf("got %+v", got)
	}
}

func mustParse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheckAllow(t *testing.T) {
	const services = "[service.ssh]\nopen = ['tcp/22']\n[service.nas]\nopen = ['tcp/80']\n"
	const groups = "[group.family]\nservices = ['nas']\n"
	for name, tt := range map[string]struct {
		text  string
		allow []string
		want  string
	}{
		"known":       {services + groups, []string{"ssh", "group:family"}, ""},
		"none":        {services + groups, nil, "no service named; services are: nas, ssh; groups are: group:family"},
		"no group":    {services, []string{"nsa"}, `unknown service "nsa"; did you mean "nas"?; services are: nas, ssh`},
		"two":         {services + groups, []string{"vnc", "group:vnc", "ssh"}, `unknown service "vnc"; write a [service.NAME] for it; unknown group "vnc"; write a [group.NAME] for it; services are: nas, ssh; groups are: group:family`},
		"bare group":  {services + groups, []string{"family"}, `unknown service "family"; for the group write "group:family"; services are: nas, ssh; groups are: group:family`},
		"no services": {"", []string{"ssh"}, `unknown service "ssh"; write a [service.NAME] for it; there is no service yet: write a [service.NAME]`},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := CheckAllow(mustParse(t, "listen = ':1'\n"+tt.text).Rules, tt.allow); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRulesGap: what policy refuses and was not found before is a problem too, never rules without it.
func TestRulesGap(t *testing.T) {
	r := &reader{file: "f", problems: &Problems{}}
	c := &Config{}
	r.rules(c, services{{policy: policy.Service{Name: "nas"}}}, nil)
	if c.Rules != nil || len(r.problems.List) != 1 || !strings.Contains(r.problems.Error(), "f:1: service \"nas\"") {
		t.Errorf("rules %v, problems %v", c.Rules, r.problems)
	}
}

func TestForeignText(t *testing.T) {
	long := strings.Repeat("ü", 100)
	for name, tt := range map[string]struct{ got, want string }{
		"short":         {quote("a\"\x1b[31m\n"), `"a\"\x1b[31m\n"`},
		"long":          {quote(long), `"` + long[:64] + `"…`},
		"cut in a rune": {quote("a" + long), `"a` + long[:62] + `"…`},
		"error":         {plain("a\x1b\nb. "), "a  b"},
		"long error":    {plain("a" + strings.Repeat("ü", 200)), "a" + strings.Repeat("ü", 99) + "…"},
		"syntax":        {syntax(errors.New("no parse error")), "f:1: no parse error; texts stand"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(tt.got, tt.want) {
				t.Errorf("got %s, want %s", tt.got, tt.want)
			}
		})
	}
}

func syntax(err error) string {
	r := &reader{file: "f", problems: &Problems{}}
	r.syntax(err, 1)
	return r.problems.Error()
}

func TestNearest(t *testing.T) {
	options := []string{"listen", "ttl", "max_ttl", "on_expire", "h"}
	for word, want := range map[string]string{
		"lisen": "listen", "lsiten": "listen", "listem": "listen", "Listen": "listen", "tll": "ttl", "tt": "ttl", "max-ttl": "max_ttl",
		"onexpire": "on_expire", "l": "", "": "", "x": "", "colour": "", "ttlttlttl": "", "silent": "",
	} {
		if got := nearest(word, options); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
