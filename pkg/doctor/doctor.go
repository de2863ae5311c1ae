// Package doctor looks for what could keep a knock from working on this router, and says what to do about it.
//
// Each check reads and changes nothing, with and without a running daemon. What can't be looked at is said. Checks see the
// machine by way of [World], whose parts tests replace.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"spad/pkg/config"
)

// Level is how bad a finding is.
type Level uint8

// The levels. With Warn a knock still works; with Fail it can fail.
const (
	OK Level = iota
	Warn
	Fail
)

// String returns "ok", "warn" or "FAIL".
func (l Level) String() string { return [...]string{"ok", "warn", "FAIL"}[l] }

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is what one check found.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"` // empty if there is nothing to do
}

// Daemon is what a running daemon says of itself.
type Daemon struct {
	Listen     string
	Firewall   string
	Started    time.Time
	KnockClock time.Time
}

// Patient is the router that is looked at.
type Patient struct {
	Config   *config.Config
	StateDir string
	Filter   string   // the packet filter that the configuration names
	Held     []string // those that may hold rules of spad's, by the state
	HeldErr  error
	Daemon   *Daemon // nil if none runs
	// DaemonErr says why it is not known whether one runs.
	DaemonErr error
	World     *World // nil is this machine
}

// chart collects findings.
type chart struct {
	Patient
	*World
	findings []Finding
}

func (c *chart) say(check string, l Level, remedy, format string, args ...any) {
	c.findings = append(c.findings, Finding{Check: check, Level: l, What: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (c *chart) ok(check, format string, args ...any) { c.say(check, OK, "", format, args...) }

// apart takes the remedy off an error, which ends with it, as all of the house do.
func apart(err error) (what, remedy string) {
	what = err.Error()
	if i := strings.LastIndex(what, "; "); i >= 0 {
		return what[:i], what[i+len("; "):]
	}
	return what, ""
}

// untold says that something could not be looked at.
func (c *chart) untold(check, what string, err error) {
	c.say(check, Warn, "run this as root, or look by hand", "could not look at %s: %v", what, err)
}

// checks are all that is looked at, in the order in which a knock meets it.
var checks = []func(context.Context, *chart){
	runs, port, key, state, journal, devices, invites,
	wide, named, clock, queue, kernel, held, others, offloaded, tracked, forwards, returnPath, listeners,
}

// Examine looks at everything and returns what it found, in a fixed order.
func Examine(ctx context.Context, p Patient) []Finding {
	c := &chart{Patient: p, World: p.World}
	if c.World == nil {
		c.World = machine(p.Config)
	}
	w := *c.World
	w.Rules = sync.OnceValue(w.Rules) // several checks ask, and reading them takes a while
	c.World = &w
	for _, check := range checks {
		if ctx.Err() == nil {
			check(ctx, c)
		}
	}
	return c.findings
}

// Worst returns the highest level of all findings.
func Worst(findings []Finding) Level {
	if len(findings) == 0 {
		return OK
	}
	return slices.MaxFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Level, b.Level) }).Level
}
