package client

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"spad/keys"
	"spad/pkg/wire"
)

// rawConfig is config.toml as it stands in the file.
type rawConfig struct {
	Router map[string]rawRouter `toml:"router"`
}

type rawRouter struct {
	Addr     string   `toml:"addr"`
	Key      string   `toml:"key"`
	Services []string `toml:"services,omitempty"`
}

const configHead = `# Routers this device is enrolled at. knock writes this file anew when it enrols or
# forgets a router, so comments do not last. Per router:
#   addr      host:port to knock at
#   key       the router's public key (spad key prints it)
#   services  what it is known to have, for listings; others may be knocked for as well
`

// maxFile bounds what is read of a file; a router takes about 200 bytes.
const maxFile = 1 << 20

func loadRouters(path string) ([]Router, error) {
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, configErrorf("reading %q: %w", path, err)
	}
	routers, err := parseConfig(data)
	if err != nil {
		return nil, configErrorf("reading %q: %w", path, err)
	}
	return routers, nil
}

// readPrivate reads a whole file that must be this user's alone.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close() // only read
	if err := private(f); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return data, bare(err)
}

// bare takes the path off an error of package os, so that a message names it once.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func parseConfig(data []byte) ([]Router, error) {
	var raw rawConfig
	meta, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&raw)
	var syntax toml.ParseError
	if errors.As(err, &syntax) {
		return nil, fmt.Errorf("line %d: %s; mend the line, or move the file away and enrol again", syntax.Position.Line, syntax.Message)
	}
	if err != nil {
		return nil, fmt.Errorf("%s; mend it, or move the file away and enrol again", strings.TrimPrefix(err.Error(), "toml: "))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%s is not known here; routers are tables [router.NAME] with addr, key and services", unknown[0])
	}
	if t := meta.Type("router"); t != "" && t != "Hash" { // which the decoder lets pass as an empty map
		return nil, errors.New("router is not a table; routers are tables [router.NAME] with addr, key and services")
	}
	var routers []Router
	for name, r := range raw.Router {
		router, err := r.router(name)
		if err != nil {
			return nil, fmt.Errorf("router %q: %w", name, err)
		}
		routers = append(routers, router)
	}
	return sorted(routers), nil
}

func (r rawRouter) router(name string) (Router, error) {
	if !validRouterName(name) {
		return Router{}, errors.New("the name needs letters, digits and .-_: only")
	}
	if _, _, ok := splitAddr(r.Addr); !ok {
		return Router{}, fmt.Errorf(`addr %q is not host:port, as in "home.example.net:41372" or "[2001:db8::1]:41372"`, r.Addr)
	}
	key, err := keys.ParseRouterPublic(r.Key)
	if err != nil {
		return Router{}, fmt.Errorf("key: %w", err)
	}
	for _, s := range r.Services {
		if !wire.ValidName(s) {
			return Router{}, fmt.Errorf("%q is no service name: small letters, digits and hyphens, at most 32", s)
		}
	}
	return Router{Name: name, Addr: r.Addr, Key: key, Services: r.Services}, nil
}

func sorted(routers []Router) []Router {
	slices.SortFunc(routers, func(a, b Router) int { return cmp.Compare(a.Name, b.Name) })
	return routers
}

func saveRouters(path string, routers []Router) error {
	raw := rawConfig{Router: make(map[string]rawRouter)}
	for _, r := range routers {
		raw.Router[r.Name] = rawRouter{Addr: r.Addr, Key: r.Key.String(), Services: r.Services}
	}
	out := bytes.NewBufferString(configHead + "\n")
	enc := toml.NewEncoder(out)
	enc.Indent = ""
	if err := enc.Encode(raw); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if err := replace(path, out.Bytes()); err != nil {
		return fmt.Errorf("writing %q: %w", path, bare(err))
	}
	return nil
}
