package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/keys"
	"spad/pkg/control"
	"spad/pkg/remote"
)

func remoteCommand() *cli.Command {
	return &cli.Command{
		Name:      "remote",
		Usage:     "let other machines control this router, or join one",
		UsageText: "spad remote COMMAND [options] [arguments]",
		Description: "The router listens for them where remote in its configuration says. Both sides know each other by their keys alone.\n\n" +
			"Example:\n  spad remote add web --allow nas --name-addresses",
		Subcommands: []*cli.Command{remoteAdd(), remoteList(), remoteRemove(), remoteJoin()},
	}
}

// remoteFlag lets a command that talks to the daemon talk to one elsewhere.
func remoteFlag() cli.Flag {
	return &cli.StringFlag{Name: "remote", Usage: "talk to the router that was joined as `NAME`, or whose file this is"}
}

// clientOf gives the way to the daemon: its socket, or the router that --remote names.
func clientOf(c *cli.Context) (*control.Client, error) {
	name := c.String("remote")
	if name == "" {
		return control.NewClient(pathsOf(c).socket), nil
	}
	path, err := remote.RouterFile(name)
	if err != nil {
		return nil, usageError{err}
	}
	router, err := remote.ReadRouter(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("no router was joined as %q (%s); join it with: spad remote join LINE", name, path)
	}
	if err != nil {
		return nil, err
	}
	return control.NewRemoteClient(router)
}

func remoteAdd() *cli.Command {
	return &cli.Command{
		Name:      "add",
		Usage:     "make the line with which one machine joins, once",
		ArgsUsage: "NAME",
		Description: "The line goes to stdout; carry it over a way you trust. What the machine may do is settled here: it sees the doors of the\n" +
			"services that --allow names, and opens and shuts them, for the address that it connects from.\n\n" +
			"Example:\n  spad remote add web --allow nas,group:family --name-addresses\n  ssh router spad remote add desk --allow ssh | spad remote join -",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "allow", Usage: "`SERVICES` that it is about, separated by commas; group:NAME for a group"},
			&cli.BoolFlag{Name: "read-only", Usage: "it may look, and change nothing", DisableDefaultText: true},
			&cli.BoolFlag{Name: "name-addresses", Usage: "it may say which address a door is for, and where a knock was seen", DisableDefaultText: true},
			&cli.BoolFlag{Name: "manage", Usage: "it may invite, add and remove devices that have no other rights than --allow", DisableDefaultText: true},
			&cli.StringFlag{Name: "address", DefaultText: "that of the configuration", Usage: "`HOST` or HOST:PORT that it connects to"},
			&cli.DurationFlag{Name: "expires", DefaultText: "15m", Usage: "`TIME` until the line dies, such as 15m or 24h"},
			jsonFlag(),
		},
		Action: withArgs(func(c *cli.Context) error {
			allow, err := allowed(c)
			if err != nil {
				return err
			}
			ttl, err := wholeSeconds(c, "expires")
			if err != nil {
				return err
			}
			l, err := control.NewClient(pathsOf(c).socket).AddRemote(c.Context, control.RemoteRequest{
				Name: c.Args().First(), Allow: allow, ReadOnly: c.Bool("read-only"), NameAddresses: c.Bool("name-addresses"),
				Manage: c.Bool("manage"), Addr: c.String("address"), TTL: ttl,
			})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, l)
			}
			if _, err := fmt.Fprintln(c.App.Writer, l.Line); err != nil || !isTerminal(c.App.ErrWriter) {
				return err
			}
			_, err = fmt.Fprintf(c.App.ErrWriter, "on the other machine, %s at the latest, run: spad remote join LINE\n", when(l.Expires, time.Now()))
			return err
		}),
	}
}

func remoteList() *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "list the machines that may control this router",
		Description: "Example:\n  spad remote list",
		Flags:       []cli.Flag{jsonFlag()},
		Action: withArgs(func(c *cli.Context) error {
			all, err := control.NewClient(pathsOf(c).socket).Remotes(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, append([]control.Remote{}, all...))
			}
			now := time.Now()
			rows := [][]string{{"NAME", "SERVICES", "RIGHTS", "ADDED", "STATUS"}}
			for _, r := range all {
				status := "joined"
				if r.Expires != nil {
					status = "line dies " + when(*r.Expires, now)
				}
				rows = append(rows, []string{r.Name, strings.Join(r.Allow, ","), rightsOf(r), when(r.Added, now), status})
			}
			return printTable(c.App.Writer, rows)
		}),
	}
}

// rightsOf words what a remote may do, as the options of spad remote add do.
func rightsOf(r control.Remote) string {
	words := []string{"open"}
	if r.ReadOnly {
		words[0] = "read-only"
	}
	if r.NameAddresses {
		words = append(words, "name-addresses")
	}
	if r.Manage {
		words = append(words, "manage")
	}
	return strings.Join(words, ",")
}

func remoteRemove() *cli.Command {
	return &cli.Command{
		Name:        "remove",
		Usage:       "refuse a machine from now on, and shut the doors that it opened",
		ArgsUsage:   "NAME",
		Description: "Example:\n  spad remote remove web",
		Action: withArgs(func(c *cli.Context) error {
			gone, err := control.NewClient(pathsOf(c).socket).RemoveRemote(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			if gone.Manage {
				fmt.Fprintf(c.App.ErrWriter, "spad: %s could manage devices: see spad device list for any that it added, which go on\n", gone.Name)
			}
			_, err = fmt.Fprintf(c.App.Writer, "removed %s\n", gone.Name)
			return err
		}),
	}
}

func remoteJoin() *cli.Command {
	return &cli.Command{
		Name:      "join",
		Usage:     "on another machine: make a key, and have the router take it",
		ArgsUsage: "LINE",
		Description: "The key stays in a file of this user's, in PEM, which other programs can use as well. LINE may be - for standard input.\n" +
			"Afterwards commands take --remote NAME.\n\n" +
			"Example:\n  spad remote join spad-remote1:…\n  spad status --remote router",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "as", Value: "router", Usage: "`NAME` for the router, or a path with a / in it"},
		},
		Action: withArgs(join),
	}
}

func join(c *cli.Context) error {
	text, err := lineOf(c)
	if err != nil {
		return err
	}
	line, err := keys.ParseRemoteLine(text)
	if err != nil {
		return usageError{err}
	}
	path, err := remote.RouterFile(c.String("as"))
	if err != nil {
		return usageError{err}
	}
	router, err := remote.Prepare(path, line)
	if err != nil {
		return err
	}
	name, err := control.Join(c.Context, router, line.Token)
	if err != nil {
		return fmt.Errorf("joining the router at %s: %w", line.Addr, err)
	}
	router.Joined = true
	if err := router.Write(path); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "joined the router at %s, which calls this machine %s\ntry: spad status --remote %s\n", line.Addr, name, c.String("as"))
	return err
}

// lineOf gives the line, so that it need not be seen by who lists processes.
func lineOf(c *cli.Context) (string, error) {
	if c.Args().First() != "-" {
		return c.Args().First(), nil
	}
	text, err := io.ReadAll(io.LimitReader(c.App.Reader, 4096))
	if err != nil {
		return "", fmt.Errorf("reading the line from standard input: %w", err)
	}
	return string(text), nil
}
