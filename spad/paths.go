package main

import (
	"os"

	"github.com/urfave/cli/v2"
)

// defaultConfig is where the configuration is unless --config says otherwise.
const defaultConfig = "/etc/spad/spad.toml"

// paths are where a command finds things. Every command takes all three, used or not, so that one set of options fits all.
type paths struct {
	config, state, socket string
}

func pathsOf(c *cli.Context) paths {
	return paths{config: c.String("config"), state: c.String("state"), socket: c.String("socket")}
}

// pathFlags makes the options anew at each call: cli keeps what was parsed in them.
func pathFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Value: defaultConfig, Usage: "configuration `FILE`"},
		&cli.StringFlag{Name: "state", Value: defaultState(), Usage: "`DIR` of devices, invites, replay journal and sessions"},
		&cli.StringFlag{Name: "socket", Value: defaultSocket(), Usage: "control socket `FILE` of the running daemon"},
	}
}

// defaultState is not in /var on OpenWrt, where that is a RAM disk: a lost journal would make every device knock twice.
func defaultState() string {
	if onOpenWrt() {
		return "/etc/spad/state"
	}
	return "/var/lib/spad"
}

// defaultSocket is in the RAM disk on OpenWrt too, where /run may be missing.
func defaultSocket() string {
	if onOpenWrt() {
		return "/var/run/spad/spad.sock"
	}
	return "/run/spad/spad.sock"
}

func onOpenWrt() bool {
	_, err := os.Stat("/etc/openwrt_release")
	return err == nil
}
