package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"spad/pkg/config"
)

func keyCommand() *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "print the router's public key",
		Description: "Devices need it to knock; an invite carries it. The secret key stays in its file.\n\n" +
			"Example:\n  spad key",
		Action: withArgs(asOwner(func(c *cli.Context) error {
			cfg, err := config.Load(pathsOf(c).config)
			if err != nil {
				return err
			}
			secret, err := routerKey(cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, secret.Public())
			return err
		})),
	}
}
