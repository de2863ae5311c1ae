package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/control"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "the last knocks of a device or from an address: what each opened, or why it was refused",
		ArgsUsage: "DEVICE|ADDRESS",
		Description: "The daemon remembers the last 1,024 knocks of enrolled devices, 64 of each, since it started. Of packets that prove\n" +
			"nobody it only counts how many failed which check.\n\n" +
			"Example:\n  spad why laptop\n  spad why 198.51.100.7",
		Flags:  []cli.Flag{jsonFlag()},
		Action: withArgs(why),
	}
}

func why(c *cli.Context) error {
	asked := c.Args().First()
	request := control.WhyRequest{Device: asked}
	if a, err := netip.ParseAddr(asked); err == nil {
		request = control.WhyRequest{Address: a.Unmap().WithZone("")}
	}
	w, err := control.NewClient(pathsOf(c).socket).Why(c.Context, request)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, w)
	}
	_, err = fmt.Fprint(c.App.Writer, whyText(asked, w, time.Now()))
	return err
}

// whyText explains: the knocks, what their reasons mean, each once, and what may have come besides.
func whyText(asked string, w control.Why, now time.Time) string {
	var b strings.Builder
	said := map[string]bool{}
	for _, k := range w.Knocks {
		fmt.Fprintln(&b, knockLine(k, now))
		if k.Remedy != "" && !said[k.Reason] {
			fmt.Fprintf(&b, "    %s\n", k.Remedy)
		}
		said[k.Reason] = true
	}
	if len(w.Knocks) == 0 {
		fmt.Fprintf(&b, "no knock of an enrolled device is remembered for %s since spad started, %s\n", asked, when(w.Since, now))
	}
	switch {
	case len(w.Drops) > 0:
	case len(w.Knocks) == 0:
		b.WriteString("and no packet was dropped unproven: what was sent did not arrive; check the address, the port and the firewalls between\n")
		fallthrough
	default:
		return b.String()
	}
	fmt.Fprintf(&b, "\npackets that proved nobody, from anywhere, since %s; if %s sent some, they are among these:\n", when(w.Since, now), asked)
	for _, d := range w.Drops {
		fmt.Fprintf(&b, "%s: %d\n    %s\n", d.Reason, d.Count, d.Remedy)
	}
	return b.String()
}

// knockLine is one knock: when, of whom, from where, for what, and what became of it.
func knockLine(k control.Knock, now time.Time) string {
	words := []string{when(k.Time, now) + ":", k.Device, "from", k.Source}
	if k.Device == "" {
		words[1] = "an enrolment"
	}
	if k.Sender != "" {
		words = append(words, "(sent by "+k.Sender+")")
	}
	text := strings.Join(words, " ") + ": "
	if k.Service != "" {
		text += k.Service + " "
	}
	switch {
	case k.Reason != "":
		text += "refused: " + k.Reason
	case k.TTL > 0:
		text += k.Outcome + " for " + span(time.Duration(k.TTL)*time.Second)
	case k.Outcome == "hello":
		text += "asked for the time"
	default:
		text += k.Outcome
	}
	if k.Detail != "" {
		text += " (" + k.Detail + ")"
	}
	if k.Count > 1 {
		text += ", " + strconv.Itoa(k.Count) + " times like that"
	}
	return text
}
