package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"spad/keys"
)

func listCommand() *cli.Command {
	return command(&cli.Command{
		Name:        "list",
		Usage:       "list the routers this device is enrolled at, and what they are known to have",
		Description: "Example:\n  knock list --json",
		Flags:       []cli.Flag{jsonFlag()},
		Action:      list,
	})
}

type jsonRouter struct {
	Name     string            `json:"name"`
	Address  string            `json:"address"`
	Key      keys.RouterPublic `json:"key"`
	Services []string          `json:"services"`
}

func list(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("list takes no arguments; see: knock list --help")
	}
	cl, err := newClient(c)
	if err != nil {
		return err
	}
	routers, err := cl.Routers()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		out := make([]jsonRouter, 0, len(routers))
		for _, r := range routers {
			out = append(out, jsonRouter{r.Name, r.Addr, r.Key, append([]string{}, r.Services...)})
		}
		return json.NewEncoder(c.App.Writer).Encode(out)
	}
	if len(routers) == 0 {
		fmt.Fprintln(c.App.ErrWriter, "knock: no router is known yet; enrol with an invite: knock enroll INVITE")
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, r := range routers {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Addr, strings.Join(r.Services, " "))
	}
	return w.Flush()
}
