package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the expected outputs in testdata/config anew")

const testdata = "../../testdata/config"

// files returns the configurations of a folder: at least a few.
func files(t testing.TB, folder string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(testdata, folder, "*.toml"))
	if err != nil || len(names) < 3 {
		t.Fatalf("%d files in %s: %v", len(names), folder, err)
	}
	return names
}

// golden holds a text against the file NAME.want beside NAME.toml.
func golden(t *testing.T, file, got string) {
	t.Helper()
	name := strings.TrimSuffix(file, ".toml") + ".want"
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestBad(t *testing.T) {
	for _, file := range files(t, "bad") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(filepath.Base(file), data)
			var problems *Problems
			if !errors.As(err, &problems) || c != nil {
				t.Fatalf("config %v, error %v: want none and problems", c, err)
			}
			if len(problems.Unwrap()) != len(problems.List) {
				t.Error("Unwrap leaves something out")
			}
			golden(t, file, err.Error()+"\n")
		})
	}
}

func TestGood(t *testing.T) {
	for _, file := range files(t, "good") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Ruleset(c.Port).Check(); err != nil {
				t.Error("the firewall refuses it:", err)
			}
			golden(t, file, describe(c))
		})
	}
}

// describe writes down what a configuration means.
func describe(c *Config) string {
	var b strings.Builder
	addr, err := c.InviteAddr()
	key, _ := filepath.Rel(testdata, c.KeyFile)
	if filepath.IsAbs(c.KeyFile) {
		key = c.KeyFile
	}
	fmt.Fprintf(&b, "listen %s port %d invite %q %v key %s\n", c.Listen, c.Port, addr, err != nil, filepath.ToSlash(key))
	fmt.Fprintf(&b, "firewall %s mark %#x always %v lan %v capture %s loopback %v json %v\n", strings.TrimSpace(c.Firewall+" "+c.IPTables), c.Mark, c.AlwaysAllow, c.LAN, c.Capture, c.TestLoopback, c.LogJSON)
	fmt.Fprintf(&b, "window %v budget %+v\n", c.Window, c.Limits)
	for _, d := range c.Doors {
		s, ok := c.Rules.Service(d.Name)
		fmt.Fprintf(&b, "service %s known %v\n", d.Name, ok)
		fmt.Fprintf(&b, "  door open %v forward %+v guard %v cut %v /%d\n", d.Open, d.Forward, d.Guard, d.Cut, d.IPv6Prefix)
		fmt.Fprintf(&b, "  policy ttl %v max %v /%d v4 %v v6 %v roam %v port %d pinhole %v\n", s.TTL, s.MaxTTL, s.IPv6Prefix, s.IPv4, s.IPv6, s.Roam, s.Port, s.Pinhole)
	}
	for _, g := range c.Rules.Groups() {
		fmt.Fprintf(&b, "group %s %v from %v hours %+v\n", g.Name, g.Services, g.From, g.Hours)
	}
	for _, d := range c.Devices {
		fmt.Fprintf(&b, "device %s %v allow %v expires %v disabled %v delegate %v\n", d.Name, d.Key, d.Allow, d.Expires.UTC(), d.Disabled, d.Delegate)
	}
	for _, w := range c.Webhooks {
		fmt.Fprintf(&b, "webhook %s to %s timeout %v secret %v in %q ca %q\n  events %v\n", w.Name, w.URL, w.Timeout, !w.Secret.IsZero(), relative(w.SecretFile), relative(w.CAFile), w.Events)
	}
	for _, e := range c.Execs {
		fmt.Fprintf(&b, "exec %s runs %q timeout %v\n  events %v\n", e.Name, e.Command, e.Timeout, e.Events)
	}
	return b.String()
}

// relative returns a path as seen from the test's configurations, if it is not one of its own.
func relative(path string) string {
	if rel, err := filepath.Rel(testdata, path); err == nil && path != "" {
		return filepath.ToSlash(rel)
	}
	return path
}
