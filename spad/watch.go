package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
	"spad/pkg/event"
)

// watchAgain is how often a daemon that stopped is looked for.
const watchAgain = 500 * time.Millisecond

func watchCommand() *cli.Command {
	return &cli.Command{
		Name:  "watch",
		Usage: "live events, until stopped",
		Description: "Ends with Ctrl-C. When the daemon stops, it says so on stderr and waits for the next start. With --json one JSON\n" +
			"object per line. Colours are for terminals only, and not where NO_COLOR is set.\n\n" +
			"Example:\n  spad watch --json",
		Flags:  []cli.Flag{jsonFlag(), remoteFlag()},
		Action: withArgs(watch),
	}
}

func watch(c *cli.Context) error {
	line := eventLine
	if isTerminal(c.App.Writer) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		line = colouredLine
	}
	show := func(e event.Event) error {
		_, err := fmt.Fprintln(c.App.Writer, line(e))
		return err
	}
	if c.Bool("json") {
		lines := json.NewEncoder(c.App.Writer)
		show = func(e event.Event) error { return lines.Encode(e) }
	}
	err := keepWatching(c, show)
	if c.Context.Err() != nil && errors.Is(err, c.Context.Err()) {
		return nil // Ctrl-C is how one stops watching
	}
	return err
}

// keepWatching watches one run of the daemon after the other. If none runs to begin with, that is the error.
func keepWatching(c *cli.Context, show func(event.Event) error) error {
	client, err := clientOf(c)
	if err != nil {
		return err
	}
	if err := client.Events(c.Context, show); err != nil {
		return err
	}
	for {
		fmt.Fprintln(c.App.ErrWriter, "spad: the daemon has stopped; waiting for it to start again, Ctrl-C ends")
		if err := awaitDaemon(c.Context, client); err != nil {
			return err
		}
		fmt.Fprintln(c.App.ErrWriter, "spad: watching again; events in between were not seen, its log has them")
		if err := client.Events(c.Context, show); err != nil && !errors.Is(err, control.ErrNotRunning) {
			return err
		}
	}
}

// awaitDaemon returns when a daemon answers.
func awaitDaemon(ctx context.Context, client *control.Client) error {
	tick := time.NewTicker(watchAgain)
	defer tick.Stop()
	for {
		if _, err := client.Status(ctx); err == nil || errors.Is(err, control.ErrDenied) {
			return err // nil, or a remote that was removed
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// The colours of events, as terminals know them (ECMA-48).
const (
	plainText = "\x1b[0m"
	redText   = "\x1b[31m"
	greenText = "\x1b[32m"
	amberText = "\x1b[33m"
	greyText  = "\x1b[90m"
)

// colours are those of kinds that an eye should find.
var colours = map[event.Kind]string{
	event.Opened: greenText, event.Renewed: greenText, event.Moved: greenText, event.Restored: greenText,
	event.Closed: greyText, event.Expired: greyText, event.KnockRefused: amberText,
	event.ReloadFailed: redText, event.BackendFailed: redText, event.JournalFailed: redText, event.SocketLost: redText,
}

// colouredLine is eventLine for a terminal.
func colouredLine(e event.Event) string {
	if colour := colours[e.Kind]; colour != "" {
		return colour + eventLine(e) + plainText
	}
	return eventLine(e)
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
