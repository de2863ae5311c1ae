package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"spad/pkg/config"
	"spad/pkg/daemon"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "the daemon, in the foreground",
		Description: "Logs go to stderr, as text or, with log = \"json\" in the configuration, as JSON. SIGHUP reloads the configuration.\n" +
			"SIGTERM stops the daemon: open doors stay open until their time, and what is shut stays shut; spad down takes it all away.\n" +
			"With --trial nobody is locked out by a mistake: unless spad confirm comes in time, also if the daemon is killed, nothing of\n" +
			"it stays in the firewall.\n\n" +
			"Example:\n  spad run --trial 2m",
		Flags: []cli.Flag{
			allowLockoutFlag("start"),
			trialFlag("take everything of spad's out of the firewall and end"),
		},
		Action: withArgs(runDaemon),
	}
}

func allowLockoutFlag(do string) cli.Flag {
	return &cli.BoolFlag{
		Name: "allow-lockout", DisableDefaultText: true,
		Usage: do + " even if the ssh session this is typed in would be shut out",
	}
}

func runDaemon(c *cli.Context) error {
	p := pathsOf(c)
	if err := notForRoot(p); err != nil {
		return err
	}
	cfg, err := config.Load(p.config)
	if err != nil {
		return err
	}
	trial, err := wholeSeconds(c, "trial")
	if err != nil {
		return err
	}
	logs := newLogs(c.App.ErrWriter, cfg.LogJSON)
	if cfg, err = daemon.Confirmed(p.state, cfg, slog.New(logs)); err != nil {
		return err
	}
	if err := checkFiles(cfg); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	return daemon.Run(ctx, daemon.Options{
		Config: cfg, StateDir: p.state, Socket: p.socket, Version: version, Log: slog.New(logs), LogFormat: logs.format,
		AllowLockout: c.Bool("allow-lockout"), Reload: hangups(ctx), Ready: shed,
		Trial: trial, Guard: p.guard,
	})
}

// hangups passes SIGHUP on as a wish to reload, until ctx is done. Wishes that come while one is waiting are one.
func hangups(ctx context.Context) <-chan struct{} {
	signals, wishes := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
			select {
			case wishes <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return wishes
}
