package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func confirmCommand() *cli.Command {
	return &cli.Command{
		Name:  "confirm",
		Usage: "keep what is on trial: spad run --trial or spad reload --trial",
		Description: "Say it from a new connection: that shows that you can still come in.\n\n" +
			"Example:\n  ssh router spad confirm",
		Action: withArgs(func(c *cli.Context) error {
			if err := control.NewClient(pathsOf(c).socket).Confirm(c.Context); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.App.Writer, "confirmed")
			return err
		}),
	}
}

func trialFlag(otherwise string) cli.Flag {
	return &cli.DurationFlag{
		Name: "trial", DefaultText: "no trial",
		Usage: "`TIME`, such as 2m, in which to say spad confirm; else " + otherwise,
	}
}
