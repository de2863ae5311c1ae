package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/device"
	"spad/pkg/replay"
)

// key is whether the router's key can be used.
func key(_ context.Context, c *chart) {
	switch _, err := keys.ReadRouterFile(c.Config.KeyFile); {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		c.untold("key", "the router's key", err)
	case err != nil:
		what, remedy := apart(err)
		c.say("key", Fail, remedy, "the router's key can't be used: %s", what)
	default:
		c.ok("key", "%s is readable by its owner alone", c.Config.KeyFile)
	}
}

// The least that must be free where the state is: a journal may grow by a quarter of a MiB before it is written anew.
const (
	leastBytes = 1 << 20
	leastFiles = 16
)

// state is whether what must last can be written: a knock that can't be noted opens nothing.
func state(_ context.Context, c *chart) {
	dir := c.StateDir
	for _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir); _, err = os.Stat(dir) {
		dir = filepath.Dir(dir) // where it will be made
	}
	if err := c.Disk.Writable(dir); errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		c.untold("state", c.StateDir, err)
		return
	} else if err != nil {
		c.say("state", Fail, "let spad's user write there, or mount the disk for writing: a knock that can't be noted down opens nothing",
			"%s can't be written: %v", dir, err)
		return
	}
	bytes, files, err := c.Disk.Space(dir)
	switch {
	case err != nil:
		c.untold("state", "the disk of "+dir, err)
	case bytes < leastBytes || files < leastFiles:
		c.say("state", Fail, "make room: a knock that can't be noted down opens nothing",
			"the disk of %s is full: %d KiB and %d files are left", dir, bytes>>10, files)
	case dir != c.StateDir:
		c.ok("state", "%s is not there yet; spad run makes it", c.StateDir)
	default:
		c.ok("state", "%s can be written, %d MiB are free", dir, bytes>>20)
	}
}

// journal is whether the memory of used packets is whole.
func journal(_ context.Context, c *chart) {
	path := filepath.Join(c.StateDir, "journal")
	found, err := replay.Inspect(path)
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		c.untold("journal", path, err)
	case err != nil:
		what, remedy := apart(err)
		c.say("journal", Fail, remedy, "spad does not start: %s", what)
	case found.Missing:
		c.ok("journal", "there is none yet")
	case found.Damage != "" && c.Daemon != nil:
		c.say("journal", Warn, "look again: it may have been written just then; spad writes it anew when it starts",
			"%s is %s", path, found.Damage)
	case found.Damage != "":
		c.say("journal", Warn, "nothing: the next start writes it anew, and asks each device once to correct its clock",
			"%s is %s", path, found.Damage)
	case found.Killed && c.Daemon == nil && c.DaemonErr == nil:
		c.say("journal", Warn, "nothing: the next start asks each device once to correct its clock", "spad was not stopped in good order")
	default:
		c.ok("journal", "%s is whole", path)
	}
	c.ahead(found.Saved)
}

// ahead compares the knock clock with the system's.
func (c *chart) ahead(saved time.Time) {
	now, _, _ := c.Clock()
	knock := saved
	if c.Daemon != nil {
		knock = c.Daemon.KnockClock
	}
	if d := knock.Sub(now).Round(time.Second); !knock.IsZero() && d > c.Config.Window {
		c.say("journal", Warn, "if the system clock is right now, nothing: each device is told once; expiry and hours are judged by the later clock until then",
			"the knock clock is %v ahead of the system clock, which was set back", d)
	}
}

// devices is whether those that are enrolled may knock.
func devices(_ context.Context, c *chart) {
	now, _, _ := c.Clock()
	enrolled, _, err := device.Peek(c.StateDir, now.UnixMilli())
	var roster *device.Roster
	if err == nil {
		roster, err = device.NewRoster(c.Config.Devices, enrolled)
	}
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		c.untold("devices", "the devices of the state", err)
		return
	case err != nil:
		what, remedy := apart(err)
		c.say("devices", Fail, remedy, "the devices can't be used: %s", what)
		return
	}
	bad := 0
	for _, d := range roster.All() {
		before := len(c.findings)
		c.device(d, now)
		bad += len(c.findings) - before
	}
	switch all := len(roster.All()); {
	case all == 0:
		c.say("devices", Warn, "invite one: spad invite laptop --allow SERVICE", "no device is enrolled: nobody can knock")
	case bad == 0:
		c.ok("devices", "%d may knock", all)
	}
}

// device says why one device opens nothing. It is meant so, as a rule, so it is no failure.
func (c *chart) device(d device.Device, now time.Time) {
	switch {
	case d.Disabled:
		c.say("devices", Warn, fmt.Sprintf("if that is not meant: take away its disabled, or spad device remove %s and invite it again", d.Name), "%s is disabled", d.Name)
	case !d.Active(now.UnixMilli()):
		c.say("devices", Warn, fmt.Sprintf("if that is not meant: change its expires, or spad device remove %s and invite it again", d.Name),
			"%s has expired (%s)", d.Name, d.Expires.UTC().Format(time.RFC3339))
	case config.CheckAllow(c.Config.Rules, d.Allow) != nil:
		c.say("devices", Warn, fmt.Sprintf("spad device show %s; remove it and invite it again with what it may open", d.Name),
			"%s is allowed what does not exist: %v", d.Name, config.CheckAllow(c.Config.Rules, d.Allow))
	}
}

// invites is how many keys to the house lie about.
func invites(_ context.Context, c *chart) {
	now, _, _ := c.Clock()
	if _, n, err := device.Peek(c.StateDir, now.UnixMilli()); err == nil && n > 0 {
		c.ok("invites", "%d open, each for one device that has its line", n)
	}
}
