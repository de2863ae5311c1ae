package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func deviceCommand() *cli.Command {
	return &cli.Command{
		Name:      "device",
		Usage:     "list, add, remove and show devices, make a rescue key",
		UsageText: "spad device COMMAND [options] [arguments]",
		Description: "Devices enrolled by an invite or added here live in the state; those of the configuration file are listed too.\n\n" +
			"Example:\n  spad device list",
		Subcommands: []*cli.Command{deviceList(), deviceAdd(), deviceRemove(), deviceShow(), deviceRescue()},
	}
}

func deviceList() *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "list the devices",
		Description: "Example:\n  spad device list --json",
		Flags:       []cli.Flag{jsonFlag(), remoteFlag()},
		Action: withArgs(func(c *cli.Context) error {
			return withDevices(c, func(d control.Devices) error {
				all, err := d.Devices(c.Context)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return printJSON(c.App.Writer, append([]control.Device{}, all...))
				}
				now := time.Now()
				rows := [][]string{{"NAME", "MAY OPEN", "ENROLLED", "STATUS", "FROM"}}
				for _, d := range all {
					rows = append(rows, []string{d.Name, strings.Join(d.Allow, ","), orWhen(d.Enrolled, now, "-"), condition(d, now), d.Origin})
				}
				return printTable(c.App.Writer, rows)
			})
		}),
	}
}

func deviceAdd() *cli.Command {
	return &cli.Command{
		Name:        "add",
		Usage:       "enrol a device whose key was carried by hand",
		ArgsUsage:   "NAME",
		Description: "knock key prints a device's key.\n\nExample:\n  spad device add phone --key knock-device:… --allow nas,group:family",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Usage: "the device's public `KEY`, knock-device:…"},
			allowFlag(), remoteFlag(),
		},
		Action: withArgs(func(c *cli.Context) error {
			if c.String("key") == "" {
				return usagef("%s needs --key: on the device, knock key prints it", title(c))
			}
			allow, err := allowed(c)
			if err != nil {
				return err
			}
			return withDevices(c, func(d control.Devices) error {
				name := c.Args().First()
				if err := d.AddDevice(c.Context, control.Device{Name: name, Key: c.String("key"), Allow: allow}); err != nil {
					return err
				}
				_, err := fmt.Fprintf(c.App.Writer, "added %s, which may open %s\n", name, strings.Join(allow, ", "))
				return err
			})
		}),
	}
}

func deviceRemove() *cli.Command {
	return &cli.Command{
		Name:      "remove",
		Usage:     "forget a device and shut its doors at once",
		ArgsUsage: "NAME",
		Description: "With the daemon running its doors shut at once; otherwise they stay until their time, or until the daemon starts.\n\n" +
			"Example:\n  spad device remove laptop",
		Flags: []cli.Flag{remoteFlag()},
		Action: withArgs(func(c *cli.Context) error {
			return withDevices(c, func(d control.Devices) error {
				gone, err := d.RemoveDevice(c.Context, c.Args().First())
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.App.Writer, "removed %s\n", gone.Name)
				return err
			})
		}),
	}
}

func deviceShow() *cli.Command {
	return &cli.Command{
		Name:        "show",
		Usage:       "show one device",
		ArgsUsage:   "NAME",
		Description: "Example:\n  spad device show laptop",
		Flags:       []cli.Flag{jsonFlag(), remoteFlag()},
		Action: withArgs(func(c *cli.Context) error {
			return withDevices(c, func(d control.Devices) error {
				one, err := find(c, d)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return printJSON(c.App.Writer, one)
				}
				now := time.Now()
				return printTable(c.App.Writer, [][]string{
					{"name", one.Name},
					{"key", one.Key},
					{"may open", strings.Join(one.Allow, ", ")},
					{"from", one.Origin},
					{"enrolled", orWhen(one.Enrolled, now, "-")},
					{"expires", orWhen(one.Expires, now, "never")},
					{"status", condition(one, now)},
					{"delegate", yesNo(one.Delegate)},
				})
			})
		}),
	}
}

func find(c *cli.Context, d control.Devices) (control.Device, error) {
	all, err := d.Devices(c.Context)
	if err != nil {
		return control.Device{}, err
	}
	name := c.Args().First()
	if i := slices.IndexFunc(all, func(d control.Device) bool { return d.Name == name }); i >= 0 {
		return all[i], nil
	}
	return control.Device{}, control.Unknown(fmt.Sprintf("no device is called %q; spad device list shows them", name))
}

// condition says in one word whether a device can knock.
func condition(d control.Device, now time.Time) string {
	switch {
	case d.Disabled:
		return "disabled"
	case d.Expires != nil && !d.Expires.After(now):
		return "expired"
	}
	return "enabled"
}

func orWhen(t *time.Time, now time.Time, none string) string {
	if t == nil {
		return none
	}
	return when(*t, now)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
