package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"spad/keys"
	"spad/pkg/control"
)

func inviteCommand() *cli.Command {
	return &cli.Command{
		Name:      "invite",
		Usage:     "make the line with which one new device enrols itself",
		ArgsUsage: "NAME",
		Description: "The line goes to stdout; on a terminal its QR code goes to stderr. Whoever has the line first can enrol with it, once:\n" +
			"carry it over a way you trust. A new invite for the same name replaces the one before. group:NAME allows a group.\n\n" +
			"Example:\n  spad invite laptop --allow ssh,nas\n  ssh router spad invite laptop --allow nas | knock enroll -",
		Flags: []cli.Flag{
			allowFlag(),
			&cli.DurationFlag{Name: "expires", DefaultText: "15m", Usage: "`TIME` until the invite dies, such as 15m or 24h"},
			&cli.BoolFlag{Name: "no-qr", Usage: "draw no QR code", DisableDefaultText: true},
			jsonFlag(), remoteFlag(),
		},
		Action: withArgs(invite),
	}
}

func allowFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "allow", Usage: "`SERVICES` the device may open, separated by commas; group:NAME for a group"}
}

// allowed gives what --allow names. Left out it is an error that says what there is.
func allowed(c *cli.Context) ([]string, error) {
	allow := c.StringSlice("allow")
	if len(allow) == 0 {
		return nil, usagef("%s needs --allow: %s", title(c), grants(pathsOf(c)))
	}
	return allow, nil
}

func invite(c *cli.Context) error {
	allow, err := allowed(c)
	if err != nil {
		return err
	}
	ttl, err := wholeSeconds(c, "expires")
	if err != nil {
		return err
	}
	return withDevices(c, func(d control.Devices) error {
		i, err := d.Invite(c.Context, control.InviteRequest{Name: c.Args().First(), Allow: allow, TTL: ttl})
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return printJSON(c.App.Writer, i)
		}
		if _, err := fmt.Fprintln(c.App.Writer, i.Line); err != nil {
			return err
		}
		if !isTerminal(c.App.ErrWriter) {
			return nil
		}
		return explainInvite(c.App.ErrWriter, i, !c.Bool("no-qr"))
	})
}

// explainInvite tells a person at a terminal what to do with an invite.
func explainInvite(w io.Writer, i control.Invite, qr bool) error {
	if qr {
		parsed, err := keys.ParseInvite(i.Line)
		if err != nil {
			return err
		}
		if err := parsed.WriteQR(w); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "on %s, %s at the latest, run: knock enroll LINE\n", i.Name, when(i.Expires, time.Now()))
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// wholeSeconds gives a duration option that can be told to a daemon and a packet.
func wholeSeconds(c *cli.Context, name string) (time.Duration, error) {
	d := c.Duration(name)
	if c.IsSet(name) && (d < time.Second || d%time.Second != 0) {
		return 0, usagef("--%s %v is not possible: write whole seconds or more, such as 90s or 15m", name, d)
	}
	return d, nil
}
