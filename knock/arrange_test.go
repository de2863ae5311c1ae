package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestArrange(t *testing.T) {
	tests := map[string]string{ // "" is a line that ends before urfave/cli sees it
		"nas":                             "open -- nas",
		"open nas":                        "open -- nas",
		"nas ssh photos":                  "open -- nas ssh photos",
		"nas --ttl 5m":                    "open --ttl=5m -- nas",
		"nas --ttl=5m":                    "open --ttl=5m -- nas",
		"nas -ttl 5m":                     "open --ttl=5m -- nas",
		"--ttl 5m nas":                    "open --ttl=5m -- nas",
		"--ttl 5m open nas":               "open --ttl=5m -- nas",
		"--ttl open nas":                  "open --ttl=open -- nas", // a value, whatever it looks like
		"--router list close nas":         "close --router=list -- nas",
		"nas --ttl -5":                    "open --ttl=-5 -- nas",
		"nas --ttl=":                      "open --ttl= -- nas",
		"nas --ttl a=b":                   "open --ttl=a=b -- nas",
		"-4 nas":                          "open -4 -- nas",
		"nas -46":                         "open -4 -6 -- nas",
		"nas --4":                         "open -4 -- nas",
		"nas --json=false":                "open --json=false -- nas",
		"nas --wait -- ssh -4 home --ttl": "open --wait -- nas -- ssh -4 home --ttl",
		"nas --wait --":                   "open --wait -- nas --",
		"nas --wait -- a -- b":            "open --wait -- nas -- a -- b",
		"--wait nas -- list":              "open --wait -- nas -- list",
		"enroll - --name x":               "enroll --name=x -- -",
		"--config d enroll -":             "enroll --config=d -- -",
		"close nas --json":                "close --json -- nas",
		"list":                            "list --",
		"nas list":                        "open -- nas list", // which open refuses
		"list --help":                     "list --help",
		"--help list":                     "list --help",
		"nas -h":                          "open --help",
		"help list":                       "list --help",
		"h":                               "--help",
		"--help":                          "--help",
		"help --ttl 5m":                   "--help",
		"nas --help --name x":             "open --help",
		"version":                         "",
		"--version":                       "",
		"nas --version":                   "",
		"--config d --version":            "",
		"nas --every 10m --no-answer":     "open --every=10m --no-answer -- nas",
		"--router home --router work nas": "open --router=home --router=work -- nas",
		"nas --ttl 5m --config d ssh -6":  "open --ttl=5m --config=d -6 -- nas ssh",
	}
	app := newApp(strings.NewReader(""), io.Discard, io.Discard)
	for in, want := range tests {
		t.Run(in, func(t *testing.T) {
			l, err := arrange(app, strings.Fields(in))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(l.argv(), " ")
			if l.version {
				got = ""
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestArrangeRefuses(t *testing.T) {
	tests := map[string]string{
		"nas --nothing":        "no option --nothing",
		"nas --nothing=1":      "no option --nothing",
		"nas -5":               "no option -5",
		"nas -4x":              "no option -4x",
		"nas -=x":              "no option -",
		"--ttl":                "needs a value",
		"nas --ttl":            "needs a value",
		"nas --ttl -- x":       "needs a value",
		"nas --ttl --json":     "needs a value",
		"nas --ttl -4":         "needs a value",
		"nas --router --ttl=5": "needs a value",
		"list --ttl 5m":        "--ttl is no option of this command",
		"--name x nas":         "--name is no option of this command",
		"close nas --wait":     "--wait is no option of this command",
		"--json":               "name a service",
		"--":                   "name a service",
		"-- nas":               "name a service",
		"help nothing":         "no command",
	}
	app := newApp(strings.NewReader(""), io.Discard, io.Discard)
	for in, want := range tests {
		t.Run(in, func(t *testing.T) {
			_, err := arrange(app, strings.Fields(in))
			if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, new(*usageError)) {
				t.Errorf("error %v, want one with %q", err, want)
			}
		})
	}
}

// TestOptionsMeanTheSameEverywhere: an option that takes a value in one command and
// none in another could not be put in order before the command is known.
func TestOptionsMeanTheSameEverywhere(t *testing.T) {
	app := newApp(strings.NewReader(""), io.Discard, io.Discard)
	all := allOptions(app)
	for _, c := range app.Commands {
		for name, takes := range optionsOf(c) {
			if all[name] != takes {
				t.Errorf("--%s of %s", name, c.Name)
			}
		}
		if !slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), "config") }) {
			t.Errorf("%s does not take --config", c.Name)
		}
		if !strings.Contains(c.Description, "Example") {
			t.Errorf("%s has no example", c.Name)
		}
		if !slices.Contains(kept, c.Name) {
			t.Errorf("%s is not kept from services", c.Name)
		}
	}
}

// FuzzArrange: what was put in order stays in that order.
func FuzzArrange(f *testing.F) {
	seeds := []string{"nas", "nas --ttl 5m", "-46 nas -- x", "list --json", "enroll - --name=x", "nas --wait -- a -- b --help", "--config d close nas"}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	app := newApp(strings.NewReader(""), io.Discard, io.Discard)
	f.Fuzz(func(t *testing.T, in string) {
		words := strings.Split(in, " ")
		l, err := arrange(app, words)
		if err != nil || l.help || l.version || l.command == "" {
			return
		}
		// The arguments follow the first "--" there, so take it out to read the line again.
		argv := l.argv()
		first := slices.Index(argv, "--")
		again, err := arrange(app, slices.Delete(slices.Clone(argv), first, first+1))
		if err != nil {
			t.Fatalf("%q became %q: %v", words, argv, err)
		}
		if diff := cmp.Diff(argv, again.argv()); diff != "" {
			t.Error(diff)
		}
	})
}
