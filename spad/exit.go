package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/daemon"
)

// Exit codes besides 0.
const (
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration
)

// usageError is a command line, or a key file, that can't be worked with.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode tells wrong usage and configuration from what merely failed.
func exitCode(err error) int {
	var (
		usage  usageError
		remote *control.UsageError
		bad    *config.Problems
	)
	if errors.As(err, &usage) || errors.As(err, &remote) || errors.As(err, &bad) {
		return exitUsage
	}
	return exitFailed
}

// routerKey reads the key that a configuration names. What is wrong with it is wrong with the configuration.
func routerKey(cfg *config.Config) (keys.RouterSecret, error) {
	secret, err := keys.ReadRouterFile(cfg.KeyFile)
	if err != nil {
		return secret, usageError{err}
	}
	return secret, nil
}

// checkFiles looks at all files that a configuration names.
func checkFiles(cfg *config.Config) error {
	_, err := routerKey(cfg)
	if sinks := daemon.CheckSinks(cfg); sinks != nil {
		err = errors.Join(err, usageError{sinks})
	}
	return err
}

// withArgs lets a command run only with as many arguments as its help names.
func withArgs(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		want := strings.Fields(c.Command.ArgsUsage)
		switch n := c.NArg(); {
		case n < len(want):
			return usagef("%s needs %s; see: spad %s --help", title(c), want[n], title(c))
		case n > len(want):
			return usagef("unexpected argument %q; see: spad %s --help", c.Args().Get(len(want)), title(c))
		}
		return action(c)
	}
}

// title is a command's words: "device add".
func title(c *cli.Context) string { return strings.TrimPrefix(c.Command.HelpName, c.App.Name+" ") }
