package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/keys"
	"spad/pkg/client"
	"spad/pkg/wire"
)

func enrollCommand() *cli.Command {
	return command(&cli.Command{
		Name:      "enroll",
		Usage:     "make the device's key, enrol it with an invite, and store the router",
		ArgsUsage: "INVITE|-",
		Description: `The invite is the line that spad invite prints; with - it is read from standard input,
so that no other user of this machine sees it. It may be taken again if the answer was lost.
Example:
  knock enroll - --name home`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "call the router `NAME` (default: its host)"},
		}, familyFlags()...),
		Action: enroll,
	})
}

func enroll(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usageErrorf("one invite is wanted, as in: knock enroll knock1:...; the line has no spaces")
	}
	if c.IsSet("name") && c.String("name") == "" {
		return usageErrorf("--name names nothing")
	}
	only, err := family(c)
	if err != nil {
		return err
	}
	v, err := readInvite(c)
	if err != nil {
		return err
	}
	cl, err := newClient(c)
	if err != nil {
		return err
	}
	if late := time.Since(time.UnixMilli(v.ExpiresMS)); late > 0 { // a hint: this clock may be the wrong one
		fmt.Fprintf(c.App.ErrWriter, "knock: by this device's clock the invite expired %s ago; trying it, for the router decides\n",
			short(late.Round(time.Second)))
	}
	r, out, err := cl.Enroll(c.Context, v, c.String("name"), only)
	if err != nil {
		return err
	}
	if err := out.Err(); err != nil {
		return notEnrolled(r, err)
	}
	fmt.Fprintf(c.App.Writer, "enrolled at %s (%s) as %s\n", r.Name, r.Addr, v.Device)
	if len(r.Services) > 0 {
		fmt.Fprintf(c.App.Writer, "services: %s; try: knock %s\n", strings.Join(r.Services, " "), r.Services[0])
	}
	return nil
}

// maxLine bounds what is read of standard input; the longest invite has about 12,000 characters.
const maxLine = 1 << 16

func readInvite(c *cli.Context) (keys.Invite, error) {
	text := c.Args().First()
	if text == "-" {
		line, err := bufio.NewReader(io.LimitReader(c.App.Reader, maxLine)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return keys.Invite{}, fmt.Errorf("reading the invite: %w", err)
		}
		text = line
	}
	v, err := keys.ParseInvite(text)
	if err != nil {
		return keys.Invite{}, usageErrorf("reading the invite: %w", err)
	}
	return v, nil
}

func notEnrolled(r client.Router, err error) error {
	var status *client.StatusError
	switch {
	case errors.Is(err, client.ErrNoAnswer):
		return fmt.Errorf("%w from %s%s: it is off or out of reach, a firewall on the way drops UDP, or the invite has expired, was used by "+
			"another device or withdrawn; try again, or ask for a new one (spad invite NAME)", client.ErrNoAnswer, r.Addr, tried(err))
	case errors.As(err, &status) && status.Status == wire.Busy:
		return fmt.Errorf("%w; take the same invite again in a moment", err)
	case errors.As(err, &status):
		return fmt.Errorf("%w; the router's log says why", err)
	}
	return fmt.Errorf("%w; check this device's network, and ask whether %s is the router's address", err, r.Addr)
}
