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
			"that check.\n" +
			"With --trial the old configuration, with its doors, comes back unless spad confirm is said in time. The file stays as you\n" +
			"left it; until it is changed, confirmed or reloaded, a start of spad uses the old one as well.\n\n" +
			"Example:\n  spad reload --trial 2m && spad confirm",
		Flags: []cli.Flag{allowLockoutFlag("reload"), trialFlag("go back to the old configuration")},
		Action: withArgs(func(c *cli.Context) error {
			trial, err := wholeSeconds(c, "trial")
			if err != nil {
				return err
			}
			request := control.ReloadRequest{SSH: daemon.SSHConnection(), AllowLockout: c.Bool("allow-lockout"), Trial: trial}
			if err := control.NewClient(pathsOf(c).socket).Reload(c.Context, request); err != nil {
				return err
			}
			text := "reloaded"
			if trial > 0 {
				text = fmt.Sprintf("reloaded on trial: the old configuration comes back in %s, unless you say: spad confirm", span(trial))
			}
			_, err = fmt.Fprintln(c.App.Writer, text)
			return err
		}),
	}
}
