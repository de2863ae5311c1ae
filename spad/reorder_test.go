package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestReorder(t *testing.T) {
	tests := []struct {
		name, line, want, err string
	}{
		{"nothing to do", "spad status", "spad status --", ""},
		{"option after the command", "spad status --json", "spad status --json --", ""},
		{"option before the command", "spad --json status", "spad status --json --", ""},
		{"option with value before the command", "spad --config f status", "spad status --config f --", ""},
		{"option between group and command", "spad device --state d list", "spad device list --state d --", ""},
		{"option after the argument", "spad open nas --from 1.2.3.4", "spad open --from 1.2.3.4 -- nas", ""},
		{"options around the argument", "spad --ttl 5m open --from=1.2.3.4 nas --json", "spad open --ttl 5m --from=1.2.3.4 --json -- nas", ""},
		{"one dash", "spad -socket s status", "spad status -socket s --", ""},
		{"value like an option", "spad open nas --from -x", "spad open --from -x -- nas", ""},
		{"value like a command", "spad --config status status", "spad status --config status --", ""},
		{"option twice", "spad invite x --allow a --allow b", "spad invite --allow a --allow b -- x", ""},
		{"switch with a value", "spad status --json=false", "spad status --json=false --", ""},
		{"after two dashes all is argument", "spad open -- --from", "spad open -- --from", ""},
		{"options before two dashes", "spad open --json -- -x", "spad open --json -- -x", ""},
		{"one dash is an argument", "spad close -", "spad close -- -", ""},
		{"argument like a command", "spad close status", "spad close -- status", ""},
		{"arguments keep their order", "spad open a b --json c", "spad open --json -- a b c", ""},

		{"help", "spad --help", "spad --help", ""},
		{"short help", "spad -h", "spad --help", ""},
		{"help of a command", "spad open --help", "spad open --help", ""},
		{"help before the command", "spad --help open", "spad open --help", ""},
		{"help among arguments", "spad open nas -h --from", "spad open --help", ""},
		{"help as a word", "spad help device add", "spad device add --help", ""},
		{"help word alone", "spad help", "spad --help", ""},
		{"help wins over a wrong option", "spad status --bogus --help", "spad status --help", ""},
		{"help of a group's stray word", "spad device bogus --help", "spad device --help", ""},
		{"no help after two dashes", "spad close -- --help", "spad close -- --help", ""},
		{"version", "spad --version", "spad --version", ""},
		{"version anywhere", "spad status -v", "spad --version", ""},

		{"no command", "spad", "", "no command"},
		{"options and no command", "spad --config f", "", "no command"},
		{"group and no command", "spad device", "", `no command after "spad device"`},
		{"unknown command", "spad sesions", "", `unknown command "sesions" (did you mean "sessions"?)`},
		{"unknown command of a group", "spad device ad", "", `unknown command "ad" (did you mean "add"?); see: spad device --help`},
		{"help for an unknown command", "spad help sesions", "", `did you mean "sessions"?`},
		{"unknown option", "spad status --jsno", "", `unknown option "--jsno" (did you mean --json?); see: spad status --help`},
		{"unknown option before the command", "spad --confg f status", "", `unknown option "--confg" (did you mean --config?)`},
		{"unknown letter", "spad status -x", "", `unknown option "-x"`},
		{"option of another command", "spad status --from 1.2.3.4", "", `unknown option "--from"`},
		{"no value at the end", "spad open nas --from", "", "option --from needs a value"},
		{"no value before two dashes", "spad open --from -- nas", "", "option --from needs a value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := reorder(newApp(io.Discard, io.Discard), strings.Fields(tt.line))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || exitCode(err) != exitUsage {
					t.Fatalf("got %q, error %v; want a usage error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What scan relies on: an option's name means one thing in every command, so that it can be read before the command is known.
func TestOptionsMeanOneThing(t *testing.T) {
	takes := map[string]bool{}
	everyCommand(newApp(io.Discard, io.Discard), func(path string, c *cli.Command) {
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				if before, seen := takes[name]; seen && before != takesValue(f) {
					t.Errorf("--%s of %s takes a value in one command and none in another", name, path)
				}
				takes[name] = takesValue(f)
			}
		}
	})
	if !takes["config"] || takes["json"] || len(takes) < 10 {
		t.Errorf("the options were not found: %v", takes)
	}
}

// everyCommand visits the commands and those below them.
func everyCommand(app *cli.App, visit func(path string, c *cli.Command)) {
	var walk func(prefix string, commands []*cli.Command)
	walk = func(prefix string, commands []*cli.Command) {
		for _, c := range commands {
			visit(prefix+c.Name, c)
			walk(prefix+c.Name+" ", c.Subcommands)
		}
	}
	walk("", app.Commands)
}
