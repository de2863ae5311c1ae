package main

import (
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func openCommand() *cli.Command {
	return &cli.Command{
		Name:      "open",
		Usage:     "open a service for an address, as a knock would",
		ArgsUsage: "SERVICE",
		Description: "Without --ttl it stays open for as long as the configuration says. Through a --remote it opens, without --from, for this machine.\n\n" +
			"Example:\n  spad open nas --from 198.51.100.7 --ttl 30m",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "`ADDRESS` to open for, IPv4 or IPv6"},
			&cli.DurationFlag{Name: "ttl", DefaultText: "the service's own", Usage: "`TIME` that it stays open, such as 30m"},
			jsonFlag(), remoteFlag(),
		},
		Action: withArgs(openDoor),
	}
}

func openDoor(c *cli.Context) error {
	from, err := fromOf(c)
	if err != nil {
		return err
	}
	ttl, err := wholeSeconds(c, "ttl")
	if err != nil {
		return err
	}
	request := control.OpenRequest{Service: c.Args().First(), From: from, TTL: ttl}
	client, err := clientOf(c)
	if err != nil {
		return err
	}
	s, err := client.Open(c.Context, request)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, s)
	}
	_, err = fmt.Fprintf(c.App.Writer, "opened %s, shuts %s; session %s\n", door(s), left(s), s.ID)
	return err
}

// fromOf gives the address to open for. Through a remote there need be none.
func fromOf(c *cli.Context) (netip.Addr, error) {
	text := c.String("from")
	if text == "" && c.String("remote") != "" {
		return netip.Addr{}, nil
	}
	if text == "" {
		return netip.Addr{}, usagef("%s needs --from: the address to open for, such as 198.51.100.7", title(c))
	}
	from, err := netip.ParseAddr(text)
	if err != nil {
		return from, usagef("--from %q is no address; write one such as 198.51.100.7 or 2001:db8::7", text)
	}
	return from, nil
}
