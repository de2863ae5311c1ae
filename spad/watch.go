package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
	"spad/pkg/event"
)

func watchCommand() *cli.Command {
	return &cli.Command{
		Name:        "watch",
		Usage:       "live events, until stopped",
		Description: "Ends with Ctrl-C, or when the daemon stops. With --json one JSON object per line.\n\nExample:\n  spad watch --json",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      withArgs(watch),
	}
}

func watch(c *cli.Context) error {
	show := func(e event.Event) error {
		_, err := fmt.Fprintln(c.App.Writer, eventLine(e))
		return err
	}
	if c.Bool("json") {
		lines := json.NewEncoder(c.App.Writer)
		show = func(e event.Event) error { return lines.Encode(e) }
	}
	err := control.NewClient(pathsOf(c).socket).Events(c.Context, show)
	if c.Context.Err() != nil && errors.Is(err, c.Context.Err()) {
		return nil // Ctrl-C is how one stops watching
	}
	return err
}

// eventLine is an event as text: local time, what happened, and what is known of it.
func eventLine(e event.Event) string {
	var b strings.Builder
	b.WriteString(e.Time.Local().Format(time.TimeOnly) + " " + e.Kind.Text())
	for _, a := range e.LogAttrs() {
		value := a.Value.String()
		switch a.Value.Kind() {
		case slog.KindDuration:
			value = span(a.Value.Duration())
		case slog.KindTime:
			value = a.Value.Time().Local().Format(time.TimeOnly)
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' || !strconv.IsPrint(r) }) {
			value = strconv.Quote(value)
		}
		b.WriteString(" " + a.Key + "=" + value)
	}
	if e.Lost > 0 {
		fmt.Fprintf(&b, " (%d events before it were lost: this terminal is too slow)", e.Lost)
	}
	return b.String()
}
