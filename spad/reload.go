package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func reloadCommand() *cli.Command {
	return &cli.Command{
		Name:  "reload",
		Usage: "take a changed configuration over, or keep the old one and say why",
		Description: "The daemon reads the file that it was started with. Either all of it takes effect or nothing; doors that stay\n" +
			"allowed stay open. SIGHUP does the same.\n\n" +
			"Example:\n  spad reload",
		Action: withArgs(func(c *cli.Context) error {
			if err := control.NewClient(pathsOf(c).socket).Reload(c.Context); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.App.Writer, "reloaded")
			return err
		}),
	}
}
