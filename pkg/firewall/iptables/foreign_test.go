package iptables

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

// TestForeignMention: rules of others that speak of our chains, and one of somebody's that leads to one with words of his own.
func TestForeignMention(t *testing.T) {
	l := firewalltest.NewLab(t)
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			run := func(args ...string) string {
				t.Helper()
				out, err := l.Router.Command("iptables-"+variant, args...).CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %v: %s", args, err, out)
				}
				return string(out)
			}
			b := connect(t, l, variant)
			must(t, b.Apply(rules(), nil))
			for _, comment := range []string{"not -j spad.0-guard", "-j spad.0-guard", `"-j spad.0-guard `, "it's\t-j spad.0-guard"} {
				run("-t", "mangle", "-A", "PREROUTING", "-m", "comment", "--comment", comment, "-j", "RETURN")
				run("-t", "mangle", "-A", "PREROUTING", "-m", "comment", "--comment", comment)
			}
			foreign := run("-t", "mangle", "-S", "PREROUTING")
			foreign = foreign[strings.Index(foreign, "spad.0-guard\n")+len("spad.0-guard\n"):]
			run("-t", "mangle", "-I", "PREROUTING", "-i", "none0", "-m", "comment", "--comment", `put "here" by hand`, "-j", "spad.0-guard")
			must(t, b.Apply(rules(), nil))
			must(t, b.Down())
			if left := run("-t", "mangle", "-S", "PREROUTING"); left != "-P PREROUTING ACCEPT\n"+foreign {
				t.Errorf("was:\n%sis:\n%s", foreign, left)
			}
		})
	}
}

// TestMarkOverwritten: behind our rule in mangle others set a whole mark, and they let in what has ours. The first packet of
// a connection has it again from nat; later ones they accept because it is established.
func TestMarkOverwritten(t *testing.T) {
	const tag, patience = 'm', 5 * time.Second
	l := firewalltest.NewLab(t)
	for i, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			port := uint16(2001 + 10*i)
			r := firewall.Ruleset{Mark: 1 << 20, KnockPort: port + 1, Services: []firewall.Service{
				{Name: "open", Open: []firewall.Ports{{Proto: firewall.TCP, First: port, Last: port}}},
				{Name: "forward", Forward: &firewall.Forward{
					Port: firewall.Ports{Proto: firewall.TCP, First: port + 2, Last: port + 2}, To4: netip.AddrPortFrom(l.LANHost.IP4, port),
				}},
				{Name: "hole", Forward: &firewall.Forward{
					Port: firewall.Ports{Proto: firewall.TCP, First: port, Last: port}, Hole: firewall.Hole{Addr: l.LANHost.IP6, Bits: 128},
				}},
			}}
			l.Router.Serve(t, firewall.TCP, port, tag)
			l.Router.Serve(t, firewall.UDP, port+1, tag)
			l.LANHost.Serve(t, firewall.TCP, port, tag)
			b := connect(t, l, variant)
			from := netip.PrefixFrom(l.Laptop.IP4, 32)
			must(t, b.Apply(r, []firewall.Door{
				{Service: "open", Source: from, TTL: time.Hour},
				{Service: "forward", Source: from, TTL: time.Hour},
				{Service: "hole", Source: netip.PrefixFrom(l.Laptop.IP6, 128), TTL: time.Hour},
			}))
			rules := "*mangle\n-A PREROUTING -j MARK --set-xmark 0x5/0xffffffff\nCOMMIT\n*filter\n"
			for _, chain := range []string{"INPUT", "FORWARD"} {
				for _, rule := range []string{"-m conntrack --ctstate ESTABLISHED -j ACCEPT", "-m mark --mark 0x100005 -j ACCEPT", "! -p ipv6-icmp -j DROP"} {
					rules += "-A " + chain + " " + rule + "\n"
				}
			}
			for _, f := range b.families {
				must(t, f.table.restore(rules+"COMMIT\n"))
				t.Cleanup(func() { must(t, f.table.restore(strings.ReplaceAll(rules, "-A ", "-D ")+"COMMIT\n")) })
			}
			for to, proto := range map[string]firewall.Proto{
				l.Router.At(false, port): firewall.TCP, l.Router.At(false, port+1): firewall.UDP, l.Router.At(false, port+2): firewall.TCP,
				l.LANHost.At(true, port): firewall.TCP,
			} {
				c, err := l.Laptop.Call(netip.AddrPort{}, proto, to, patience)
				if err == nil {
					defer c.Close()
					err = c.Ping(tag, patience)
				}
				if err != nil {
					t.Errorf("%v at %s: %v", proto, to, err)
				}
			}
			must(t, b.Down())
		})
	}
}

// TestForeignDNAT: others accept everything, and translate every port to a host, as Docker does with those that are
// published. Their rules are behind ours, also those that were there first: they get what came by a door, and nothing else.
func TestForeignDNAT(t *testing.T) {
	const tag, port, patience, enough = 'd', 2001, 5 * time.Second, 300 * time.Millisecond
	l := firewalltest.NewLab(t)
	l.LANHost.Serve(t, firewall.TCP, port, tag)
	ports := func(n uint16) firewall.Ports { return firewall.Ports{Proto: firewall.TCP, First: n, Last: n} }
	other := netip.AddrPortFrom(l.LANHost.IP4, port+100) // nobody is there
	r := firewall.Ruleset{Mark: 1, AlwaysAllow: []netip.Prefix{netip.PrefixFrom(l.Laptop.IP4, 32)}, Services: []firewall.Service{
		{Name: "drop", Open: []firewall.Ports{ports(2001)}},
		{Name: "reject", Open: []firewall.Ports{ports(2002)}, Guard: firewall.GuardReject},
		{Name: "elsewhere", Forward: &firewall.Forward{Port: ports(2003), To4: other}, Guard: firewall.GuardReject},
		{Name: "other-family", Forward: &firewall.Forward{Port: ports(2004), To6: netip.MustParseAddrPort("[fd00::1]:1")}},
	}}
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := connect(t, l, variant)
			rules := "*mangle\n-A PREROUTING -j ACCEPT\nCOMMIT\n*filter\n-A INPUT -j ACCEPT\nCOMMIT\n*nat\n" +
				"-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j DNAT --to-destination " + netip.AddrPortFrom(l.LANHost.IP4, port).String() +
				"\nCOMMIT\n"
			must(t, b.families[0].table.restore(rules))
			must(t, b.Apply(r, nil))
			for _, c := range []struct {
				from *firewalltest.Host
				port uint16
				open bool
			}{
				{l.Laptop, 2001, true},
				{l.Laptop, 2002, true},
				{l.Laptop, 2003, false},
				{l.Laptop, 2004, false},
				{l.Stranger, 2001, false},
				{l.Stranger, 2002, false},
				{l.Stranger, 2003, false},
				{l.Stranger, 2004, false},
				{l.Stranger, 2005, true}, // nobody's: the test's rule works
			} {
				timeout := enough
				if c.open {
					timeout = patience
				}
				call, err := c.from.Call(netip.AddrPort{}, firewall.TCP, l.Router.At(false, c.port), timeout)
				if err == nil {
					err = call.Ping(tag, timeout)
					_ = call.Close()
				}
				if (err == nil) != c.open {
					t.Errorf("the %s to port %d: %v", c.from.Name, c.port, err)
				}
			}
			must(t, b.families[0].table.restore(strings.ReplaceAll(rules, "-A ", "-D ")))
			must(t, b.Down())
		})
	}
}

// TestForeignChain: a chain of somebody else's leads to one of ours, which can't be removed then. The new rules hold all the
// same, and once it is gone so is all that was left.
func TestForeignChain(t *testing.T) {
	l := firewalltest.NewLab(t)
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := connect(t, l, variant)
			must(t, b.Apply(rules(), nil))
			v4 := b.families[0].table
			must(t, v4.restore("*mangle\n:theirs - [0:0]\n-A theirs -j spad.0-guard\nCOMMIT\n"))
			for _, err := range []error{b.Apply(rules(), nil), b.Down()} {
				if err == nil || !strings.Contains(err.Error(), "-t mangle -D theirs -j spad.0-guard") {
					t.Errorf("a chain that is in use: %v", err)
				}
			}
			must(t, v4.restore("*mangle\n-F theirs\n-X theirs\nCOMMIT\n"))
			must(t, b.Down())
			old, err := b.families[0].survey()
			if err != nil || len(old.chains) != 0 {
				t.Errorf("left: %v, %v", old.chains, err)
			}
		})
	}
}
