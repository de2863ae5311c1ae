package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "how the daemon is",
		Description: "Counters that are zero are left out; --json has them all. --metrics prints what a collector of metrics reads, in the text\n" +
			"format of Prometheus.\n\nExample:\n  spad status\n  spad status --metrics >/var/lib/prometheus/node-exporter/spad.prom",
		Flags: []cli.Flag{
			jsonFlag(), &cli.BoolFlag{Name: "metrics", Usage: "print numbers for a collector", DisableDefaultText: true}, remoteFlag(),
		},
		Action: withArgs(func(c *cli.Context) error {
			client, err := clientOf(c)
			if err != nil {
				return err
			}
			if c.Bool("metrics") {
				return client.Metrics(c.Context, c.App.Writer)
			}
			s, err := client.Status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, s)
			}
			return printTable(c.App.Writer, statusRows(s, time.Now()))
		}),
	}
}

func statusRows(s control.Status, now time.Time) [][]string {
	rows := [][]string{
		{"version", s.Version},
		{"listening", "udp " + s.Listen},
		{"firewall", s.Firewall},
		{"started", when(s.Started, now)},
		{"knock clock", s.KnockClock.UTC().Format(time.RFC3339) + " (" + skew(s.KnockClock, now) + ")"},
		{"services", strconv.Itoa(s.Services)},
		{"devices", strconv.Itoa(s.Devices)},
		{"open invites", strconv.Itoa(s.Invites)},
		{"sessions", strconv.Itoa(s.Sessions)},
	}
	if s.Trial > 0 {
		rows = append(rows, []string{"on trial", "reverted in " + span(time.Duration(s.Trial)*time.Second) + " unless you say: spad confirm"})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Counters)) {
		if n := s.Counters[name]; n > 0 {
			rows = append(rows, []string{strings.ReplaceAll(name, "_", " "), strconv.FormatUint(n, 10)})
		}
	}
	return rows
}

// skew words how the knock clock differs from the system's; it never runs behind for long, but ahead it can be for years.
func skew(clock, system time.Time) string {
	switch d := clock.Sub(system).Round(time.Second); {
	case d > time.Second:
		return span(d) + " ahead of the system clock"
	case d < -time.Second:
		return span(-d) + " behind the system clock"
	}
	return "as the system clock"
}
