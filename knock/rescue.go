package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"spad/keys"
	"spad/pkg/client"
	"spad/pkg/wire"
)

func rescueCommand() *cli.Command {
	return command(&cli.Command{
		Name:      "rescue",
		Usage:     "open services with a rescue key from paper, and store nothing",
		ArgsUsage: "KEY|- SERVICE...",
		Description: `The key is the rows that spad device rescue printed; with - they are read from standard input,
so that no other user of this machine sees them. Case, spaces and hyphens do not matter, and a
row that was mistyped is asked for again.
Example:
  knock rescue - ssh`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "ttl", Usage: "how long: `TIME` as 90s, 15m, 2h or seconds, at most 65535s (default: the service's own)"},
			&cli.BoolFlag{Name: "no-address", Usage: "do not declare this device's own address: for networks that translate it", DisableDefaultText: true},
			jsonFlag(),
		}, familyFlags()...),
		Action: rescue,
	})
}

func rescue(c *cli.Context) error {
	if c.NArg() < 2 {
		return usageErrorf("a key and a service are wanted, as in: knock rescue - ssh")
	}
	request := client.Request{Op: wire.OpOpen, NoAddress: c.Bool("no-address")}
	for _, s := range c.Args().Tail() {
		if err := serviceName(s); err != nil {
			return err
		}
		request.Services = append(request.Services, s)
	}
	var err error
	if request.Only, err = family(c); err != nil {
		return err
	}
	if request.TTL, err = seconds(c, "ttl"); err != nil {
		return err
	}
	v, err := readRescue(c)
	if err != nil {
		return err
	}
	request.Router = client.Router{Name: v.Addr, Addr: v.Addr, Key: v.Router, Services: request.Services}
	return knockOnce(c, v, request)
}

// knockOnce knocks from a folder that goes away again: only what the clocks said is in it meanwhile.
func knockOnce(c *cli.Context, v keys.Rescue, r client.Request) (err error) {
	dir, err := os.MkdirTemp("", "knock-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cl, err := client.New(client.Options{Dir: dir, Device: v.Device()})
	if err != nil {
		return err
	}
	one := visit{Request: r}
	for i := range r.Services {
		one.at = append(one.at, i)
	}
	k := &knocker{client: cl, visits: []visit{one}, size: len(r.Services), json: c.Bool("json"), out: c.App.Writer, errs: c.App.ErrWriter}
	return k.all(c.Context).worst()
}

// readRescue takes the key from the command line, or row by row from standard input.
func readRescue(c *cli.Context) (keys.Rescue, error) {
	if text := c.Args().First(); text != "-" {
		v, err := keys.ParseRescue(text)
		if err != nil {
			return v, usageErrorf("reading the rescue key: %w", err)
		}
		return v, nil
	}
	asking := isTerminal(c.App.Reader)
	if asking {
		fmt.Fprintln(c.App.ErrWriter, "knock: type the rows of the rescue key, one a line")
	}
	var r keys.RescueReader
	lines := bufio.NewScanner(io.LimitReader(c.App.Reader, maxLine))
	for r.Missing() > 0 && lines.Scan() {
		err := r.Add(lines.Text())
		switch {
		case err == nil:
		case asking:
			fmt.Fprintf(c.App.ErrWriter, "knock: %v\n", err)
		default:
			return keys.Rescue{}, usageErrorf("reading the rescue key: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return keys.Rescue{}, fmt.Errorf("reading the rescue key: %w", err)
	}
	v, err := r.Rescue()
	if err != nil {
		return v, usageErrorf("reading the rescue key: %w", err)
	}
	return v, nil
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
