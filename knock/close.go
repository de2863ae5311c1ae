package main

import (
	"github.com/urfave/cli/v2"

	"spad/pkg/client"
	"spad/pkg/wire"
)

func closeCommand() *cli.Command {
	return command(&cli.Command{
		Name:        "close",
		Usage:       "close services that this device opened, in both address families",
		ArgsUsage:   "SERVICE...",
		Description: "Example:\n  knock close nas",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "router", Usage: "knock at `ROUTER`, by name or host; needed if several have the service"},
			&cli.BoolFlag{Name: "no-answer", Usage: "send, and do not ask whether it worked", DisableDefaultText: true},
			&cli.BoolFlag{Name: "no-address", Usage: "do not declare this device's own address: for networks that translate it", DisableDefaultText: true},
			jsonFlag(),
		}, familyFlags()...),
		Action: closeServices,
	})
}

func closeServices(c *cli.Context) error {
	names, _, dashes, err := services(c)
	if err != nil {
		return err
	}
	if dashes {
		return usageErrorf("nothing may follow -- here; see: knock close --help")
	}
	only, err := family(c)
	if err != nil {
		return err
	}
	cl, err := newClient(c)
	if err != nil {
		return err
	}
	p := plan{names, c.String("router"), client.Request{
		Op: wire.OpClose, Only: only, NoAnswer: c.Bool("no-answer"), NoAddress: c.Bool("no-address"),
	}}
	k, err := newKnocker(c, cl, p)
	if err != nil {
		return err
	}
	return k.all(c.Context).worst()
}
