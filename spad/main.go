// Command spad is the router daemon and its operator's command line.
//
// Every command has a file of its own; this one puts them together and decides how a failure ends: one line on stderr for each thing
// that is wrong, exit code 1 for what failed and 2 for wrong usage or configuration.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is the tag this was built from; the Makefile sets it.
var version = "unknown"

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run executes one command line and returns its exit code. The commands' context ends with SIGINT and SIGTERM.
func run(args []string, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // whoever does not want to wait for an orderly end sends a second one
	app := newApp(out, errs)
	ordered, err := reorder(app, args)
	if err == nil {
		err = app.RunContext(ctx, ordered)
	}
	if err == nil {
		return 0
	}
	for text := range strings.Lines(strings.TrimSpace(err.Error())) {
		fmt.Fprintln(errs, "spad: "+strings.TrimRight(text, "\r\n"))
	}
	return exitCode(err)
}

func newApp(out, errs io.Writer) *cli.App {
	cli.SuggestDidYouMeanTemplate = "did you mean %q?"
	app := &cli.App{
		Name:            "spad",
		UsageText:       "spad COMMAND [options] [arguments]",
		Usage:           "keeps a router's ports shut and opens them to devices that knock",
		Version:         version,
		Writer:          out,
		ErrWriter:       errs,
		HideHelpCommand: true, // reorder turns "help COMMAND" into "COMMAND --help"
		ExitErrHandler:  func(*cli.Context, error) {},
		Description: "Start with: spad init --hostname home.example.net\n" +
			"Help for one command: spad COMMAND --help",
		Commands: []*cli.Command{
			initCommand(), keyCommand(), checkCommand(), runCommand(), reloadCommand(), confirmCommand(), inviteCommand(), deviceCommand(),
			statusCommand(), sessionsCommand(), openCommand(), closeCommand(), watchCommand(), whyCommand(), remoteCommand(),
			downCommand(), doctorCommand(), guardCommand(),
		},
		Flags: pathFlags(),
	}
	finish(app.Commands)
	return app
}

// finish gives every command what all have in common: the three paths, and errors without help text around them.
func finish(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = func(c *cli.Context, err error, _ bool) error { return wrongOption(c, err) }
		if len(c.Subcommands) == 0 {
			c.Flags = append(c.Flags, pathFlags()...)
		}
		finish(c.Subcommands)
	}
}

// wrongOption words what package flag says about an option's value as the rest of the program words things.
func wrongOption(c *cli.Context, err error) error {
	text := strings.Replace(err.Error(), "for flag -", "for --", 1)
	return usagef("%s; see: spad %s --help", strings.TrimSuffix(text, ": parse error"), title(c))
}
