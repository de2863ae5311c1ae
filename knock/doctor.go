package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"spad/pkg/client"
)

func doctorCommand() *cli.Command {
	return command(&cli.Command{
		Name:      "doctor",
		Usage:     "look for what keeps knocks from working, and say hello to each router, or to one",
		ArgsUsage: "[ROUTER]",
		Description: "Opens nothing. Exit code 0 if each router answered, 3 if one did not, 1 if something else is wrong.\n" +
			"On the other side, on the router: spad doctor\n\n" +
			"Example:\n  knock doctor home",
		Flags:  append([]cli.Flag{jsonFlag()}, familyFlags()...),
		Action: doctor,
	})
}

func doctor(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return usageErrorf("at most one router is wanted, as in: knock doctor home; they are listed by: knock list")
	}
	only, err := family(c)
	if err != nil {
		return err
	}
	cl, err := newClient(c)
	if err != nil {
		return err
	}
	e := &examination{client: cl, only: only}
	if err := e.all(c.Context, c.Args().First()); err != nil {
		return err
	}
	if c.Context.Err() != nil {
		return exitError(codeFailed)
	}
	if c.Bool("json") {
		err = json.NewEncoder(c.App.Writer).Encode(e.findings)
	} else {
		err = e.print(c.App.Writer)
	}
	if err == nil && e.code != 0 {
		err = exitError(e.code)
	}
	return err
}

// finding is one thing that doctor found. With ok and warn a knock still works.
type finding struct {
	Check  string   `json:"check"`
	Level  string   `json:"level"` // ok, warn, FAIL
	What   string   `json:"what"`
	Remedy []string `json:"remedy,omitempty"` // a line each
}

const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "FAIL"
)

// examination collects findings, and the exit code of the worst.
type examination struct {
	client   *client.Client
	only     client.Family
	findings []finding
	code     int
}

func (e *examination) say(check, level, what string, remedy ...string) {
	e.findings = append(e.findings, finding{check, level, what, remedy})
}

func (e *examination) ok(check, format string, args ...any) {
	e.say(check, levelOK, fmt.Sprintf(format, args...))
}

// fail is a finding with which a knock does not work.
func (e *examination) fail(code int, check, what string, remedy ...string) {
	e.code = max(e.code, code)
	e.say(check, levelFail, what, remedy...)
}

func (e *examination) print(w io.Writer) error {
	var b strings.Builder
	for _, f := range e.findings {
		fmt.Fprintf(&b, "%-4s  %s: %s\n", f.Level, f.Check, f.What)
		for _, line := range f.Remedy {
			fmt.Fprintf(&b, "        %s\n", line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// all looks at this device, then at each router, or the named one.
func (e *examination) all(ctx context.Context, name string) error {
	routers, err := e.client.Routers()
	if err != nil {
		return err
	}
	if name != "" {
		r, err := client.Named(routers, name)
		if err != nil {
			return err
		}
		routers = []client.Router{r}
	}
	e.key()
	e.clock()
	e.network()
	if len(routers) == 0 {
		e.fail(codeUsage, "routers", "none is known yet", "enrol with an invite: knock enroll INVITE")
	}
	if e.code != 0 {
		return nil
	}
	for _, r := range routers {
		if err := e.router(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (e *examination) key() {
	k, err := e.client.CheckKey()
	if err != nil {
		what, remedy := apart(err)
		e.fail(codeUsage, "key", what, remedy...)
		return
	}
	e.ok("key", "%v in %s, for this user alone", k, e.client.Dir())
}

// apart takes the remedy off an error, which ends with it.
func apart(err error) (what string, remedy []string) {
	what = err.Error()
	if i := strings.LastIndex(what, "; "); i >= 0 {
		return what[:i], []string{what[i+len("; "):]}
	}
	return what, nil
}

func (e *examination) clock() {
	if e.client.Synchronised() {
		e.ok("clock", "synchronised, or the system does not say")
		return
	}
	e.say("clock", levelWarn, "follows no time source; what routers answer corrects it for knocks", "run a time daemon (timedatectl set-ntp true)")
}

// router looks at the way to one router in each family.
func (e *examination) router(ctx context.Context, r client.Router) error {
	d, err := e.client.Diagnose(ctx, r, e.only)
	if err != nil {
		return err
	}
	for _, prefix := range d.NAT64 {
		e.ok(r.Name, "this network reaches IPv4 by NAT64 (%v): the router sees the translator's address", prefix)
	}
	answered := 0
	for _, w := range d.Families {
		if w.Result.Answered {
			answered++
		}
	}
	if answered > 0 {
		for _, w := range d.Families {
			e.way(r, d, w)
		}
		return nil
	}
	e.unanswered(r, d)
	return nil
}

// way says how one family does where at least one does.
func (e *examination) way(r client.Router, d client.Diagnosis, w client.Way) {
	check := fmt.Sprintf("%s, %v", r.Name, w.Family)
	switch {
	case w.Result.Answered && w.Result.Err == nil:
		e.ok(check, "%s", greeting(d, w))
	case w.Result.Answered:
		e.fail(codeFailed, check, "the router answered: "+w.Result.Status.String(), refusal(r, w.Result))
	case errors.Is(w.Result.Err, client.ErrNoAnswer):
		e.say(check, levelWarn, silence(w), "knocks work over the other family; if this one should: is "+w.Addrs[0].String()+" the router's, and does UDP get there?")
	default:
		e.say(check, levelOK, "not used: "+obstacle(r, w))
	}
}

// unanswered says what it can mean that no family has an answer: that of silence, if a packet left at all.
func (e *examination) unanswered(r client.Router, d client.Diagnosis) {
	silent := false
	for _, w := range d.Families {
		silent = silent || errors.Is(w.Result.Err, client.ErrNoAnswer)
	}
	for _, w := range d.Families {
		check := fmt.Sprintf("%s, %v", r.Name, w.Family)
		switch {
		case errors.Is(w.Result.Err, client.ErrNoAnswer):
			e.fail(codeNoAnswer, check, silence(w), meanings(r)...)
		case silent:
			e.say(check, levelOK, "not used: "+obstacle(r, w))
		default:
			e.fail(codeFailed, check, obstacle(r, w), "check this device's network, and the router's address with: knock list")
		}
	}
}

// meanings are what silence can come from.
func meanings(r client.Router) []string {
	return []string{
		"A router never answers what it does not know, so these look alike:",
		"- the port or the host is not the router's (now): " + r.Addr + "; there: listen and hostname in spad.toml",
		"- this network or a provider blocks UDP: try another one, such as a phone's",
		"- the router is off, or spad does not run there: spad status",
		"- this device was removed, is disabled or has expired, or never enrolled there; here: knock key, there: spad device list",
		"- the router has another key now; here: knock list --json, there: spad key; if they differ: knock enroll with a new invite",
		"- a firewall drops the packet on the way, or on the router itself; there: spad doctor",
	}
}
