package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spad/pkg/client"
	"spad/pkg/wire"
)

// TestUsageErrors are command lines that are refused before anything is made or sent.
func TestUsageErrors(t *testing.T) {
	tests := map[string]string{ // what stderr says
		"--nothing nas":              "no option --nothing",
		"list --ttl 5m":              "knock list --help",
		"list nas":                   "no arguments",
		"key nas":                    "no arguments",
		"forget":                     "knock list",
		"forget a b":                 "one router",
		"open":                       "name a service",
		"close":                      "name a service",
		"--json":                     "name a service",
		"nas --ttl":                  "needs a value",
		"nas --ttl --json":           "needs a value",
		"nas --ttl 0":                "65535",
		"nas --ttl -5":               "65535",
		"nas --ttl 65536":            "65535",
		"nas --ttl 1500ms":           "whole seconds",
		"nas --every soon":           "--every",
		"nas --json=maybe":           "json",
		"nas -4 -6":                  "exclude",
		"close nas -46":              "exclude",
		"enroll x -46":               "exclude",
		"NAS":                        "no service name",
		"-":                          "no service name",
		"open knock1:AAAA":           "knock enroll",
		"doctor a b":                 "at most one router",
		"doctor --config=":           "no folder",
		"doctor -4 -6":               "exclude",
		"install":                    "kept for a command",
		"nas list":                   "kept for a command",
		"nas --config=":              "no folder",
		"close nas --config=":        "no folder",
		"list --config=":             "no folder",
		"key --config=":              "no folder",
		"forget x --config=":         "no folder",
		"enroll x --name=":           "names nothing",
		"enroll":                     "one invite",
		"enroll a b":                 "one invite",
		"enroll rubbish":             "invite",
		"enroll knock1:":             "invite",
		"enroll knock1:abc":          "invite",
		"enroll knock-router:AAAA":   "router key",
		"enroll -":                   "invite", // of nothing
		"nas --wait -- no-such-file": "no-such-file",
		"nas --wait --":              "missing",
		"nas -- echo never":          "--wait",
		"nas --wait --no-answer":     "--no-answer",
		"nas --wait --every 10m":     "exclude",
		"close nas -- echo never":    "--",
		"help nothing":               "no command",
	}
	for line, want := range tests {
		t.Run(line, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "knock")
			args := strings.Fields(line)
			if !strings.Contains(line, "--config") {
				args = append([]string{"--config", dir}, args...)
			}
			var out, errs bytes.Buffer
			code := run(args, strings.NewReader(""), &out, &errs)
			said := errs.String()
			if code != codeUsage || out.Len() > 0 || !strings.Contains(said, want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want 2 and %q", code, out.String(), said, want)
			}
			if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "knock: ") {
				t.Errorf("stderr is not one line of knock's: %q", said)
			}
			if strings.Contains(said, "rubbish") || strings.Contains(said, "abc") {
				t.Errorf("an invite is echoed: %q", said)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("something was made")
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(nil, strings.NewReader(""), &out, &errs); code != codeUsage || out.Len() > 0 || !strings.Contains(errs.String(), "USAGE") {
		t.Errorf("knock alone: %d, %q, %q", code, out.String(), errs.String())
	}
	for _, line := range []string{
		"--help", "-h", "help", "h", "open --help", "help open", "nas --help", "enroll -h", "--help close", "help list", "help key", "help forget", "help doctor",
	} {
		out.Reset()
		errs.Reset()
		code := run(strings.Fields(line), strings.NewReader(""), &out, &errs)
		if code != 0 || errs.Len() > 0 || !strings.Contains(out.String(), "USAGE") || !strings.Contains(out.String(), "knock ") {
			t.Errorf("%s: %d, %q, %q", line, code, out.String(), errs.String())
		}
	}
	for _, line := range []string{"--version", "version", "nas --version"} {
		out.Reset()
		if code := run(strings.Fields(line), strings.NewReader(""), &out, &errs); code != 0 || out.String() != "knock "+versionText()+"\n" {
			t.Errorf("%s: %d, %q", line, code, out.String())
		}
	}
}

func TestExitCodes(t *testing.T) {
	status := func(s wire.Status) error { return fmt.Errorf("nas: %w", &client.StatusError{Status: s}) }
	tests := map[string]struct {
		err  error
		want int
	}{
		"done":        {nil, 0},
		"denied":      {status(wire.Denied), 4},
		"mismatch":    {status(wire.Mismatch), 4},
		"clock off":   {status(wire.ClockOff), 1},
		"busy":        {status(wire.Busy), 1},
		"failed":      {status(wire.Failed), 1},
		"no answer":   {fmt.Errorf("nas: %w", client.ErrNoAnswer), 3},
		"usage":       {usageErrorf("no"), 2},
		"config":      {fmt.Errorf("nas: %w", new(client.ConfigError)), 2},
		"no port":     {errNoPort, 5},
		"COMMAND's":   {exitError(77), 77},
		"local":       {errors.New("disk full"), 1},
		"interrupted": {fmt.Errorf("nas: %w", os.ErrDeadlineExceeded), 1},
	}
	for name, tt := range tests {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func TestExplain(t *testing.T) {
	home := client.Router{Name: "home", Addr: "home.example.net:41372"}
	refused := func(s wire.Status) client.Outcome {
		return client.Outcome{Service: "nas", Families: []client.Result{{Family: client.IPv4, Answered: true, Status: s, Err: &client.StatusError{Status: s}}}}
	}
	local := func(err error) client.Outcome {
		return client.Outcome{Service: "nas", Families: []client.Result{{Family: client.IPv4, Err: err}}}
	}
	tests := map[string]struct {
		outcome client.Outcome
		want    []string
		code    int
	}{
		"denied":    {refused(wire.Denied), []string{"nas: denied by home"}, 4},
		"mismatch":  {refused(wire.Mismatch), []string{"nas: home saw", "--no-address"}, 4},
		"busy":      {refused(wire.Busy), []string{"nas: home is busy"}, 1},
		"clock off": {refused(wire.ClockOff), []string{"nas: home", "spad status"}, 1},
		"failed":    {refused(wire.Failed), []string{"nas: home", "failed", "log"}, 1},
		"silence":   {local(client.ErrNoAnswer), []string{"nas: no answer from home.example.net:41372 (IPv4): ", "knock key"}, 3},
		"local":     {local(errors.New("no route")), []string{"nas: no route; ", "knock list"}, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := explain(home, tt.outcome)
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			if got := exitCode(err); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
		})
	}
}
