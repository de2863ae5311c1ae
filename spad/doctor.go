package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/daemon"
	"spad/pkg/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look for what could keep a knock from working here, each with its remedy",
		Description: "Reads and changes nothing, with and without a running daemon; as root it sees everything. Exit code 0: nothing is wrong;\n" +
			"1: a knock can fail, see the lines that begin with FAIL; 2: wrong usage or configuration. What only warns changes no exit code.\n" +
			"On the other side, on the device: knock doctor\n\n" +
			"Example:\n  spad doctor",
		Flags: []cli.Flag{jsonFlag()},
		Action: withArgs(func(c *cli.Context) error {
			p := pathsOf(c)
			cfg, err := config.Load(p.config)
			if err != nil {
				return errors.Join(err, printProblems(c, err))
			}
			patient := doctor.Patient{Config: cfg, StateDir: p.state, Filter: daemon.Filter(cfg)}
			patient.Held, patient.HeldErr = daemon.Held(p.state)
			patient.Daemon, patient.DaemonErr = running(c.Context, p.socket)
			findings := doctor.Examine(c.Context, patient)
			if err := c.Context.Err(); err != nil { // not all was looked at
				return err
			}
			return errors.Join(printFindings(c, findings), diagnosis(findings))
		}),
	}
}

// running asks the daemon how it is; nil if there is none.
func running(ctx context.Context, socket string) (*doctor.Daemon, error) {
	s, err := control.NewClient(socket).Status(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &doctor.Daemon{Listen: s.Listen, Firewall: s.Firewall, Started: s.Started, KnockClock: s.KnockClock}, nil
}

// examination is what doctor says as JSON.
type examination struct {
	OK       bool             `json:"ok"`
	Findings []doctor.Finding `json:"findings"`
	Problems []string         `json:"problems,omitempty"` // of the configuration: then nothing else was looked at
}

func printProblems(c *cli.Context, problem error) error {
	if !c.Bool("json") {
		return nil
	}
	return printJSON(c.App.Writer, examination{Findings: []doctor.Finding{}, Problems: strings.Split(problem.Error(), "\n")})
}

func printFindings(c *cli.Context, findings []doctor.Finding) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, examination{OK: doctor.Worst(findings) < doctor.Fail, Findings: findings})
	}
	for _, f := range findings {
		if err := printFinding(c.App.Writer, f); err != nil {
			return err
		}
	}
	return nil
}

func printFinding(w io.Writer, f doctor.Finding) error {
	_, err := fmt.Fprintf(w, "%-4s  %s: %s\n", f.Level, f.Check, f.What)
	if f.Remedy != "" && err == nil {
		_, err = fmt.Fprintf(w, "        %s\n", f.Remedy)
	}
	return err
}

// diagnosis is an error if a knock can fail.
func diagnosis(findings []doctor.Finding) error {
	n := 0
	for _, f := range findings {
		if f.Level == doctor.Fail {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d findings can keep a knock from working", n, len(findings))
}
