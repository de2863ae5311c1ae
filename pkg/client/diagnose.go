package client

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// Diagnosis is what the way to one router looks like.
type Diagnosis struct {
	Families []Way // IPv4 first
	// NAT64 are the prefixes behind which this network puts IPv4 hosts.
	NAT64 []netip.Prefix
	// Offset is the router's clock minus this device's, if Known: learned now, or by an earlier answer.
	Offset time.Duration
	Known  bool
}

// Way is the way to a router in one family.
type Way struct {
	Family    Family
	Addrs     []netip.Addr // of the router
	LookupErr error        // why there is none: a *net.DNSError as a rule
	Local     netip.Addr   // where packets to the first of them leave from
	LocalErr  error        // why none leaves
	Result    Result       // of a hello; not valid if there was nothing to send it to
	RTT       time.Duration
}

// Diagnose looks the router up and says hello to it in each family, which opens nothing. It waits for each family's answer,
// three seconds if none comes. An error is a *ConfigError: there is no key, or no such family.
func (c *Client) Diagnose(ctx context.Context, r Router, only Family) (Diagnosis, error) {
	device, err := keys.ReadDeviceFile(c.keyFile())
	if err != nil {
		return Diagnosis{}, &ConfigError{err}
	}
	e, err := c.errand(device, r, only)
	if err != nil {
		return Diagnosis{}, err
	}
	e.noAddress = true // the router then says what it sees, whatever that is
	d := Diagnosis{Families: make([]Way, len(e.families))}
	var wg sync.WaitGroup
	for i, f := range e.families {
		wg.Go(func() { d.Families[i] = e.way(ctx, f) })
	}
	wg.Wait()
	d.NAT64 = e.nat64.prefixes(ctx)
	err = c.folder.locked(ctx, func() error {
		known, err := e.memory.load()
		if err == nil {
			d.Known, d.Offset = known.own.Known, time.Duration(known.own.Offset)*time.Millisecond
		}
		return err
	})
	return d, err
}

// way goes one family's.
func (e *errand) way(ctx context.Context, f Family) Way {
	w := Way{Family: f}
	targets, err := e.addresses(ctx, f, &w)
	if err != nil {
		w.LookupErr = err
		return w
	}
	conn, err := e.net.Dial(ctx, targets[0].addr)
	if err != nil {
		w.LocalErr = unreachable(targets[0].addr, err)
		return w
	}
	w.Local = conn.LocalAddr()
	_ = conn.Close()
	alone := *e
	alone.families = []Family{f}
	w.Result = alone.run(ctx, []wish{{op: wire.OpHello}}, oneFamily)[0].Best()
	w.RTT = w.Result.rtt
	return w
}

// addresses asks the name server itself first: its error says which one it was.
func (e *errand) addresses(ctx context.Context, f Family, w *Way) ([]target, error) {
	if _, err := netip.ParseAddr(e.places.host); err != nil {
		bounded, cancel := context.WithTimeout(ctx, lookupPatience)
		defer cancel()
		if w.Addrs, err = e.net.Lookup(bounded, f, e.places.host); err != nil {
			return nil, err
		}
	}
	targets, err := e.places.in(ctx, f)
	if err != nil {
		return nil, err
	}
	if len(w.Addrs) == 0 {
		w.Addrs = []netip.Addr{targets[0].addr.Addr()}
	}
	return targets, nil
}

// Global reports whether an address is of a kind that reaches a router unchanged: no private one, and none that a provider
// shares among customers.
func Global(a netip.Addr) bool { return keepsAddress(a) }

// Synchronised reports whether this device's clock follows a time source; where it can't be asked it is taken to.
func (c *Client) Synchronised() bool { return c.system.Synchronised() }

// CheckKey returns the device's public key. It makes none: what is wrong is a *ConfigError.
func (c *Client) CheckKey() (keys.DevicePublic, error) {
	k, err := keys.ReadDeviceFile(c.keyFile())
	if err != nil {
		return keys.DevicePublic{}, &ConfigError{err}
	}
	return k.Public(), nil
}

// Named returns the router of that name, host or address; an error is a *ConfigError that lists them.
func Named(routers []Router, name string) (Router, error) { return named(routers, name) }
