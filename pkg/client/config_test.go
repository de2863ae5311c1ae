package client

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spad/keys"
)

func routerKey(t testing.TB, n byte) keys.RouterPublic {
	k, err := keys.NewRouterSecret([32]byte{n})
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

func TestConfigRoundTrip(t *testing.T) {
	path := t.TempDir() + "/config.toml"
	if got, err := loadRouters(path); err != nil || len(got) != 0 {
		t.Errorf("no file: %v, %v", got, err)
	}
	want := []Router{
		{Name: "192.0.2.1", Addr: "192.0.2.1:41372", Key: routerKey(t, 1), Services: []string{"nas", "ssh"}},
		{Name: "2001:db8::1", Addr: "[2001:db8::1]:1", Key: routerKey(t, 2)},
		{Name: "home.example.net", Addr: "home.example.net:65535", Key: routerKey(t, 3), Services: []string{"a"}},
		{Name: "lan", Addr: "[fe80::1%eth0]:9", Key: routerKey(t, 4)},
	}
	if err := saveRouters(path, []Router{want[3], want[1], want[0], want[2]}); err != nil {
		t.Fatal(err)
	}
	got, err := loadRouters(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(keys.RouterPublic{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(text), "#") {
		t.Errorf("no comment at the start: %.40q, %v", text, err)
	}
}

func TestConfigRefused(t *testing.T) {
	key := routerKey(t, 1).String()
	router := func(lines string) string { return "[router.home]\n" + lines + "\n" }
	tests := map[string]struct{ text, want string }{
		"syntax":         {"[router.home]\naddr = \n", "line 2"},
		"not a table":    {"router = 1", "router"},
		"unknown key":    {router(`addr = "h:1"` + "\nkey = \"" + key + "\"\nport = 1"), "router.home.port is not known"},
		"unknown table":  {"[routers.home]", "routers"},
		"wrong type":     {router(`addr = 1`), "addr"},
		"no address":     {router(`key = "` + key + `"`), "host:port"},
		"no port":        {router(`addr = "home"`), "host:port"},
		"port 0":         {router(`addr = "home:0"`), "host:port"},
		"port too high":  {router(`addr = "home:65536"`), "host:port"},
		"bad host":       {router(`addr = "ho me:1"`), "host:port"},
		"bare IPv6":      {router(`addr = "2001:db8::1:1"`), "host:port"},
		"no key":         {router(`addr = "home:1"`), "key: "},
		"device key":     {router(`addr = "home:1"` + "\nkey = \"" + keys.NewDeviceSecret([32]byte{1}).Public().String() + `"`), "device key"},
		"weak key":       {router(`addr = "home:1"` + "\nkey = \"knock-router:" + strings.Repeat("A", 43) + `"`), "weak"},
		"bad service":    {router(`addr = "home:1"` + "\nkey = \"" + key + "\"\nservices = [\"NAS\"]"), "service name"},
		"bad name":       {"[router.\"a b\"]\naddr = \"home:1\"\nkey = \"" + key + `"`, "name"},
		"empty name":     {"[router.\"\"]\naddr = \"home:1\"\nkey = \"" + key + `"`, "name"},
		"like an option": {"[router.-x]\naddr = \"home:1\"\nkey = \"" + key + `"`, "name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/config.toml"
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := loadRouters(path)
			if err == nil {
				t.Fatal("accepted")
			}
			if !errors.As(err, new(*ConfigError)) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one with %q and the path", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	seeds := []string{
		"", "[router.a]\naddr = \"h:1\"\nkey = \"" + routerKey(f, 1).String() + "\"\nservices = [\"x\"]\n", "[router]", "router.a.addr = 1",
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	path := f.TempDir() + "/config.toml"
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := parseConfig(data)
		if err != nil {
			return
		}
		if err := saveRouters(path, first); err != nil {
			t.Fatal(err)
		}
		second, err := loadRouters(path)
		if err != nil {
			t.Fatalf("what was accepted is refused when written: %v", err)
		}
		if diff := cmp.Diff(first, second, cmpopts.EquateComparable(keys.RouterPublic{}), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPick(t *testing.T) {
	home := Router{Name: "home", Addr: "home.example.net:1", Services: []string{"nas", "ssh"}}
	work := Router{Name: "work", Addr: "work.example.net:1", Services: []string{"ssh", "git"}}
	work2 := Router{Name: "work2", Addr: "work.example.net:2"}
	all := []Router{home, work, work2}
	tests := map[string]struct {
		routers       []Router
		name, service string
		want          string
		err           string
	}{
		"none":                    {nil, "", "nas", "", "knock enroll"},
		"none, by name":           {nil, "home", "nas", "", "knock enroll"},
		"only one":                {all[:1], "", "never-heard-of", "home", ""},
		"known to one":            {all, "", "git", "work", ""},
		"known to two":            {all, "", "ssh", "", "home, work"},
		"known to none":           {all, "", "never-heard-of", "", "home, work, work2"},
		"by name":                 {all, "work2", "nas", "work2", ""},
		"by host":                 {all, "home.example.net", "ssh", "home", ""},
		"by address":              {all, "Work.example.net:2", "ssh", "work2", ""},
		"by a host of two":        {all, "work.example.net", "ssh", "", "work, work2"},
		"by a name nobody has":    {all, "away", "ssh", "", "home, work, work2"},
		"only one, but not asked": {all[:1], "away", "nas", "", "away"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Pick(tt.routers, tt.name, tt.service)
			if got.Name != tt.want || (err == nil) != (tt.err == "") {
				t.Fatalf("%v, %v", got, err)
			}
			if err != nil && (!errors.As(err, new(*ConfigError)) || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
}

func TestForget(t *testing.T) {
	s := newScene(t)
	if _, err := s.Forget(context.Background(), "home"); !errors.As(err, new(*ConfigError)) {
		t.Errorf("nothing to forget: %v", err)
	}
	other := s.home()
	other.Name, other.Key = "other", routerKey(t, 1)
	if err := saveRouters(s.folder.file("config.toml"), []Router{s.home(), other}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Forget(context.Background(), "home"); err != nil || r.Name != "home" {
		t.Errorf("%v, %v", r, err)
	}
	got, err := s.Routers()
	if err != nil || len(got) != 1 || got[0].Name != "other" {
		t.Errorf("left: %v, %v", got, err)
	}
	if _, err := s.Forget(context.Background(), "home"); err == nil {
		t.Error("forgotten twice")
	}
}
