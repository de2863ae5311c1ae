package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/daemon"
	"spad/pkg/device"
)

// withDevices hands f the devices: by way of the daemon if it runs, else of the state itself, locked meanwhile.
func withDevices(c *cli.Context, f func(control.Devices) error) error {
	client, err := clientOf(c)
	if err != nil {
		return err
	}
	p := pathsOf(c)
	switch _, err := client.Status(c.Context); {
	case err == nil:
		return f(client)
	case !errors.Is(err, control.ErrNotRunning):
		return err
	}
	return as(p.owner(), func() error { return withState(p, f) })
}

// withState hands f the devices of the state.
func withState(p paths, f func(control.Devices) error) error {
	cfg, err := config.Load(p.config)
	if err != nil {
		return err
	}
	if _, err := routerKey(cfg); err != nil {
		return err
	}
	registry, err := daemon.OpenRegistry(cfg, p.state)
	if errors.Is(err, device.ErrLocked) {
		return fmt.Errorf("%w; no daemon listens at %s, if it has another socket name that with --socket", err, p.socket)
	}
	if err != nil {
		return err
	}
	return errors.Join(f(registry), registry.Close())
}

// grants lists what --allow may name here, for who left it out.
func grants(p paths) string {
	cfg, err := config.Load(p.config)
	if err != nil {
		return "the services are in " + p.config
	}
	return config.CheckAllow(cfg.Rules, nil).Error()
}
