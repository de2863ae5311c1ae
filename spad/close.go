package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func closeCommand() *cli.Command {
	return &cli.Command{
		Name:  "close",
		Usage: "shut open doors: one by its id, a device's, a service's, or all",
		UsageText: "spad close ID\nspad close --device NAME\nspad close --service NAME\n" +
			"spad close --all",
		Description: "spad sessions shows the ids.\n\nExample:\n  spad close --device laptop",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "device", Usage: "shut every door of the device `NAME`"},
			&cli.StringFlag{Name: "service", Usage: "shut every door to the service `NAME`"},
			&cli.BoolFlag{Name: "all", Usage: "shut every door", DisableDefaultText: true},
			jsonFlag(), remoteFlag(),
		},
		Action: closeDoors,
	}
}

func closeDoors(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("unexpected argument %q; see: spad %s --help", c.Args().Get(1), title(c))
	}
	request := control.CloseRequest{ID: c.Args().First(), Device: c.String("device"), Service: c.String("service"), All: c.Bool("all")}
	client, err := clientOf(c)
	if err != nil {
		return err
	}
	closed, err := client.Close(c.Context, request)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printSessionsJSON(c, closed)
	}
	if len(closed) == 0 {
		_, err = fmt.Fprintln(c.App.Writer, "nothing was open")
		return err
	}
	for _, s := range closed {
		if _, err := fmt.Fprintf(c.App.Writer, "closed %s\n", door(s)); err != nil {
			return err
		}
	}
	return nil
}
