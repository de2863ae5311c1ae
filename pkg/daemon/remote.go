package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/control"
	"spad/pkg/event"
	"spad/pkg/remote"
)

// remoteControl is what the daemon has for remotes: who they are, always, and where they are listened to, if anywhere.
type remoteControl struct {
	store    *remote.Store
	key      keys.RemoteSecret
	listener net.Listener // nil: off
}

// prepareRemote reads the remotes and, if the configuration says where, makes the key at the first use and listens.
func (d *Daemon) prepareRemote(c *closers) (err error) {
	if d.remote.store, err = remote.Open(d.o.StateDir, d.nowMS); err != nil {
		return err
	}
	at := d.o.Config.Remote
	if !at.IsValid() {
		return nil
	}
	if d.remote.key, err = remoteKey(filepath.Join(d.o.StateDir, "remote.key")); err != nil {
		return err
	}
	if d.remote.listener, err = listenRemote(at, d.log); err != nil {
		return err
	}
	c.add(func() error {
		d.remote.listener.Close() // most often the server has done so
		return nil
	})
	return nil
}

func remoteKey(path string) (keys.RemoteSecret, error) {
	key, err := keys.ReadRemoteFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = keys.GenerateRemote(rand.Reader); err != nil {
		return key, err
	}
	return key, keys.WriteRemoteFile(path, key)
}

// serveRemotes answers remotes until ctx is done.
func (d *Daemon) serveRemotes(ctx context.Context) error {
	if d.remote.listener == nil {
		return nil
	}
	known := func(pin keys.RemotePin) bool { _, ok := d.remote.store.ByPin(pin); return ok }
	tls, err := remote.ServerConfig(d.remote.key, known, d.remote.store.Open)
	if err != nil {
		return err
	}
	g := guard{d}
	server := &control.Server{
		Sessions: g, Devices: g, Daemon: g, Services: g, Knocks: g, Access: g, Events: d.bus, Metrics: d.metrics,
		Log: d.log, TLS: tls,
	}
	return server.Serve(ctx, d.remote.listener)
}

// Services implements control.Services.
func (d *Daemon) Services(context.Context) ([]control.Service, error) {
	var all []control.Service
	for _, s := range d.cfg.Load().Rules.Services() {
		all = append(all, control.Service{
			Name: s.Name, TTL: int(s.TTL / time.Second), MaxTTL: int(s.MaxTTL / time.Second), IPv4: s.IPv4, IPv6: s.IPv6, Port: s.Port,
		})
	}
	return all, nil
}

// Remotes implements control.Remotes.
func (d *Daemon) Remotes(context.Context) ([]control.Remote, error) {
	var all []control.Remote
	for _, r := range d.remote.store.All() {
		all = append(all, describeRemote(r))
	}
	return all, nil
}

func describeRemote(r remote.Remote) control.Remote {
	c := control.Remote{
		Name: r.Name, Pin: r.Pin.String(), Allow: r.Allow, ReadOnly: r.ReadOnly, NameAddresses: r.NameAddresses, Manage: r.Manage, Added: r.Added,
	}
	if !r.Joined() {
		expires := time.UnixMilli(r.ExpiresMS)
		c.Expires = &expires
	}
	return c
}

// AddRemote implements control.Remotes.
func (d *Daemon) AddRemote(ctx context.Context, r control.RemoteRequest) (control.RemoteLine, error) {
	cfg := d.cfg.Load()
	if d.remote.listener == nil {
		return control.RemoteLine{}, &control.UsageError{Text: fmt.Sprintf(
			"remote control is off; write remote = \"192.168.1.1:41373\", with an address of this router, into %s and restart spad", cfg.Path)}
	}
	if err := possible(cfg, r.Name, r.Allow); err != nil {
		return control.RemoteLine{}, err
	}
	addr, err := remoteAddr(cfg, r.Addr)
	if err != nil {
		return control.RemoteLine{}, err
	}
	ttl := r.TTL
	if ttl == 0 {
		ttl = defaultInvite
	}
	expires := d.nowMS() + ttl.Milliseconds()
	token, err := d.remote.store.Add(r.Name, remote.Rights{
		Allow: r.Allow, ReadOnly: r.ReadOnly, NameAddresses: r.NameAddresses, Manage: r.Manage,
	}, expires)
	if errors.Is(err, remote.ErrExists) {
		err = control.Conflict(err.Error())
	}
	if err != nil {
		return control.RemoteLine{}, err
	}
	line, err := keys.RemoteLine{Router: d.remote.key.Pin(), Token: token, ExpiresMS: expires, Addr: addr, Name: r.Name}.Text()
	if err != nil {
		return control.RemoteLine{}, err
	}
	d.bus.Publish(event.Event{Kind: event.RemoteAdded, Remote: r.Name, By: byOf(ctx), TTL: ttl})
	return control.RemoteLine{Name: r.Name, Line: line, Expires: time.UnixMilli(expires)}, nil
}

// remoteAddr settles where the other side connects to: as it was asked for, else where we listen, else the router's name.
func remoteAddr(cfg *config.Config, wish string) (string, error) {
	port := strconv.Itoa(int(cfg.Remote.Port()))
	switch {
	case wish == "" && !cfg.Remote.Addr().IsUnspecified():
		wish = cfg.Remote.String()
	case wish == "" && cfg.Hostname != "":
		wish = net.JoinHostPort(cfg.Hostname, port)
	case wish == "":
		return "", &control.UsageError{Text: "which address shall the other side connect to? remote in the configuration is every one: say it with --address"}
	case !keys.ValidAddr(wish):
		wish = net.JoinHostPort(wish, port)
	}
	if !keys.ValidAddr(wish) {
		return "", &control.UsageError{Text: fmt.Sprintf("%q is no address to connect to; write HOST or HOST:PORT", wish)}
	}
	return wish, nil
}

// RemoveRemote implements control.Remotes. It waits for what the remote has under way: it does nothing afterwards.
func (d *Daemon) RemoveRemote(ctx context.Context, name string) (control.Remote, error) {
	gone, err := d.remote.store.Remove(name)
	if errors.Is(err, remote.ErrUnknown) {
		return control.Remote{}, control.Unknown(fmt.Sprintf("no remote is called %q; spad remote list shows them", name))
	}
	if err != nil {
		return control.Remote{}, err
	}
	d.bus.Publish(event.Event{Kind: event.RemoteRemoved, Remote: name, By: byOf(ctx)})
	return describeRemote(gone), d.shutOf(ctx, name)
}
