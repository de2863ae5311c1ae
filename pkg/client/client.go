// Package client knocks: it builds the packets, sends them over both address families
// at once, waits for the answers, retries, learns what the router's clock says, and
// enrols the device. It prints nothing; the command knock does.
//
// What lasts is in one folder:
//
//	config.toml   the routers this device is enrolled at
//	device.key    the device's key, one for all routers
//	clocks        per router: clock offset and the last time used in a packet
//	lock          held for each change of the others, by whichever process makes it
//
// # One errand
//
//	Knock, Enroll -> errand -> one family each for IPv4 and IPv6: resolve, at most two addresses
//	                             -> one flight per service and address: send, await, retry
//
// The flights run side by side, each with packets of its own; the times in them come
// from the one clock memory, which is on disk before a packet leaves. Once every
// service has succeeded in one family, the other gets a short grace and no more.
package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// Options say where a client keeps its files and what it takes for the world. The
// zero value is the real one.
type Options struct {
	Dir     string    // the folder; "" is DefaultDir
	System  System    // clock and boot id; nil is this machine's
	Network Network   // nil is this machine's
	Rand    io.Reader // nil is crypto/rand
	// Device is a key to knock with in the place of the folder's; zero: the folder's.
	Device keys.DeviceSecret
}

// Client knocks with the key and at the routers of one folder. It is safe for
// concurrent use, also by several processes.
type Client struct {
	folder *folder
	system System
	net    Network
	rand   io.Reader
	device keys.DeviceSecret // zero: the folder's
}

// New opens the folder and makes it, mode 0700, if it is missing.
func New(o Options) (*Client, error) {
	if o.Dir == "" {
		dir, err := DefaultDir()
		if err != nil {
			return nil, err
		}
		o.Dir = dir
	}
	f, err := openFolder(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &Client{folder: f, system: o.System, net: o.Network, rand: o.Rand, device: o.Device}
	if c.system == nil {
		c.system = machine{}
	}
	if c.net == nil {
		c.net = internet{}
	}
	if c.rand == nil {
		c.rand = rand.Reader
	}
	return c, nil
}

// Dir returns the folder.
func (c *Client) Dir() string { return c.folder.path }

// ConfigError is a fault that a person must mend: in the configuration, a key file,
// or in which router was meant. Its text says how.
type ConfigError struct{ err error }

// Error returns the text of the fault and its remedy.
func (e *ConfigError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.err }

func configErrorf(format string, a ...any) error {
	return &ConfigError{fmt.Errorf(format, a...)}
}

// Device returns the device's key. If there is none yet it makes and stores one, and
// made is true. An insecure or damaged key file is a *ConfigError.
func (c *Client) Device() (k keys.DeviceSecret, made bool, err error) {
	path := c.keyFile()
	k, err = keys.ReadDeviceFile(path)
	if err == nil {
		return k, false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return k, false, &ConfigError{err}
	}
	if k, err = keys.GenerateDevice(c.rand); err != nil {
		return k, false, fmt.Errorf("making the device key: %w", err)
	}
	err = keys.WriteDeviceFile(path, k)
	if errors.Is(err, fs.ErrExist) { // another process was first; its key counts
		k, err = keys.ReadDeviceFile(path)
		return k, false, err
	}
	return k, err == nil, err
}

func (c *Client) keyFile() string { return c.folder.file("device.key") }

// Request is a wish for one or more services of one router.
type Request struct {
	Router    Router
	Op        wire.Op // OpOpen or OpClose
	Services  []string
	TTL       time.Duration // for OpOpen: whole seconds up to 65,535, or 0 for the service's own
	Only      Family        // knock in this family only; Both is usual
	NoAnswer  bool          // ask for no answer: one packet each, and nothing is learned
	NoAddress bool          // never declare the device's own address
}

// Knock sends the request and waits until each service has an outcome, which takes
// about three seconds if nothing answers. The outcomes are in the order of the
// services. An error means that nothing was sent; it is a *ConfigError if a person
// must mend something.
//
// Services are opened side by side, and closed one after the other: a close makes
// the router refuse all earlier packets, which must not be the next service's.
func (c *Client) Knock(ctx context.Context, r Request) ([]Outcome, error) {
	wishes, err := r.wishes()
	if err != nil {
		return nil, err
	}
	device := c.device
	if device.IsZero() {
		if device, err = keys.ReadDeviceFile(c.keyFile()); err != nil { // none is made here: no router would know it
			return nil, &ConfigError{err}
		}
	}
	e, err := c.errand(device, r.Router, r.Only)
	if err != nil {
		return nil, err
	}
	e.noAnswer, e.noAddress = r.NoAnswer, r.NoAddress
	if err := e.greet(ctx); err != nil {
		return failed(wishes, err), nil
	}
	if r.Op != wire.OpClose {
		return e.run(ctx, wishes, bothFamilies), nil
	}
	var out []Outcome
	for i := range wishes {
		out = append(out, e.run(ctx, wishes[i:i+1], oneFamily)...)
	}
	return out, nil
}

func (r Request) wishes() ([]wish, error) {
	if r.Op != wire.OpOpen && r.Op != wire.OpClose {
		return nil, errors.New("a request opens or closes, nothing else")
	}
	seconds := r.TTL / time.Second
	if r.TTL < 0 || seconds > MaxTTL || r.TTL%time.Second != 0 || r.Op == wire.OpClose && r.TTL != 0 {
		return nil, configErrorf("no packet can ask for %v: whole seconds, from 1 to %d", r.TTL, MaxTTL)
	}
	var w []wish
	for _, s := range r.Services {
		if !wire.ValidName(s) {
			return nil, configErrorf("%q is no service name: small letters, digits and hyphens, at most 32", s)
		}
		w = append(w, wish{op: r.Op, service: s, ttl: uint16(seconds)})
	}
	return w, nil
}

// MaxTTL is the longest time a packet can ask for, in seconds.
const MaxTTL = 65535
