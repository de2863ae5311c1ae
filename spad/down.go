package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/daemon"
	"spad/pkg/device"
)

// The state is looked at this often until it is free: for long if a daemon was told to stop, which may wait for a slow
// firewall, else only for as long as another command may have it.
const (
	downEvery = 50 * time.Millisecond
	stopWait  = 30 * time.Second
	lockWait  = time.Second
)

func downCommand() *cli.Command {
	return &cli.Command{
		Name:  "down",
		Usage: "remove everything of spad's from the firewall",
		Description: "Stops a running daemon first. Afterwards no port is hidden by spad and no door is open by it; devices and the replay\n" +
			"journal are kept, so that spad run goes on where it was.\n\n" +
			"Example:\n  spad down",
		Action: withArgs(down),
	}
}

func down(c *cli.Context) error {
	p := pathsOf(c)
	wait, err := stopDaemon(c.Context, p.socket)
	if err != nil {
		return err
	}
	release, err := holdState(c.Context, p, wait)
	if err != nil {
		return err
	}
	defer release()
	cfg, _ := config.Load(p.config) // a broken configuration must not keep anybody from clearing the firewall
	if err := daemon.Down(p.state, cfg); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, "spad is down: nothing of it is left in the firewall")
	return err
}

// stopDaemon asks the daemon to stop, if there is one, and returns how long to wait for the state.
func stopDaemon(ctx context.Context, socket string) (time.Duration, error) {
	err := control.NewClient(socket).Stop(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return lockWait, nil
	}
	return stopWait, err
}

// holdState waits until nobody has the state, and keeps it until release: no daemon starts while the firewall is cleared.
// A state that is missing or damaged must not keep anybody from clearing it.
func holdState(ctx context.Context, p paths, wait time.Duration) (release func(), err error) {
	if _, err := os.Stat(p.state); err != nil {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(downEvery)
	defer tick.Stop()
	for {
		var store *device.Store
		err := as(ownerOf(p.state), func() (err error) {
			store, err = device.Open(p.state, nil)
			return err
		})
		if err == nil {
			return func() { store.Close() }, nil
		}
		if !errors.Is(err, device.ErrLocked) {
			return func() {}, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: a spad that does not answer at %s still has it; end that one, or name its socket with --socket", err, p.socket)
		}
	}
}
