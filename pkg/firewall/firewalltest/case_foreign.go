package firewalltest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"spad/pkg/firewall"
)

func testForeign(t *testing.T, f Factory) {
	s := &scene{T: t}
	s.setUp(f)
	s.requires("nft", "iptables-nft-restore", "iptables-legacy-restore")
	s.loadForeign()
	before := s.foreign()
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		if !strings.Contains(before, program+", not ours") {
			t.Fatalf("the foreign rules of %s are not listed:\n%s", program, before)
		}
	}
	same := func(when string) {
		if now := s.foreign(); now != before {
			t.Errorf("%s, foreign rules have changed from:\n%s\nto:\n%s", when, before, now)
		}
	}
	s.Backend = f(t, s.Router)
	ssh := firewall.Service{Name: "ssh", Open: []firewall.Ports{{Proto: firewall.TCP, First: 22, Last: 22}}, Cut: true}
	nas := firewall.Service{Name: "nas", Guard: firewall.GuardReject, Forward: &firewall.Forward{
		Port: firewall.Ports{Proto: firewall.TCP, First: 80, Last: 80}, To4: netip.MustParseAddrPort("192.168.1.50:80"),
	}}
	rules := firewall.Ruleset{Services: []firewall.Service{ssh, nas}, KnockPort: knockPort, Mark: testMark}
	door := firewall.Door{Service: "ssh", Source: netip.MustParsePrefix("203.0.113.10/32"), TTL: time.Hour}
	s.must(s.Apply(rules, nil))
	same("applied")
	s.must(s.Open(door))
	s.must(s.Apply(rules, []firewall.Door{door}))
	s.must(s.Shut(door))
	same("after doors")
	s.must(s.Close())
	s.Backend = f(t, s.Router)
	s.must(s.Apply(rules, nil))
	same("after a restart")
	s.must(s.Down())
	s.must(s.Close())
	same("down")
	if left := strings.Join(slices.DeleteFunc(s.listing(), func(line string) bool { return !strings.Contains(line, "spad") }), "\n"); left != "" {
		t.Errorf("something of ours is left after down:\n%s", left)
	}
}

// requires skips a case where a program that plays another one's part is missing, and fails it with CI=true.
func (s *scene) requires(programs ...string) {
	s.Helper()
	for _, name := range programs {
		_, err := exec.LookPath(name)
		if err != nil && os.Getenv("CI") == "true" {
			s.Fatal(err)
		} else if err != nil {
			s.Skip(err)
		}
	}
}

// listing returns what all packet filters of the router hold, line by line, without counters and dates.
func (s *scene) listing() []string {
	s.Helper()
	var all strings.Builder
	for _, command := range []string{
		"nft -a list ruleset", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
	} {
		words := strings.Fields(command)
		out, err := s.Router.Command(words[0], words[1:]...).Output()
		s.must(err)
		fmt.Fprintf(&all, "%s\n%s", command, changing.ReplaceAllString(string(out), ""))
	}
	s.Router.Do(func() {
		sets, err := netlink.IpsetListAll()
		s.must(err)
		for _, set := range sets {
			fmt.Fprintf(&all, "set %s %s %d %d", set.SetName, set.TypeName, set.Family, set.MaxElements)
			for _, e := range set.Entries {
				fmt.Fprintf(&all, " %v", e.IP)
			}
			fmt.Fprintln(&all)
		}
	})
	return slices.DeleteFunc(strings.Split(all.String(), "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
}

var (
	changing = regexp.MustCompile(`packets \d+ bytes \d+|\[\d+:\d+\]|(?m)^# (Generated|Completed|Warning).*$`)
	ours     = regexp.MustCompile(`(?m)^table inet spad \{(.*\n)*?\}\n|^\tchain spad\..*\{(.*\n)*?\t\}\n|^.*spad[.46].*\n`)
)

// foreign is the listing without what a backend of ours may have made.
func (s *scene) foreign() string {
	s.Helper()
	return ours.ReplaceAllString(strings.Join(s.listing(), "\n")+"\n", "")
}

// loadForeign makes what other programs leave: the same hooks and priorities, the same names, NAT, sets, maps, by nft and
// by both kinds of iptables at once.
func (s *scene) loadForeign() {
	s.Helper()
	s.must(s.Router.dropsUnmarked(5, testMark|5))
	s.Router.Do(func() {
		s.must(netlink.IpsetCreate("blocklist", "hash:ip", netlink.IpsetCreateOptions{}))
		s.must(netlink.IpsetAdd("blocklist", &netlink.IPSetEntry{IP: netip.MustParseAddr("192.0.2.7").AsSlice()}))
	})
	load := func(stdin, command string, args ...string) {
		cmd := s.Router.Command(command, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	load(foreignNFT, "nft", "-f", "-")
	for _, variant := range []string{"nft", "legacy"} {
		for _, family := range []string{"ip", "ip6"} {
			rules := strings.ReplaceAll(foreignIPTables, "PROGRAM", "iptables-"+variant)
			if family == "ip6" {
				rules = strings.NewReplacer("192.168.1.7:80", "[fd00:1::7]:80", "-A guard -m set --match-set blocklist src -j DROP\n", "").Replace(rules)
			}
			load(rules, family+"tables-"+variant+"-restore")
		}
	}
}

const foreignNFT = `
table inet fw4 {
  set from4_ssh { type ipv4_addr; flags timeout; elements = { 192.0.2.7 } }
  map ports { type inet_service : verdict; elements = { 22 : jump guard_ssh } }
  chain guard_ssh { ip saddr @from4_ssh accept; }
  chain prerouting { type filter hook prerouting priority dstnat - 10; policy accept;
    tcp dport vmap @ports
    meta mark & 0x000000ff == 0x00000001 accept
  }
}
`

// foreignIPTables has a rule in every builtin chain that a backend may hook into: iptables on nf_tables makes builtin
// chains when they are first used, and leaves them.
const foreignIPTables = `*mangle
:guard - [0:0]
-A PREROUTING -p tcp --dport 8080 -m comment --comment "PROGRAM, not ours" -j guard
-A INPUT -i lo -j RETURN
-A POSTROUTING -o lo -j RETURN
-A guard -m set --match-set blocklist src -j DROP
-A guard -j MARK --set-xmark 0x1/0xff
COMMIT
*nat
:guard - [0:0]
-A PREROUTING -p tcp --dport 8080 -m comment --comment "not ours" -j DNAT --to-destination 192.168.1.7:80
-A guard -p tcp --dport 22 -j ACCEPT
COMMIT
*filter
:guard - [0:0]
-A INPUT -m mark --mark 0x1/0xff -j guard
-A guard -j ACCEPT
COMMIT
`
