package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"spad/pkg/config"
	"spad/pkg/daemon"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "validate the configuration and the files it names, list every problem",
		Description: "Needs neither the state nor the kernel, and changes nothing. All problems go to stderr, one per line. So does, as no\n" +
			"problem, that the ssh session it is typed in would be shut out by a spad that a service manager starts.\n\n" +
			"Example:\n  spad check && spad reload",
		Flags:  []cli.Flag{jsonFlag()},
		Action: withArgs(check),
	}
}

func check(c *cli.Context) error {
	p := pathsOf(c)
	var cfg *config.Config
	err := as(p.owner(), func() (err error) {
		if cfg, err = config.Load(p.config); err == nil {
			err = checkFiles(cfg)
		}
		return err
	})
	if err == nil {
		if danger := daemon.Lockout(cfg); danger != nil {
			fmt.Fprintf(c.App.ErrWriter, "spad: no error, but what a service manager starts would not notice it: %v\n", danger)
		}
	}
	return report(c, cfg, err)
}

// verdict is what check says as JSON.
type verdict struct {
	OK       bool     `json:"ok"`
	Services int      `json:"services"`
	Devices  int      `json:"devices"`
	Problems []string `json:"problems"`
}

func report(c *cli.Context, cfg *config.Config, problem error) error {
	v := verdict{OK: problem == nil, Problems: []string{}}
	if cfg != nil {
		v.Services, v.Devices = len(cfg.Doors), len(cfg.Devices)
	}
	if problem != nil {
		v.Problems = strings.Split(problem.Error(), "\n")
	}
	var err error
	switch {
	case c.Bool("json"):
		err = printJSON(c.App.Writer, v)
	case v.OK:
		_, err = fmt.Fprintf(c.App.Writer, "ok: %d services, %d devices\n", v.Services, v.Devices)
	}
	return errors.Join(problem, err)
}
