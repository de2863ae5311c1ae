package daemon

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/event"
	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
	"spad/pkg/flood"
	"spad/pkg/session"
	"spad/pkg/wire"
)

// stopwatch is a backend that notes when a door was open in the kernel.
type stopwatch struct {
	firewall.Backend
	opened atomic.Int64 // when, by monotonic
}

func (s *stopwatch) Open(doors ...firewall.Door) error {
	err := s.Backend.Open(doors...)
	s.opened.Store(int64(monotonic()))
	return err
}

// arrivals is a daemon on the real kernel, in this process and its namespace, and one delegate that knocks over
// loopback, for another address every time.
type arrivals struct {
	watch  *stopwatch
	bus    *event.Bus
	conn   net.Conn
	sealer *wire.Sealer
	by     keys.DeviceSecret
	knocks uint32
	lastMS int64
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newArrivals(b *testing.B) *arrivals {
	b.Helper()
	dir := b.TempDir()
	router, by := must(keys.GenerateRouter(rand.Reader)), must(keys.GenerateDevice(rand.Reader))
	text := fmt.Sprintf(`
listen = ":41372"
hostname = "router.test"
test_loopback = true
[service.ssh]
open = ["tcp/22"]
[device.backend]
key = %q
allow = ["ssh"]
delegate = true
`, by.Public())
	path := filepath.Join(dir, "spad.toml")
	if err := keys.WriteRouterFile(filepath.Join(dir, "router.key"), router); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		b.Fatal(err)
	}
	cfg.Limits = generous
	a := &arrivals{sealer: wire.NewSealer(router.Public()), by: by}
	port := a.run(b, Options{Config: cfg, StateDir: dir, Log: slog.New(slog.DiscardHandler)})
	a.conn, err = net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.conn.Close() })
	return a
}

// generous limits let a benchmark knock as often as it can.
var generous = flood.Limits{Source: flood.Rate{PerSecond: 1e9, Burst: 1 << 30}, Global: flood.Rate{PerSecond: 1e9, Burst: 1 << 30}}

// run is Run with the watch between the table and the firewall, and without the control socket.
func (a *arrivals) run(b *testing.B, o Options) uint16 {
	b.Helper()
	d := &Daemon{o: o, log: o.Log, bus: event.NewBus(o.Log), started: time.Now(), queue: make(chan job, queueLength), past: newPast()}
	d.cfg.Store(o.Config)
	a.bus = d.bus
	closers := &closers{}
	b.Cleanup(func() { closers.close() })
	if err := d.prepare(closers); err != nil {
		b.Fatal(err)
	}
	a.watch = &stopwatch{Backend: d.backend}
	d.table = session.New(session.Options{
		Backend: a.watch, Bus: d.bus, Log: d.log, File: SessionsFile(o.StateDir), BootID: bootID(), Now: bootTime,
	})
	if err := d.table.Start(d.ruleset(o.Config), d.limit(o.Config, d.registry.Roster())); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.table.Run(ctx) })
	group.Go(func() error { return d.udp.Run(ctx, d.read) })
	group.Go(func() error { return d.housekeep(ctx) })
	for range workers() {
		group.Go(func() error { return d.work(ctx) })
	}
	b.Cleanup(func() { stop(); group.Wait() })
	return d.udp.Port()
}

// knock sends one packet and waits for the answer. It returns how long the door took from before the packet was sent.
func (a *arrivals) knock(b *testing.B) time.Duration {
	a.knocks++
	a.lastMS = max(time.Now().UnixMilli(), a.lastMS+1)
	m := wire.Message{
		Op: wire.OpOpen, WantAnswer: true, Service: wire.ServiceIDOf("ssh"), TimeMS: a.lastMS,
		Address: netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0xc6120000+a.knocks%(1<<17)))), // 198.18.0.0/15
	}
	p, w, err := a.sealer.Seal(m, a.by, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	var buf [512]byte
	a.conn.SetDeadline(time.Now().Add(5 * time.Second))
	arrived := monotonic()
	if _, err := a.conn.Write(p[:]); err != nil {
		b.Fatal(err)
	}
	n, err := a.conn.Read(buf[:])
	if err != nil {
		b.Fatal(err)
	}
	if answer, err := w.OpenAnswer(buf[:n]); err != nil || answer.Status != wire.Opened {
		b.Fatal(answer.Status, err)
	}
	return time.Duration(a.watch.opened.Load()) - arrived
}

// floor is the least that a door can cost: verifying a packet, one block on the disk, one element in the kernel.
type floor struct {
	curve func() bool
	file  *os.File
	conn  *nftables.Conn
	set   *nftables.Set
	n     uint32
}

func newFloor(b *testing.B) *floor {
	b.Helper()
	key, other := must(ecdh.X25519().GenerateKey(rand.Reader)), must(ecdh.X25519().GenerateKey(rand.Reader))
	public, signer := must2(ed25519.GenerateKey(rand.Reader))
	text := make([]byte, 112)
	sig := ed25519.Sign(signer, text)
	f := &floor{curve: func() bool {
		_, err := key.ECDH(other.PublicKey())
		return err == nil && ed25519.Verify(public, text, sig)
	}}
	f.file = must(os.Create(filepath.Join(b.TempDir(), "blocks")))
	f.conn = must(nftables.New(nftables.AsLasting()))
	b.Cleanup(func() { f.file.Close(); f.conn.CloseLasting() })
	table := f.conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "floor"})
	f.set = &nftables.Set{Table: table, Name: "floor", KeyType: nftables.TypeIPAddr, HasTimeout: true}
	if err := f.conn.AddSet(f.set, nil); err != nil {
		b.Fatal(err)
	}
	if err := f.conn.Flush(); err != nil {
		b.Fatal(err)
	}
	return f
}

func must2[A, B any](a A, b B, err error) (A, B) {
	if err != nil {
		panic(err)
	}
	return a, b
}

// steps takes one of each, in the order of a knock, and returns how long each took.
func (f *floor) steps(b *testing.B) (took [3]time.Duration) {
	f.n++
	at := monotonic()
	for i, step := range []func() error{
		func() error {
			if !f.curve() {
				return fmt.Errorf("no good signature")
			}
			return nil
		},
		func() error {
			if _, err := f.file.Write(make([]byte, 64)); err != nil {
				return err
			}
			return unix.Fdatasync(int(f.file.Fd()))
		},
		func() error {
			key := binary.BigEndian.AppendUint32(nil, 0xc6120000+f.n)
			if err := f.conn.SetAddElements(f.set, []nftables.SetElement{{Key: key, Timeout: time.Hour}}); err != nil {
				return err
			}
			return f.conn.Flush()
		},
	} {
		if err := step(); err != nil {
			b.Fatal(err)
		}
		now := monotonic()
		took[i], at = now-at, now
	}
	return took
}

// BenchmarkArrival reports how long the daemon takes from the sending of a packet until the door is open in the kernel,
// against verifying one packet, one append with fdatasync on the same disk and one write to nf_tables, in turns.
func BenchmarkArrival(b *testing.B) {
	firewalltest.NewLab(b) // skips where there are no namespaces
	a, f := newArrivals(b), newFloor(b)
	var ours, bare []time.Duration
	var steps [3][]time.Duration
	for b.Loop() {
		ours = append(ours, a.knock(b))
		took := f.steps(b)
		bare = append(bare, took[0]+took[1]+took[2])
		for i := range steps {
			steps[i] = append(steps[i], took[i])
		}
	}
	b.ReportMetric(median(ours), "us/door")
	b.ReportMetric(median(bare), "us/floor")
	for i, name := range []string{"verify", "disk", "kernel"} {
		b.ReportMetric(median(steps[i]), "us/"+name)
	}
	b.ReportMetric(median(ours)/median(bare), "ratio")
}

// median returns microseconds.
func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2]) / float64(time.Microsecond)
}
