package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/control"
)

// rescueName is what the device of a rescue key is called unless it is named.
const rescueName = "rescue"

func deviceRescue() *cli.Command {
	return &cli.Command{
		Name:      "rescue",
		Usage:     "enrol a key that exists on paper only, for the day when every device is lost",
		UsageText: "spad device rescue [NAME] --allow SERVICES",
		Description: "Prints the key once, as rows to write down or print; on a terminal its QR code goes to stderr. It is stored nowhere.\n" +
			"Whoever has the paper is that device, until: spad device remove NAME. With it, knock rescue - SERVICE opens a door from any\n" +
			"machine that has knock. NAME is rescue unless given.\n\n" +
			"Example:\n  spad device rescue --allow ssh",
		Flags: []cli.Flag{
			allowFlag(),
			&cli.BoolFlag{Name: "no-qr", Usage: "draw no QR code", DisableDefaultText: true},
		},
		Action: rescue,
	}
}

func rescue(c *cli.Context) error {
	name := rescueName
	switch c.NArg() {
	case 0:
	case 1:
		name = c.Args().First()
	default:
		return usagef("unexpected argument %q; see: spad %s --help", c.Args().Get(1), title(c))
	}
	allow, err := allowed(c)
	if err != nil {
		return err
	}
	var v keys.Rescue
	create := func() (err error) { v, err = newRescue(pathsOf(c)); return err }
	if err := as(pathsOf(c).owner(), create); err != nil {
		return err
	}
	rows, err := v.Rows()
	if err != nil {
		return err
	}
	return withDevices(c, func(d control.Devices) error {
		if err := d.AddDevice(c.Context, control.Device{Name: name, Key: v.Device().Public().String(), Allow: allow}); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.App.Writer, strings.Join(rows, "\n")); err != nil {
			return fmt.Errorf("%w; the key is lost: spad device remove %s, and make another", err, name)
		}
		return explainRescue(c.App.ErrWriter, v, name, allow, !c.Bool("no-qr") && isTerminal(c.App.ErrWriter))
	})
}

// newRescue makes a key for this router, as its configuration says where to knock.
func newRescue(p paths) (v keys.Rescue, err error) {
	cfg, err := config.Load(p.config)
	if err != nil {
		return v, err
	}
	router, err := routerKey(cfg)
	if err != nil {
		return v, err
	}
	addr, err := cfg.InviteAddr()
	if err != nil {
		return v, usageError{err}
	}
	return keys.GenerateRescue(rand.Reader, router.Public(), addr)
}

func explainRescue(w io.Writer, v keys.Rescue, name string, allow []string, qr bool) error {
	if qr {
		if err := v.WriteQR(w); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "write the rows down, they are not shown again: rescue key %s of %s, may open %s\n"+
		"to use it, on any machine: knock rescue - SERVICE, and type them; case and hyphens do not matter\n", name, v.Addr, strings.Join(allow, ", "))
	return err
}
