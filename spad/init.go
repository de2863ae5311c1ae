package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v2"

	"spad/keys"
	"spad/pkg/config"
)

func initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "write a commented spad.toml and the router key",
		Description: "What is there already is kept. The port that knocks come to is picked at random.\n\n" +
			"Example:\n  spad init --hostname home.example.net",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "`DIR` to write to (default: the folder of --config)"},
			&cli.StringFlag{Name: "hostname", Usage: "`NAME` or address that devices knock at, without port"},
		},
		Action: withArgs(initialise),
	}
}

func initialise(c *cli.Context) error {
	path := pathsOf(c).config
	if dir := c.String("dir"); dir != "" {
		path = filepath.Join(dir, "spad.toml")
	}
	hostname := c.String("hostname")
	if c.IsSet("hostname") {
		if err := config.CheckHostname(hostname); err != nil {
			return usageError{err}
		}
	}
	return as(ownerOf(filepath.Dir(path)), func() error { return writeBoth(c, path, hostname) })
}

// writeBoth writes the configuration and the key.
func writeBoth(c *cli.Context, path, hostname string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making the configuration folder: %w; run this as root, or choose a folder with --dir", err)
	}
	wrote, err := writeConfig(path, hostname)
	if err != nil {
		return err
	}
	say := func(format string, a ...any) { fmt.Fprintf(c.App.Writer, format+"\n", a...) }
	if wrote {
		say("wrote %s", path)
	} else {
		say("kept %s, which was there already; a --hostname is not written to it", path)
	}
	keyFile, secret, wrote, err := ensureKey(path)
	if err != nil {
		return err
	}
	if wrote {
		say("wrote %s", keyFile)
	} else {
		say("kept %s, which was there already", keyFile)
	}
	say("router key: %s", secret.Public())
	option := ""
	if path != defaultConfig {
		option = " --config " + path
	}
	say("\nnext: say in %s what can be opened; it tells how to not shut yourself out. Then:", path)
	say("  spad check%s\n  spad run%s\n  spad invite laptop --allow ssh%s", option, option, option)
	return nil
}

// writeConfig writes a first configuration, unless there is one.
func writeConfig(path, hostname string) (wrote bool, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	port, err := randomPort()
	if err != nil {
		return false, err
	}
	if err := renameio.WriteFile(path, config.Template(port, hostname), 0o600); err != nil {
		return false, fmt.Errorf("writing the configuration: %w", err)
	}
	return true, nil
}

// ensureKey makes the router key where the configuration says, or beside one that has problems; spad check lists those.
// A key that is there already is kept, and must be usable.
func ensureKey(path string) (file string, secret keys.RouterSecret, wrote bool, err error) {
	file = filepath.Join(filepath.Dir(path), config.DefaultKeyFile)
	if cfg, err := config.Load(path); err == nil {
		file = cfg.KeyFile
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		secret, err = keys.ReadRouterFile(file)
		if err != nil {
			err = usageError{err}
		}
		return file, secret, false, err
	}
	if secret, err = keys.GenerateRouter(rand.Reader); err != nil {
		return "", secret, false, err
	}
	return file, secret, true, keys.WriteRouterFile(file, secret)
}

// The ports to pick from lie above those of servers and below those that Linux gives to clients for most of their
// range; what is looked for or used by other programs there would draw scans, or be in the way.
const firstPort, lastPort = 20000, 60999

var takenPorts = []uint16{
	21027, 22000, 22067, 22070, // Syncthing
	25565, 27005, 27015, 27016, 27020, 28960, 34197, // games
	32400, 32410, 32412, 32413, 32414, // Plex
	33434, 33435, 33436, 33437, 33438, // traceroute
	41372,        // the example in the documentation
	41641,        // Tailscale
	51413,        // Transmission
	51820, 51821, // WireGuard
	60000, 60001, 60002, // mosh
}

func randomPort() (uint16, error) {
	for {
		n, err := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort+1))
		if err != nil {
			return 0, fmt.Errorf("picking a port: %w", err)
		}
		if port := uint16(firstPort + n.Int64()); !slices.Contains(takenPorts, port) {
			return port, nil
		}
	}
}
