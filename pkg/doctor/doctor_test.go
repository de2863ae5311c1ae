package doctor_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/doctor"
	"spad/pkg/firewall/foreign"
)

// body is a healthy machine; a test makes it ill.
type body struct {
	files     map[string]string
	addresses []doctor.Address
	uplinks   map[bool][]doctor.Link
	toward    map[string]doctor.Link
	policy    bool
	names     map[string][]string // by host and family
	lookupErr error
	free      uint64
	writeErr  error
	now       time.Time
	unsynced  bool
	rules     foreign.Rules
	missing   []string
	untold    []string
	lackErr   error
	queue     int
	patient   doctor.Patient
}

var (
	wan = doctor.Link{Name: "wan", Index: 2}
	lte = doctor.Link{Name: "lte", Index: 3}
	lan = doctor.Link{Name: "lan", Index: 4}
)

func (b *body) Read(path string) (string, error) {
	if text, ok := b.files[path]; ok {
		return text, nil
	}
	return "", fs.ErrNotExist
}
func (b *body) Owner(string) string                           { return "dnsmasq (pid 812)" }
func (b *body) Addresses() ([]doctor.Address, error)          { return b.addresses, nil }
func (b *body) Uplinks(v6 bool) ([]doctor.Link, error)        { return b.uplinks[v6], nil }
func (b *body) PolicyRules() (bool, error)                    { return b.policy, nil }
func (b *body) Space(string) (bytes, files uint64, err error) { return b.free, 1 << 20, nil }
func (b *body) Writable(string) error                         { return b.writeErr }

func (b *body) Toward(a netip.Addr) (doctor.Link, error) {
	if l, ok := b.toward[a.String()]; ok {
		return l, nil
	}
	return doctor.Link{}, errors.New("network is unreachable")
}

func (b *body) Lookup(_ context.Context, v6 bool, host string) (found []netip.Addr, err error) {
	for _, a := range b.names[host] {
		if a := netip.MustParseAddr(a); a.Is6() == v6 {
			found = append(found, a)
		}
	}
	if b.lookupErr != nil {
		return nil, b.lookupErr
	}
	if len(found) == 0 {
		err = &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return found, err
}

func (b *body) has(a ...string) {
	b.addresses = nil
	for _, one := range a {
		b.addresses = append(b.addresses, doctor.Address{Link: wan, Addr: netip.MustParseAddr(one)})
	}
}

const udpTable = "sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"  12: 00000000:A19C 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n"

func healthy(t *testing.T) *body {
	t.Helper()
	dir := t.TempDir()
	cfg, err := config.Parse(dir+"/spad.toml", []byte("listen = \":41372\"\nhostname = \"home.test\"\n"+services))
	if err != nil {
		t.Fatal(err)
	}
	b := &body{
		files: map[string]string{
			"/proc/thread-self/net/udp": udpTable, "/proc/thread-self/net/tcp": udpTable,
			"/proc/sys/net/ipv4/ip_forward": "1", "/proc/sys/net/ipv6/conf/all/forwarding": "1",
			"/proc/sys/net/netfilter/nf_conntrack_count": "10", "/proc/sys/net/netfilter/nf_conntrack_max": "1000",
			"/proc/sys/net/netfilter/nf_conntrack_tcp_loose": "1",
		},
		uplinks: map[bool][]doctor.Link{false: {wan}, true: {wan}},
		toward:  map[string]doctor.Link{"192.168.1.50": lan, "fd00:1::50": lan},
		names:   map[string][]string{"home.test": {"203.0.113.1", "2001:db8:1::1"}},
		free:    1 << 30, now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), queue: 1 << 20,
	}
	b.has("203.0.113.1", "2001:db8:1::1")
	b.patient = doctor.Patient{
		Config: cfg, StateDir: dir, Filter: "nftables", Held: []string{"nftables"},
		Daemon: &doctor.Daemon{Listen: ":41372", Firewall: "nftables", Started: b.now, KnockClock: b.now},
	}
	return b
}

func (b *body) examine(t *testing.T) []doctor.Finding {
	p := b.patient
	p.World = &doctor.World{
		Files: b, Network: b, Disk: b,
		Clock:   func() (time.Time, bool, error) { return b.now, !b.unsynced, nil },
		Rules:   func() *foreign.Rules { return &b.rules },
		Lacking: func() (missing, untold []string, err error) { return b.missing, b.untold, b.lackErr },
		Queue:   func() (int, int, error) { return 1 << 20, b.queue, nil },
	}
	return doctor.Examine(t.Context(), p)
}

func TestExamine(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ill    func(*body)
		check  string
		level  doctor.Level
		what   string
		remedy string
	}{
		{"runs", func(*body) {}, "daemon", doctor.OK, "spad runs since 2026-11-25 12:00:00Z", ""},
		{"listens", func(*body) {}, "port", doctor.OK, "spad listens on udp/41372", ""},
		{"does not run", func(b *body) { b.patient.Daemon = nil }, "daemon", doctor.Fail, "nobody reads knocks", "spad run"},
		{"may run", func(b *body) { b.patient.Daemon, b.patient.DaemonErr = nil, errors.New("no permission") }, "daemon", doctor.Warn, "could not look at", "root"},
		{"listens elsewhere", func(b *body) { b.patient.Daemon.Listen = ":4" }, "daemon", doctor.Fail, "listens on :4, and the configuration says :41372", "restart"},
		{"port taken", func(b *body) { b.patient.Daemon = nil }, "port", doctor.Fail, "udp/41372 is taken by dnsmasq (pid 812)", "ss -ulpn"},
		{"port lost", func(b *body) { b.files["/proc/thread-self/net/udp"] = "head" }, "port", doctor.Fail, "nobody listens on udp/41372", ""},
		{"other filter", func(b *body) { b.patient.Daemon.Firewall = "iptables nft" }, "filter", doctor.Warn, "uses iptables nft", "restart"},
		{"rules left", func(b *body) { b.patient.Held = append(b.patient.Held, "iptables legacy") }, "filter", doctor.Fail, "left in iptables legacy too", "spad down"},
		{"unsynchronised", func(b *body) { b.unsynced = true }, "clock", doctor.Warn, "follows no time source", "time daemon"},
		{"year", func(b *body) { b.now = time.Unix(86400, 0) }, "clock", doctor.Fail, "the year 1970", "set it"},
		{"clock set back", func(b *body) { b.patient.Daemon.KnockClock = b.now.Add(time.Hour) }, "journal", doctor.Warn, "1h0m0s ahead", ""},
		{"queue", func(b *body) { b.queue = 200 << 10 }, "queue", doctor.Warn, "gets 200 KiB and not 1024", "net.core.rmem_max=1048576"},
		{"kernel", func(b *body) { b.missing = []string{"sets", "maps"} }, "kernel", doctor.Fail, "has no sets, no maps", "install"},
		{"modules", func(b *body) { b.untold = []string{"xt_set"} }, "kernel", doctor.Warn, "modules xt_set", ""},
		{"no kernel", func(b *body) { b.lackErr = errors.New("no nf_tables") }, "kernel", doctor.Fail, "no nf_tables", ""},
		{"not allowed", func(b *body) { b.lackErr = syscall.EPERM }, "kernel", doctor.Warn, "could not look at", "root"},
		{"full disk", func(b *body) { b.free = 4 << 10 }, "state", doctor.Fail, "4 KiB", "make room"},
		{"read-only disk", func(b *body) { b.writeErr = syscall.EROFS }, "state", doctor.Fail, "read-only file system", "mount the disk for writing"},
		{"conntrack full", func(b *body) { b.files["/proc/sys/net/netfilter/nf_conntrack_count"] = "990" }, "conntrack", doctor.Fail, "990 of 1000", "nf_conntrack_max=2000"},
		{"conntrack nearly full", func(b *body) { b.files["/proc/sys/net/netfilter/nf_conntrack_count"] = "800" }, "conntrack", doctor.Warn, "800 of 1000", "nf_conntrack_max=2000"},
		{"not loose", func(b *body) { b.files["/proc/sys/net/netfilter/nf_conntrack_tcp_loose"] = "0" }, "conntrack", doctor.Warn, "tcp_loose is off", "tcp_loose=1"},
		{"no forwarding", func(b *body) { b.files["/proc/sys/net/ipv4/ip_forward"] = "0" }, "forward", doctor.Fail, "forwards no IPv4: no door to a host behind opens (nas)", "net.ipv4.ip_forward=1"},
		{"no forwarding of IPv6", func(b *body) { b.files["/proc/sys/net/ipv6/conf/all/forwarding"] = "0" }, "forward", doctor.Fail, "forwards no IPv6", "net.ipv6.conf.all.forwarding=1"},
		{"no route", func(b *body) { delete(b.toward, "192.168.1.50") }, "forward", doctor.Fail, "nas: there is no route to 192.168.1.50:80", ""},
		{"wrong route", func(b *body) { b.toward["192.168.1.50"] = wan }, "forward", doctor.Warn, "would leave by the uplink wan", ""},
		{"offload", func(b *body) { b.rules.Flowtables = []string{"inet fw4 ft"} }, "offload", doctor.Warn, "(inet fw4 ft)", "keep spad running"},
		{"rp_filter", func(b *body) { strict(b) }, "rp_filter", doctor.Fail, "strict on lte", "sysctl -w net.ipv4.conf.lte.rp_filter=2"},
		{"rp_filter with policy routes", func(b *body) { strict(b); b.policy = true }, "rp_filter", doctor.Warn, "strict on lte", ""},
		{"rp_filter loose for all", func(b *body) { strict(b); b.files["/proc/sys/net/ipv4/conf/all/rp_filter"] = "2" }, "rp_filter", doctor.OK, "loose on 2 uplinks", ""},
		{"no listener", func(b *body) { b.files["/proc/thread-self/net/tcp"] = "head" }, "service", doctor.Warn, "nobody listens on tcp/2222", ""},

		{"NAT", func(b *body) { b.has("192.168.178.2", "2001:db8:1::1") }, "address", doctor.Warn, "IPv4: 192.168.178.2 is private", "forward udp/41372"},
		{"CGNAT", func(b *body) { b.has("100.64.3.4") }, "address", doctor.Fail, "shares among customers", "or knock over IPv6"},
		{"CGNAT and IPv6", func(b *body) { b.has("100.64.3.4", "2001:db8:1::1") }, "address", doctor.Warn, "shares among customers", ""},
		{"offline", func(b *body) { b.uplinks = nil }, "address", doctor.Fail, "IPv4: there is no way to the internet", ""},
		{"no IPv6", func(b *body) { b.has("203.0.113.1"); b.uplinks[true] = nil }, "address", doctor.Warn, "IPv6: there is no way", "nothing to do"},
		{"ULA", func(b *body) { b.has("203.0.113.1", "fd00::2") }, "address", doctor.Warn, "IPv6: fd00::2 is for this site alone", "nothing to do"},
		{"no address", func(b *body) { b.has("2001:db8:1::1") }, "address", doctor.Warn, "IPv4: the uplink has no address", ""},

		{"name", func(*body) {}, "hostname", doctor.OK, "home.test points here: 203.0.113.1", ""},
		{"name elsewhere", func(b *body) { b.names["home.test"] = []string{"198.51.100.9", "2001:db8:1::1"} }, "hostname", doctor.Fail, "points elsewhere over IPv4: to 198.51.100.9", "set its IPv4 address to 203.0.113.1"},
		{"name elsewhere behind NAT", func(b *body) { b.has("192.168.178.2") }, "hostname", doctor.Warn, "points to 203.0.113.1, which is not this machine", "the router before this one"},
		{"name for a family that is not here", func(b *body) { b.has("203.0.113.1") }, "hostname", doctor.Fail, "this machine has no IPv6 address", "AAAA"},
		{"name without IPv6", func(b *body) { b.names["home.test"] = []string{"203.0.113.1"} }, "hostname", doctor.Warn, "has no IPv6 address, and this machine has one", "AAAA record with 2001:db8:1::1"},
		{"unknown name", func(b *body) { b.names = nil }, "hostname", doctor.Fail, "home.test has no address", "A or AAAA"},
		{"no resolver", func(b *body) { b.lookupErr = &net.DNSError{Err: "connection refused"} }, "hostname", doctor.Warn, "could not be looked up for IPv4 here: connection refused", "/etc/resolv.conf"},

		{"nobody enrolled", func(*body) {}, "devices", doctor.Warn, "no device is enrolled", "spad invite"},
		{"expired", func(b *body) { b.devices(`expires = 2020-01-01T00:00:00Z`) }, "devices", doctor.Warn, "laptop has expired (2020-01-01T00:00:00Z)", ""},
		{"disabled", func(b *body) { b.devices(`disabled = true`) }, "devices", doctor.Warn, "laptop is disabled", ""},
		{"enrolled", func(b *body) { b.devices("") }, "devices", doctor.OK, "1 may knock", ""},
		{"rules not readable", func(b *body) { b.rules.Untold = []string{"the rules in nf_tables: run this as root"} }, "firewall", doctor.Warn, "could not look at the rules", "by hand"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := healthy(t)
			tt.ill(b)
			all := b.examine(t)
			for _, f := range all {
				if f.Check == tt.check && f.Level == tt.level && strings.Contains(f.What, tt.what) && strings.Contains(f.Remedy, tt.remedy) {
					if f.Level != doctor.OK && f.Remedy == "" && f.Check != "kernel" {
						t.Errorf("no remedy: %v", f)
					}
					return
				}
			}
			t.Errorf("want %v %s: %q, %q in %v", tt.level, tt.check, tt.what, tt.remedy, all)
		})
	}
}

// Of a healthy machine nothing is said to be wrong but that it has no key yet.
func TestHealthy(t *testing.T) {
	for _, f := range healthy(t).examine(t) {
		if f.Level == doctor.Fail && f.Check != "key" {
			t.Errorf("%v", f)
		}
	}
}

func strict(b *body) {
	b.uplinks[false] = []doctor.Link{wan, lte}
	b.files["/proc/sys/net/ipv4/conf/all/rp_filter"] = "0"
	b.files["/proc/sys/net/ipv4/conf/wan/rp_filter"] = "2"
	b.files["/proc/sys/net/ipv4/conf/lte/rp_filter"] = "1"
}

// devices gives the configuration one device.
func (b *body) devices(more string) {
	k, err := keys.GenerateDevice(strings.NewReader(strings.Repeat("seed", 64)))
	if err != nil {
		panic(err)
	}
	text := "listen = \":41372\"\nhostname = \"home.test\"\n" + services +
		"\n[device.laptop]\nkey = \"" + k.Public().String() + "\"\nallow = [\"ssh\"]\n" + more + "\n"
	cfg, err := config.Parse(b.patient.Config.Path, []byte(text))
	if err != nil {
		panic(err)
	}
	b.patient.Config = cfg
}

func TestWorst(t *testing.T) {
	if doctor.Worst(nil) != doctor.OK || doctor.Worst([]doctor.Finding{{Level: doctor.Fail}, {Level: doctor.Warn}}) != doctor.Fail {
		t.Error("the worst is not the worst")
	}
}
