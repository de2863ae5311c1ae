package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func forgetCommand() *cli.Command {
	return command(&cli.Command{
		Name:        "forget",
		Usage:       "take a router out of the configuration",
		ArgsUsage:   "ROUTER",
		Description: "Example:\n  knock forget home",
		Action:      forget,
	})
}

func forget(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usageErrorf("one router is wanted, as in: knock forget home; they are listed by: knock list")
	}
	cl, err := newClient(c)
	if err != nil {
		return err
	}
	r, err := cl.Forget(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s is forgotten here; it still knows this device until there: spad device remove NAME\n", r.Name)
	return nil
}
