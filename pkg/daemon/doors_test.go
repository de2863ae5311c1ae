package daemon_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

// backends are the settings of firewall beside which the others are tried.
var backends = []struct {
	name, config string
	programs     []string
}{
	{"nftables", `firewall = "nftables"`, nil},
	{"iptables nft", "firewall = \"iptables\"\niptables = \"nft\"", []string{"iptables-nft", "ip6tables-nft"}},
	{"iptables legacy", "firewall = \"iptables\"\niptables = \"legacy\"", []string{"iptables-legacy", "ip6tables-legacy"}},
}

const doorServices = `
always_allow = ["192.168.1.0/24", "fd00:1::/64"]

[service.own]
open = ["tcp/2201", "udp/2202"]

[service.lan-tcp]
forward = { port = "tcp/2203", to = ["192.168.1.50:3203", "[fd00:1::50]:3203"] }

[service.lan-udp]
forward = { port = "udp/2204", to = ["192.168.1.50:3204", "[fd00:1::50]:3204"] }
`

// doorWay is one way in: a kind of door, by one protocol and family.
type doorWay struct {
	kind, service string
	proto         firewall.Proto
	port          uint16
	v6            bool
}

func doorWays() (all []doorWay) {
	for _, v6 := range []bool{false, true} {
		all = append(all,
			doorWay{"own", "own", firewall.TCP, 2201, v6}, doorWay{"own", "own", firewall.UDP, 2202, v6},
			doorWay{"lan", "lan-tcp", firewall.TCP, 2203, v6}, doorWay{"lan", "lan-udp", firewall.UDP, 2204, v6})
	}
	return all
}

// Patience with what must work, and with what must not. Servers remember whom they saw, however late.
const (
	patient   = 5 * time.Second
	impatient = 250 * time.Millisecond
)

// The tags of servers: who answers.
const (
	byRouter    = 'r'
	byLANHost   = 'l'
	byContainer = 'c'
	byInternet  = 'i'
)

// doors is a rig beside a firewall, with a server behind every way.
type doors struct {
	*rig
	besides
	ways    []doorWay
	servers []*firewalltest.Server
	cells   []map[string]string // by way and column
}

func newDoors(t *testing.T, f besides, config string) *doors {
	t.Helper()
	lacks(t, f.programs...)
	d := &doors{rig: newBareRig(t, ""), besides: f, ways: doorWays()}
	d.host = "router.test"
	d.configure(config + "\n" + doorServices)
	if f.probe != nil {
		f.probe(d.rig)
	}
	if f.published {
		d.container = d.AddHost("container", d.Router, "172.18.0.2", "fd00:2::2")
		d.servers = append(d.servers,
			d.container.Serve(t, firewall.TCP, 80, byContainer), d.container.Serve(t, firewall.UDP, 53, byContainer))
	}
	d.servers = append(d.servers,
		d.Router.Serve(t, firewall.TCP, 2201, byRouter), d.Router.Serve(t, firewall.UDP, 2202, byRouter),
		d.LANHost.Serve(t, firewall.TCP, 3203, byLANHost), d.LANHost.Serve(t, firewall.UDP, 3204, byLANHost))
	d.Laptop.Serve(t, firewall.TCP, 4000, byInternet)
	for range d.ways {
		d.cells = append(d.cells, map[string]string{})
	}
	return d
}

// behind returns who answers at the end of a way.
func (d *doors) behind(w doorWay) byte {
	switch {
	case w.kind == "lan":
		return byLANHost
	case d.published:
		return byContainer
	}
	return byRouter
}

// sourcePort is the last one used, below those that the kernel picks. No two calls have the same, or one would be taken for
// a packet of another's connection, which may live longer than its door.
var sourcePort atomic.Uint32

func init() { sourcePort.Store(10000) }

// call reaches for a server.
func call(h *firewalltest.Host, proto firewall.Proto, to string, tag byte, timeout time.Duration) error {
	v6 := netip.MustParseAddrPort(to).Addr().Is6()
	c, err := h.Call(netip.AddrPortFrom(h.Addr(v6), uint16(sourcePort.Add(1))), proto, to, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Ping(tag, timeout)
}

func (d *doors) call(h *firewalltest.Host, w doorWay, timeout time.Duration) error {
	return call(h, w.proto, d.Router.At(w.v6, w.port), d.behind(w), timeout)
}

// Each of these is a check of one way, by a host.
func (d *doors) open(h *firewalltest.Host) func(doorWay) error {
	return func(w doorWay) error { return d.call(h, w, patient) }
}

func (d *doors) unreached(h *firewalltest.Host) func(doorWay) error {
	return func(w doorWay) error {
		if d.call(h, w, impatient) == nil {
			return errors.New("it is open")
		}
		return nil
	}
}

func (d *doors) silent(h *firewalltest.Host) func(doorWay) error {
	return func(w doorWay) error {
		err := d.call(h, w, impatient)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return nil
		}
		return fmt.Errorf("not silence: %v", err)
	}
}

// shutBy waits until a way is shut, and fails if it is not a second after its time.
func (d *doors) shutBy(h *firewalltest.Host, due time.Time) func(doorWay) error {
	return func(w doorWay) error {
		for ; time.Now().Before(due); time.Sleep(50 * time.Millisecond) {
		}
		for ; ; time.Sleep(20 * time.Millisecond) {
			begun := time.Now()
			if d.call(h, w, impatient) != nil {
				return nil
			}
			if begun.After(due.Add(time.Second)) {
				return fmt.Errorf("open %v after its time", begun.Sub(due).Round(time.Millisecond))
			}
		}
	}
}

// heals waits until a way is again as it was, after the firewall was loaded once more: within the five seconds that spad
// may take where it has to ask.
func (d *doors) heals(w doorWay) (err error) {
	for until := time.Now().Add(6 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if err = errors.Join(d.call(d.Laptop, w, impatient), d.silent(d.Stranger)(w)); err == nil {
			return nil
		}
	}
	return err
}

// each checks all ways at the same time, for a column of the table.
func (d *doors) each(column string, check func(doorWay) error) {
	d.t.Helper()
	errs := make([]error, len(d.ways))
	var wg sync.WaitGroup
	for i, w := range d.ways {
		wg.Go(func() { errs[i] = check(w) })
	}
	wg.Wait()
	for i, err := range errs {
		if w := d.ways[i]; err != nil {
			d.t.Errorf("%s: %s %v, IPv6 %v: %v", column, w.kind, w.proto, w.v6, err)
			d.cells[i][column] = "FAILED"
		} else if d.cells[i][column] == "" {
			d.cells[i][column] = "ok"
		}
	}
}

// alone checks that the firewall does its own work: it keeps the internet out and lets the LAN in and out.
func (d *doors) alone() {
	d.t.Helper()
	d.each("alone", func(w doorWay) error {
		if w.kind == "own" && d.inTheOpen {
			return errors.Join(d.open(d.Stranger)(w), d.fromLAN(w))
		}
		return errors.Join(d.unreached(d.Stranger)(w), d.unreached(d.Laptop)(w), d.unrouted(w), d.fromLAN(w))
	})
}

// fromLAN checks that the LAN gets what it always got.
func (d *doors) fromLAN(w doorWay) error {
	if w.kind == "own" {
		at := d.Router.IP4 // an address that the router's own server answers the LAN from
		if w.v6 {
			at = firewalltest.RouterLAN6
		}
		return call(d.LANHost, w.proto, netip.AddrPortFrom(at, w.port).String(), d.behind(w), patient)
	}
	if d.published && !d.routed { // Docker's own policy keeps the LAN in
		return nil
	}
	return call(d.LANHost, firewall.TCP, d.Laptop.At(w.v6, 4000), byInternet, patient)
}

// unrouted checks that hosts behind the router can't be reached by their addresses.
func (d *doors) unrouted(w doorWay) error {
	if d.routed || w.kind != "lan" {
		return nil
	}
	if call(d.Laptop, w.proto, d.LANHost.At(w.v6, w.port+1000), byLANHost, impatient) == nil {
		return errors.New("the host behind can be reached by its address")
	}
	return nil
}

// strangers counts what the stranger got through.
func (d *doors) strangers() (n int) {
	for _, s := range d.servers {
		n += s.Seen(d.Stranger.IP4) + s.Seen(d.Stranger.IP6)
	}
	return n
}

// noStrangers fails the test if the stranger got more through than he had.
func (d *doors) noStrangers(had int) {
	d.t.Helper()
	if got := d.strangers() - had; got != 0 {
		d.t.Errorf("%d packets of the stranger got through", got)
	}
}

// knock runs the client on the laptop, where the router's name has an address of each family. There is no name server, so
// it must not look for a NAT64: it would wait for that longer than for the second family.
func (d *doors) knock(args ...string) {
	d.t.Helper()
	hosts := filepath.Join(d.dir, "hosts")
	text := fmt.Sprintf("%v %s\n%v %[2]s\n", d.Router.IP4, d.host, d.Router.IP6)
	if err := os.WriteFile(hosts, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	argv := append([]string{
		"--mount", "sh", "-euc", `mount --bind "$1" /etc/hosts; shift; exec "$@"`, "sh", hosts,
		d.bin + "/knock", "--config", filepath.Join(d.dir, "laptop"),
	}, args...)
	out, err := d.Laptop.Command("unshare", argv...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "DATA RACE") {
		d.t.Errorf("knock %v: %v\n%s", args, err, out)
	}
}

// withoutLine checks what the one static line is for: without it, the firewall keeps out whom spad lets in.
func (d *doors) withoutLine() {
	d.t.Helper()
	d.start()
	d.each("dropped", func(w doorWay) error {
		out, errs, code := d.spad("open", w.service, "--from", d.Laptop.Addr(w.v6).String(), "--ttl", "10m")
		if code != 0 {
			return fmt.Errorf("spad open: exit code %d\n%s%s", code, out, errs)
		}
		return nil
	})
	d.each("dropped", func(w doorWay) error {
		if d.dropped == "both" || d.dropped == w.kind {
			return d.unreached(d.Laptop)(w)
		}
		return d.open(d.Laptop)(w)
	})
	d.kill(syscall.SIGTERM)
	d.must("down")
}

// Beside every firewall that people have: shut, open after a knock, shut again, and nothing of theirs touched.
func TestDoors(t *testing.T) {
	every := everyBackend(func(besides) bool { return true })
	lines := make([][]string, len(every)) // each written by one test
	t.Cleanup(func() { printDoors(t, slices.Concat(lines...)) })
	var all []subtest
	for i, row := range every {
		all = append(all, subtest{row.name, func(t *testing.T) {
			var d *doors
			t.Cleanup(func() { lines[i] = d.table(t, row) })
			d = newDoors(t, row.besides, row.config)
			d.life(row.backend != "nftables")
		}})
	}
	atOnce(t, all)
}

// beside is a firewall and a backend.
type beside struct {
	besides
	name, backend, config string
}

func everyBackend(wanted func(besides) bool) (all []beside) {
	for _, f := range firewalls {
		for _, b := range backends {
			if wanted(f) {
				row := beside{f, f.name + "/" + b.name, b.name, b.config}
				row.programs = slices.Concat(f.programs, b.programs)
				all = append(all, row)
			}
		}
	}
	return all
}

// subtest is a test within a test.
type subtest struct {
	name string
	run  func(*testing.T)
}

// atOnce runs a dozen tests at the same time, however many processors there are: what they wait for is the kernel's clock.
func atOnce(t *testing.T, all []subtest) {
	t.Helper()
	turns := make(chan struct{}, 12)
	var wg sync.WaitGroup
	for _, s := range all {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			t.Run(s.name, s.run)
		})
	}
	wg.Wait()
}

// life is spad's whole life beside a firewall.
func (d *doors) life(iptables bool) {
	d.load(d.rig)
	d.alone()
	if d.allow != nil {
		d.withoutLine()
		d.allow(d.rig)
		d.inTheOpen = d.inTheOpen || d.lineOpens
		d.alone()
	}
	tidy := func(s string) string { return s }
	if iptables {
		tidy = withoutBuiltins
	}
	before := d.foreign()

	d.start()
	seen := d.strangers()
	d.each("shut", d.silent(d.Laptop))
	d.knock("enroll", strings.TrimSpace(d.must("invite", "laptop", "--allow", "own,lan-tcp,lan-udp", "--no-qr")))
	d.knock("own", "lan-tcp", "lan-udp", "--no-address")
	d.each("opens", d.open(d.Laptop))
	d.noStrangers(seen)
	d.again(d.rig)
	d.each("reload", d.heals)
	if !iptables {
		before = d.foreign()
	}
	seen = d.strangers()
	d.each("others", func(w doorWay) error { return errors.Join(d.silent(d.Stranger)(w), d.unrouted(w), d.fromLAN(w)) })
	d.knock("close", "own", "lan-tcp", "lan-udp")
	d.each("close", d.silent(d.Laptop))
	d.knock("own", "lan-tcp", "lan-udp", "--ttl", "8s", "--no-address")
	due := time.Now().Add(8 * time.Second)
	d.each("opens", d.open(d.Laptop))
	if now := d.foreign(); !iptables && now != before {
		d.t.Errorf("foreign rules, while spad runs:\n%s\nwere:\n%s", now, before)
	}
	d.kill(syscall.SIGKILL) // the kernel alone ends what is open
	d.each("expiry", d.shutBy(d.Laptop, due))
	d.each("others", d.silent(d.Stranger))
	d.noStrangers(seen)

	d.must("down")
	after := d.foreign()
	d.each("foreign", func(doorWay) error {
		if tidy(after) != tidy(before) {
			return fmt.Errorf("foreign rules are\n%s\nwere\n%s", after, before)
		}
		return nil
	})
	d.alone()
}

var doorColumns = []string{"alone", "dropped", "shut", "opens", "reload", "close", "expiry", "others", "foreign"}

// table returns the rows of one firewall.
func (d *doors) table(t *testing.T, b beside) (rows []string) {
	if d == nil || t.Skipped() {
		return []string{b.besides.name + "\t" + b.backend + strings.Repeat("\t-", 3+len(doorColumns)) + "\tnot here: see go test -v\n"}
	}
	for i, w := range d.ways {
		family := map[bool]string{false: "IPv4", true: "IPv6"}[w.v6]
		row := []string{b.besides.name, b.backend, w.kind, w.proto.String(), family}
		for _, column := range doorColumns {
			cell := d.cells[i][column]
			if cell == "" {
				cell = "-"
			}
			row = append(row, cell)
		}
		rows = append(rows, strings.Join(row, "\t")+"\n")
	}
	return rows
}

// printDoors writes the table to the file that make doors prints.
func printDoors(t *testing.T, rows []string) {
	name := os.Getenv("DOORS_TABLE")
	if name == "" {
		return
	}
	file, err := os.Create(name)
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	w := tabwriter.NewWriter(file, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "beside\tbackend\tdoor\tover\tfamily\t%s\n%s", strings.Join(doorColumns, "\t"), strings.Join(rows, ""))
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
}
