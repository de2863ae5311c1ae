package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"spad/pkg/firewall"
)

func TestLockout(t *testing.T) {
	ssh := firewall.Service{Name: "ssh", Open: []firewall.Ports{{Proto: firewall.TCP, First: 20, Last: 25}}}
	off := ssh
	off.Guard = firewall.GuardOff
	udp := firewall.Service{Name: "udp", Open: []firewall.Ports{{Proto: firewall.UDP, First: 22, Last: 22}}}
	jump := firewall.Forward{Port: firewall.Ports{Proto: firewall.TCP, First: 22, Last: 22}, To4: netip.MustParseAddrPort("192.168.1.50:22")}
	forward := firewall.Service{Name: "jump", Forward: &jump}
	const from4, from6 = "192.0.2.7 50000 192.0.2.1 22", "2001:db8::7 50000 2001:db8::1 22"
	for _, test := range []struct {
		name       string
		service    firewall.Service
		always     string
		connection string
		refused    bool
	}{
		{"guarded", ssh, "", from4, true},
		{"guarded, IPv6", ssh, "", from6, true},
		{"a forward takes the port", forward, "", from4, true},
		{"mapped address", ssh, "", "::ffff:192.0.2.7 50000 ::ffff:192.0.2.1 22", true},
		{"link-local with its zone", ssh, "", "fe80::7%eth0 50000 fe80::1%eth0 22", true},
		{"always allowed", ssh, "192.0.2.0/24", from4, false},
		{"another network is", ssh, "198.51.100.0/24", from4, true},
		{"guard off", off, "", from4, false},
		{"udp only", udp, "", from4, false},
		{"another port", ssh, "", "192.0.2.7 50000 192.0.2.1 2222", false},
		{"from the machine itself", ssh, "", "127.0.0.1 50000 127.0.0.1 22", false},
		{"not over ssh", ssh, "", "", false},
		{"no address", ssh, "", "x 50000 192.0.2.1 22", false},
		{"no port", ssh, "", "192.0.2.7 50000 192.0.2.1 x", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			rules := firewall.Ruleset{Services: []firewall.Service{test.service}}
			if test.always != "" {
				rules.AlwaysAllow = []netip.Prefix{netip.MustParsePrefix(test.always)}
			}
			err := lockout(rules, test.connection)
			if (err != nil) != test.refused {
				t.Fatalf("got %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "always_allow") {
				t.Errorf("no remedy in %q", err)
			}
		})
	}
}
