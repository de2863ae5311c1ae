// Package config reads spad.toml.
//
// The file becomes typed, checked values in one strict step; what comes out needs no further checks, and whatever is
// wrong is found at once, each problem with its line and what would be right. Nothing is opened wider than it is
// written: in doubt there is a problem, not a guess. reference.toml, beside this file, documents every key.
//
//	bytes --toml--> map --reader--> Config
//	   |                     |
//	   +--locate--> lines ---+--> Problems
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"spad/pkg/device"
	"spad/pkg/firewall"
	"spad/pkg/flood"
	"spad/pkg/policy"
)

// MaxSize is the size of the largest configuration that is read, in bytes.
const MaxSize = 1 << 20

// Defaults and bounds, as reference.toml documents them.
const (
	DefaultWindow  = time.Minute
	MinWindow      = time.Second
	MaxWindow      = time.Hour
	DefaultTTL     = 15 * time.Minute
	DefaultMaxTTL  = 8 * time.Hour
	DefaultKeyFile = "router.key"
	// DefaultMark is bit 28, which none of the usual users of marks takes: qos-scripts (0xff), mwan3 (0x3f00),
	// Kubernetes (0xc000), Tailscale and OpenWrt's pbr (0xff0000), Weave (0x60000), wg-quick (0xca6c), Docker's
	// overlay networks (0xd0c4e3), Mullvad (0x6d6f6c65). Calico may take any of the upper half. fw4 takes none itself.
	DefaultMark uint32 = 1 << 28
)

// Config is a configuration without problems. It must not be changed.
type Config struct {
	Path         string         // as it was given to Load
	Text         []byte         // what Load has read
	Listen       string         // ":PORT", the UDP port that knocks come to, on every address
	Port         uint16         // the same as a number
	Hostname     string         // what invites name, without port; may be empty
	External     string         // host:port that invites name instead; may be empty
	Remote       netip.AddrPort // where remote control listens; invalid: nowhere
	KeyFile      string         // the router's secret key; relative paths were made relative to the file's folder
	Firewall     string         // the backend: "nftables" or "iptables"
	IPTables     string         // which iptables: "nft", "legacy", or nothing: found out
	Capture      string         // where packets come from: "udp"
	Window       time.Duration  // how far a packet's time may be from the knock clock
	Mark         uint32         // the one bit that permitted packets carry
	AlwaysAllow  []netip.Prefix // networks that need no knock; masked, sorted, none within another
	LAN          []netip.Prefix // the networks behind the router; masked, sorted, none within another; none: not known
	Limits       flood.Limits   // the budget for public-key work
	TestLoopback bool           // loopback addresses may knock; for tests only
	LogJSON      bool           // logs are JSON instead of text

	Rules   *policy.Rules      // services and groups as policy sees them
	Doors   []firewall.Service // the same services as the firewall sees them, by name
	Devices []device.Device    // those of the file, by name; more are in the state

	Webhooks []Webhook // by name
	Execs    []Exec    // by name
}

// Load reads and checks a configuration file. The error is a *Problems; errors.Is finds fs.ErrNotExist and the like.
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, &Problems{List: []Problem{unreadable(path, err)}}
	}
	c, err := Parse(path, data)
	if c != nil {
		c.Text = data
	}
	return c, err
}

// Errors of read that no other package has.
var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("too large")
)

func read(path string) ([]byte, error) {
	if info, err := os.Stat(path); err != nil { // before it is opened: opening a pipe would wait
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err == nil && len(data) > MaxSize {
		err = errTooLarge
	}
	return data, err
}

func unreadable(path string, err error) Problem {
	p := Problem{File: path, What: "can't be read", Remedy: "check the path and the disk", cause: err}
	var cause *fs.PathError
	if errors.As(err, &cause) {
		p.What += ": " + cause.Err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.What, p.Remedy = "there is no such file", "make one with: spad init, or name another with --config FILE"
	case errors.Is(err, fs.ErrPermission):
		p.Remedy = "run this as the user that owns the file, as a rule root"
	case errors.Is(err, errNotRegular):
		p.What, p.Remedy = "is a folder or a device, not a file", "name the file itself, such as spad.toml"
	case errors.Is(err, errTooLarge):
		p.What, p.Remedy = fmt.Sprintf("is larger than %d bytes", MaxSize), "name a configuration, or make it smaller"
	}
	return p
}

// Parse checks the contents of a configuration file. The path stands in messages, and relative paths in the file are
// relative to its folder. The error is a *Problems, each with a line.
func Parse(path string, data []byte) (*Config, error) {
	r := &reader{file: path, problems: &Problems{}}
	if c := r.config(data); len(r.problems.List) == 0 {
		return c, nil
	}
	r.problems.sort()
	return nil, r.problems
}

// InviteAddr returns the host:port that invites tell devices to knock at.
func (c *Config) InviteAddr() (string, error) {
	switch {
	case c.External != "":
		return c.External, nil
	case c.Hostname != "":
		return net.JoinHostPort(c.Hostname, strconv.Itoa(int(c.Port))), nil
	}
	return "", fmt.Errorf(`%s: neither hostname nor external is set, so that an invite can't say where to knock; `+
		`write hostname = "home.example.net"`, c.Path)
}

// Ruleset returns the static part of the firewall, for knocks that come to a UDP port.
func (c *Config) Ruleset(port uint16) firewall.Ruleset {
	return firewall.Ruleset{Services: c.Doors, KnockPort: port, Mark: c.Mark, AlwaysAllow: c.AlwaysAllow, LAN: c.LAN}
}

// CheckAllow returns nil if all the names in a device's list of rights exist. The error names those that don't and lists
// what there is.
func CheckAllow(rules *policy.Rules, allow []string) error {
	known := namesOf(rules)
	var wrong []string
	for _, right := range allow {
		if what, remedy := known.check(right); what != "" {
			wrong = append(wrong, what+"; "+remedy)
		}
	}
	switch {
	case len(allow) == 0:
		wrong = []string{"no service named"}
	case len(wrong) == 0:
		return nil
	}
	return fmt.Errorf("%s; %s", strings.Join(wrong, "; "), known.list())
}

// names are the services and groups that a right may name.
type names struct{ services, groups []string }

func namesOf(rules *policy.Rules) names {
	var n names
	for _, s := range rules.Services() {
		n.services = append(n.services, s.Name)
	}
	for _, g := range rules.Groups() {
		n.groups = append(n.groups, g.Name)
	}
	return n
}

// list says what there is.
func (n names) list() string {
	text := "there is no service yet: write a [service.NAME]"
	if len(n.services) > 0 {
		text = "services are: " + strings.Join(n.services, ", ")
	}
	if len(n.groups) > 0 {
		text += "; groups are: " + policy.GroupPrefix + strings.Join(n.groups, ", "+policy.GroupPrefix)
	}
	return text
}

// check returns what is wrong with a right and what would be right, or nothing.
func (n names) check(right string) (what, remedy string) {
	if name, isGroup := strings.CutPrefix(right, policy.GroupPrefix); isGroup {
		if slices.Contains(n.groups, name) {
			return "", ""
		}
		return "unknown group " + quote(name), suggest(nearest(name, n.groups), policy.GroupPrefix, "write a [group.NAME] for it")
	}
	if slices.Contains(n.services, right) {
		return "", ""
	}
	what = "unknown service " + quote(right)
	if slices.Contains(n.groups, right) {
		return what, fmt.Sprintf("for the group write %q", policy.GroupPrefix+right)
	}
	return what, suggest(nearest(right, n.services), "", "write a [service.NAME] for it")
}

func suggest(near, prefix, otherwise string) string {
	if near == "" {
		return otherwise
	}
	return fmt.Sprintf("did you mean %q?", prefix+near)
}

// keyPath returns where the router's key is.
func keyPath(file, key string) string {
	if filepath.IsAbs(key) {
		return key
	}
	return filepath.Join(filepath.Dir(file), key)
}
