package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/client"
	"spad/pkg/wire"
)

func openCommand() *cli.Command {
	return command(&cli.Command{
		Name:      "open",
		Usage:     "open services for the address this device has; the word open may be left out",
		ArgsUsage: "SERVICE... [-- COMMAND...]",
		Description: `Examples:
  knock nas photos --ttl 2h
  knock ssh --wait -- ssh admin@home.example.net
  knock nas --every 10m

With --every a failed knock is tried again soon, as is one after the device woke up or
changed its network. Ctrl-C ends it with exit code 0; the door shuts at its time.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "ttl", Usage: "how long: `TIME` as 90s, 15m, 2h or seconds, at most 65535s (default: the service's own)"},
			&cli.StringFlag{Name: "router", Usage: "knock at `ROUTER`, by name or host; needed if several have the service"},
			&cli.BoolFlag{Name: "no-answer", Usage: "send, and do not ask whether it worked", DisableDefaultText: true},
			&cli.BoolFlag{Name: "no-address", Usage: "do not declare this device's own address: for networks that translate it", DisableDefaultText: true},
			&cli.BoolFlag{Name: "wait", Usage: "wait until the service's TCP port answers, at most 10 s; then run COMMAND", DisableDefaultText: true},
			&cli.StringFlag{Name: "every", Usage: "keep it open: knock every `TIME` until stopped"},
			jsonFlag(),
		}, familyFlags()...),
		Action: open,
	})
}

func open(c *cli.Context) error {
	o, err := readOpening(c)
	if err != nil {
		return err
	}
	cl, err := newClient(c)
	if err != nil {
		return err
	}
	k, err := newKnocker(c, cl, o.visits(wire.OpOpen))
	if err != nil {
		return err
	}
	if o.program != nil { // its output is COMMAND's alone
		k.out = c.App.ErrWriter
	}
	switch {
	case o.every > 0:
		return keepOpen(c.Context, k, o.every)
	case !o.wait:
		return k.all(c.Context).worst()
	}
	got := k.all(c.Context)
	if err := got.worst(); err != nil {
		return err
	}
	if err := k.awaitPorts(c.Context, got); err != nil || o.program == nil {
		return err
	}
	return o.program.run()
}

// opening is what the command line of an open asks for.
type opening struct {
	services []string
	router   string
	template client.Request
	wait     bool
	every    time.Duration
	program  *program
}

func readOpening(c *cli.Context) (o opening, err error) {
	var rest []string
	var dashes bool
	if o.services, rest, dashes, err = services(c); err != nil {
		return o, err
	}
	o.router, o.wait = c.String("router"), c.Bool("wait")
	o.template.NoAnswer, o.template.NoAddress = c.Bool("no-answer"), c.Bool("no-address")
	if o.template.Only, err = family(c); err != nil {
		return o, err
	}
	if o.template.TTL, err = seconds(c, "ttl"); err != nil {
		return o, err
	}
	if o.every, err = seconds(c, "every"); err != nil {
		return o, err
	}
	switch {
	case o.wait && o.template.NoAnswer:
		return o, usageErrorf("--wait needs the answer, which names the port; leave out --no-answer")
	case o.wait && o.every > 0:
		return o, usageErrorf("--wait and --every exclude each other")
	case dashes && !o.wait:
		return o, usageErrorf("a command after -- needs --wait, as in: knock ssh --wait -- ssh home")
	case dashes && len(rest) == 0:
		return o, usageErrorf("after -- a command is missing, as in: knock ssh --wait -- ssh home")
	case dashes:
		o.program, err = findProgram(rest)
	}
	return o, err
}

func (o opening) visits(op wire.Op) plan {
	o.template.Op = op
	return plan{o.services, o.router, o.template}
}

// services returns the arguments before "--", each once, and what follows it.
func services(c *cli.Context) (names, rest []string, dashes bool, err error) {
	seen := make(map[string]bool)
	for i, a := range c.Args().Slice() {
		if a == "--" {
			rest, dashes = c.Args().Slice()[i+1:], true
			break
		}
		if err := serviceName(a); err != nil {
			return nil, nil, false, err
		}
		if !seen[a] {
			names = append(names, a)
		}
		seen[a] = true
	}
	if len(names) == 0 {
		return nil, nil, false, usageErrorf("name a service, as in: knock %s nas", c.Command.Name)
	}
	return names, rest, dashes, nil
}

func serviceName(s string) error {
	for _, k := range kept {
		if s == k {
			return usageErrorf("%q is kept for a command, so no service is called that; see: knock --help", s)
		}
	}
	if strings.HasPrefix(s, "knock1:") {
		return usageErrorf("this is an invite; take it with: knock enroll INVITE")
	}
	if !wire.ValidName(s) {
		return usageErrorf("%q is no service name: small letters, digits and hyphens, at most 32", s)
	}
	return nil
}

// seconds reads an option that is a Go duration or a number of seconds; 0 if it is not given.
func seconds(c *cli.Context, name string) (time.Duration, error) {
	if !c.IsSet(name) {
		return 0, nil
	}
	d, err := parseSeconds(c.String(name))
	if err != nil {
		return 0, usageErrorf("--%s %q: %w", name, c.String(name), err)
	}
	return d, nil
}

var errSeconds = errors.New("it must be a time from 1s to 65535s in whole seconds, as 90s, 15m, 2h or 900")

func parseSeconds(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < time.Second || d > client.MaxTTL*time.Second || d%time.Second != 0 {
		return 0, errSeconds
	}
	return d, nil
}

// keepOpen knocks until it is stopped.
func keepOpen(ctx context.Context, k *knocker, every time.Duration) error {
	ctx, stop := untilStopped(ctx)
	defer stop()
	round := func(ctx context.Context) (time.Duration, error) {
		got := k.all(ctx)
		return got.ttl(), got.worst()
	}
	return keeper{every: every, round: round, addresses: addresses, warn: k.warn}.run(ctx)
}
