package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"spad/pkg/client"
)

// version is set by the linker in a release: -ldflags "-X main.version=1.2.3".
var version string

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// kept are the names that are commands, now or in a later version, and so no services.
var kept = []string{
	"open", "close", "enroll", "list", "key", "forget", "rescue",
	"doctor", "install", "uninstall", "export", "import", "help", "h", "version",
}

func newApp(in io.Reader, out, err io.Writer) *cli.App {
	return &cli.App{
		Name:  "knock",
		Usage: "open doors of a router that spad guards",
		UsageText: `knock enroll INVITE            enrol this device, once
knock nas                      open the service nas
knock ssh --wait -- ssh home   open it, wait for its port, run a command`,
		Description: "Exit codes: 0 opened, 1 failed, 2 wrong usage or configuration, 3 no answer,\n" +
			"4 denied, 5 opened but the port does not answer.",
		Commands: []*cli.Command{
			openCommand(), closeCommand(), enrollCommand(), listCommand(), keyCommand(), forgetCommand(), doctorCommand(),
			rescueCommand(),
		},
		Flags:           []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}},
		HideHelpCommand: true,
		HideVersion:     true,
		Reader:          in,
		Writer:          out,
		ErrWriter:       err,
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageErrorf("%w", err) },
		ExitErrHandler:  func(*cli.Context, error) {}, // run has the only exit
	}
}

// run is the whole program; it returns the exit code.
func run(argv []string, in io.Reader, out, errs io.Writer) int {
	app := newApp(in, out, errs)
	err := runApp(app, argv)
	if text := message(err); text != "" {
		fmt.Fprintf(errs, "knock: %s\n", text)
	}
	return exitCode(err)
}

func runApp(app *cli.App, argv []string) error {
	l, err := arrange(app, argv)
	switch {
	case err != nil:
		return err
	case l.version:
		fmt.Fprintf(app.Writer, "knock %s\n", versionText())
		return nil
	case l.command == "" && !l.help: // like git: what can be done is news, not what was asked for
		app.Writer = app.ErrWriter
		if err := app.Run([]string{app.Name, "--help"}); err != nil {
			return err
		}
		return exitError(2)
	}
	return app.Run(append([]string{app.Name}, l.argv()...))
}

// command fills in what all commands have in common.
func command(c *cli.Command) *cli.Command {
	c.Flags = append(c.Flags, &cli.StringFlag{Name: "config", Usage: "folder `DIR` of config.toml and the device key (default: ~/.config/knock)"})
	c.HideHelpCommand = true
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageErrorf("%w", err) }
	return c
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON", DisableDefaultText: true}
}

func familyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "4", Usage: "over IPv4 only", DisableDefaultText: true},
		&cli.BoolFlag{Name: "6", Usage: "over IPv6 only", DisableDefaultText: true},
	}
}

func family(c *cli.Context) (client.Family, error) {
	switch {
	case c.Bool("4") && c.Bool("6"):
		return client.Both, usageErrorf("-4 and -6 exclude each other; without either, knock uses both")
	case c.Bool("4"):
		return client.IPv4, nil
	case c.Bool("6"):
		return client.IPv6, nil
	}
	return client.Both, nil
}

func newClient(c *cli.Context) (*client.Client, error) {
	if c.IsSet("config") && c.String("config") == "" {
		return nil, usageErrorf("--config names no folder")
	}
	return client.New(client.Options{Dir: c.String("config")})
}
