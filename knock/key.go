package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func keyCommand() *cli.Command {
	return command(&cli.Command{
		Name:        "key",
		Usage:       "print the device's public key; make the key if there is none",
		Description: "Example, to enrol without an invite:\n  spad device add laptop --key $(knock key) --allow nas",
		Action:      key,
	})
}

func key(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("key takes no arguments; see: knock key --help")
	}
	cl, err := newClient(c)
	if err != nil {
		return err
	}
	k, made, err := cl.Device()
	if err != nil {
		return err
	}
	if made {
		fmt.Fprintf(c.App.ErrWriter, "knock: made a device key in %s\n", cl.Dir())
	}
	fmt.Fprintln(c.App.Writer, k.Public())
	return nil
}
