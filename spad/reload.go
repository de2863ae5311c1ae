package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
	"spad/pkg/daemon"
)

func reloadCommand() *cli.Command {
	return &cli.Command{
		Name:  "reload",
		Usage: "take a changed configuration over, or keep the old one and say why",
		Description: "The daemon reads the file that it was started with. Either all of it takes effect or nothing; doors that stay\n" +
			"allowed stay open. Refused is what would shut out the ssh session this is typed in. SIGHUP does the same, without\n" +
			"that check.\n\n" +
			"Example:\n  spad reload",
		Flags: []cli.Flag{allowLockoutFlag("reload")},
		Action: withArgs(func(c *cli.Context) error {
			request := control.ReloadRequest{SSH: daemon.SSHConnection(), AllowLockout: c.Bool("allow-lockout")}
			if err := control.NewClient(pathsOf(c).socket).Reload(c.Context, request); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.App.Writer, "reloaded")
			return err
		}),
	}
}
