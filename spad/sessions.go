package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func sessionsCommand() *cli.Command {
	return &cli.Command{
		Name:        "sessions",
		Usage:       "list the open doors",
		Description: "Example:\n  spad sessions --json",
		Flags:       []cli.Flag{jsonFlag(), remoteFlag()},
		Action: withArgs(func(c *cli.Context) error {
			client, err := clientOf(c)
			if err != nil {
				return err
			}
			all, err := client.Sessions(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printSessionsJSON(c, all)
			}
			now := time.Now()
			rows := [][]string{{"ID", "SERVICE", "FOR", "DEVICE", "BY", "OPENED", "SHUTS"}}
			for _, s := range all {
				rows = append(rows, []string{s.ID, s.Service, s.Source, orDash(s.Device), orDash(s.By), when(s.Opened, now), left(s)})
			}
			return printTable(c.App.Writer, rows)
		}),
	}
}

// printSessionsJSON prints a list also where there is none.
func printSessionsJSON(c *cli.Context, all []control.Session) error {
	return printJSON(c.App.Writer, append([]control.Session{}, all...))
}

// left words when a door shuts, by the router's steady clock and not by the system's.
func left(s control.Session) string { return "in " + span(time.Duration(s.TTLLeft)*time.Second) }

// door names an open door for people.
func door(s control.Session) string {
	if s.Device == "" {
		return fmt.Sprintf("%s for %s", s.Service, s.Source)
	}
	return fmt.Sprintf("%s for %s at %s", s.Service, s.Device, s.Source)
}
