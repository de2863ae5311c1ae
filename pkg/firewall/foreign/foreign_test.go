package foreign_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"spad/pkg/firewall/firewalltest"
	"spad/pkg/firewall/foreign"
)

func TestMain(m *testing.M) { os.Exit(firewalltest.Main(m)) }

const (
	mark = 1 << 28
	port = 41372
)

// packets that the tests follow.
var (
	knock4 = foreign.Packet{Hook: foreign.Input, Proto: 17, To: netip.MustParseAddrPort("203.0.113.1:41372"), Mark: mark, In: "wan", InIndex: 7, Local: true}
	knock6 = foreign.Packet{Hook: foreign.Input, Proto: 17, To: netip.MustParseAddrPort("[2001:db8:1::1]:41372"), V6: true, Mark: mark, In: "wan", InIndex: 7, Local: true}
	door   = foreign.Packet{Hook: foreign.Forward, Proto: 6, To: netip.MustParseAddrPort("192.168.1.50:80"), Mark: mark, In: "wan", InIndex: 7, Out: "lan", Translated: true}
	back   = foreign.Packet{Hook: foreign.Forward, Proto: 6, From: netip.MustParseAddrPort("192.168.1.50:80"), In: "lan", InIndex: 8, Out: "wan", Translated: true, Reply: true}
	coming = foreign.Packet{Hook: foreign.Prerouting, Proto: 17, To: netip.MustParseAddrPort("203.0.113.1:41372"), In: "wan", InIndex: 7, Local: true}
)

const (
	plainNFT = `table inet filter {
	set blocked { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 }; }
	chain input {
		type filter hook input priority filter; policy drop;
		ip saddr @blocked drop
		iif "lo" accept
		#LINE
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname "lan" accept
		tcp dport { 22, 8000-8100 } accept
		meta l4proto { icmp, ipv6-icmp } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		#LINE
		iifname "lan" oifname "wan" accept
	}
}`
	fw4 = `table inet fw4 {
	chain input {
		type filter hook input priority filter; policy drop;
		iif "lo" accept
		#LINE
		ct state vmap { established : accept, related : accept }
		tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
		iifname "lan" jump accept_from_lan
		iifname "wan" jump input_wan
		jump handle_reject
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept }
		ct status dnat accept
		jump handle_reject
	}
	chain syn_flood { limit rate 25/second burst 50 packets return; drop; }
	chain accept_from_lan { iifname "lan" counter accept; }
	chain input_wan { meta nfproto ipv4 udp dport 68 counter accept; icmp type 8 accept; jump reject_from_wan; }
	chain reject_from_wan { iifname "wan" counter jump handle_reject; }
	chain handle_reject { meta l4proto tcp reject with tcp reset; reject with icmpx type port-unreachable; }
}`
	firewalld = `table inet firewalld {
	chain filter_INPUT {
		type filter hook input priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		jump filter_INPUT_ZONES
		reject with icmpx type admin-prohibited
	}
	chain filter_INPUT_ZONES { iifname "lan" goto filter_IN_trusted; goto filter_IN_public; }
	chain filter_IN_trusted { accept; }
	chain filter_IN_public { tcp dport 22 accept; #LINE
	}
}`
	dockerNFT = `table ip docker-bridges {
	chain nat-PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter jump nat-prerouting-and-output
	}
	chain nat-prerouting-and-output {
		iifname != "br0" udp dport 41372 counter dnat to 172.18.0.2:53
	}
	chain filter-FORWARD {
		type filter hook forward priority filter; policy accept;
		oifname vmap { "br0" : jump in }
	}
	chain in { drop; }
}`
	plainXT = `*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
#LINE
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -i lan -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,8000:8100 -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A FORWARD -m comment --comment "for the \"LAN\" -j DROP" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i br0 -p udp -m udp --dport 41372 -j DNAT --to-destination 172.18.0.2:53
COMMIT
`
	ufw = `*filter
:INPUT DROP [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
:ufw-after-logging-input - [0:0]
:ufw-not-local - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-logging-input
-A ufw-before-input -i lo -j ACCEPT
#LINE
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j LOG
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-after-logging-input -m limit --limit 3/min -j LOG --log-prefix "[UFW BLOCK] "
COMMIT
`
)

func TestFollow(t *testing.T) {
	nftLine := "meta mark and 0x10000000 != 0 accept"
	xtLine := "-A INPUT -m mark --mark 0x10000000/0x10000000 -j ACCEPT"
	ufwLine := "-A ufw-before-input   -m mark --mark 0x10000000/0x10000000 -j ACCEPT"
	tests := []struct {
		name, program, rules, line string
		packet                     foreign.Packet
		want                       string // what happens, and where
	}{
		{"nothing there", "nft", "", "", knock4, "accepts"},
		{"nft", "nft", plainNFT, "", knock4, "drops: policy of chain input in table inet filter"},
		{"nft, IPv6", "nft", plainNFT, "", knock6, "drops: policy of chain input in table inet filter"},
		{"nft with the line", "nft", plainNFT, nftLine, knock4, "accepts"},
		{"nft with the line, IPv6", "nft", plainNFT, nftLine, knock6, "accepts"},
		{"nft with another line", "nft", plainNFT, "meta mark and 0x20000000 != 0 accept", knock4, "drops: policy of chain input in table inet filter"},
		{"nft with a line for a part", "nft", plainNFT, "ip saddr 203.0.113.0/24 meta mark 0x10000000 accept", knock4, "drops: policy of chain input in table inet filter"},
		{"nft with the port", "nft", plainNFT, "udp dport { 53, 41372 } accept", knock4, "accepts"},
		{"nft with what can't be told", "nft", plainNFT, "meta skuid 1000 accept", knock4, "drops: policy of chain input in table inet filter, unsure"},
		{"nft, a port in a range", "nft", plainNFT, "", to(knock4, 6, 8080), "accepts"},
		{"nft, a port behind the range", "nft", plainNFT, "", to(knock4, 6, 8101), "drops: policy of chain input in table inet filter"},
		{"nft, from the LAN", "nft", plainNFT, "", in(knock4, "lan"), "accepts"},
		{"nft, forwarded", "nft", plainNFT, "", door, "drops: policy of chain forward in table inet filter"},
		{"nft, forwarded with the line", "nft", plainNFT, nftLine, door, "accepts"},
		{"nft, the answer", "nft", plainNFT, "", back, "accepts"},
		{"fw4", "nft", fw4, "", knock4, "rejects: rule 2 of chain handle_reject in table inet fw4"},
		{"fw4 with the line", "nft", fw4, nftLine, knock4, "accepts"},
		{"fw4, forwarded", "nft", fw4, "", door, "accepts"},
		{"firewalld", "nft", firewalld, "", knock4, "rejects: rule 5 of chain filter_INPUT in table inet firewalld"},
		{"firewalld with the port", "nft", firewalld, "udp dport 41372 accept", knock4, "accepts"},
		{"a goto that can't be told", "nft", firewalld, "meta skuid 1000 goto filter_IN_trusted; udp dport 41372 accept", knock4, "accepts"},
		{"docker on nft", "nft", dockerNFT, "", coming, "redirects: rule 1 of chain nat-prerouting-and-output in table ip docker-bridges -> 172.18.0.2:53"},
		{"docker on nft, another port", "nft", dockerNFT, "", to(coming, 17, 53), "accepts"},
		{"docker on nft, forwarded", "nft", dockerNFT, "", door, "accepts"},
		{"ufw", "iptables-nft", ufw, "", knock4, "drops: policy of chain INPUT in table ip filter"},
		{"ufw with the line", "iptables-nft", ufw, ufwLine, knock4, "accepts"},
	}
	for _, p := range []struct{ program, table string }{{"iptables-nft", "table ip filter"}, {"iptables-legacy", "iptables-legacy, table filter"}} {
		nat := strings.Replace(p.table, "filter", "nat", 1)
		for _, tt := range []struct {
			name, line string
			packet     foreign.Packet
			want       string
		}{
			{"", "", knock4, "drops: policy of chain INPUT in " + p.table},
			{" with the line", xtLine, knock4, "accepts"},
			{" with another line", "-A INPUT -m mark ! --mark 0x10000000/0x10000000 -j ACCEPT", knock4, "drops: policy of chain INPUT in " + p.table},
			{" with the port", "-A INPUT -p udp -m udp --dport 41372 -j ACCEPT", knock4, "accepts"},
			{" with the port for a part", "-A INPUT -s 198.51.100.0/24 -p udp -m udp --dport 41372 -j ACCEPT", knock4, "drops: policy of chain INPUT in " + p.table},
			{" with what can't be told", "-A INPUT -m statistic --mode random --probability 0.5 -j ACCEPT", knock4, "drops: policy of chain INPUT in " + p.table + ", unsure"},
			{", a port in a range", "", to(knock4, 6, 8080), "accepts"},
			{", from the LAN", "", in(knock4, "lan"), "accepts"},
			{", IPv6 is open", "", knock6, "accepts"},
			{", forwarded", "", door, "accepts"},
			{", the answer", "", back, "accepts"},
			{", docker", "", coming, "redirects: rule 1 of chain DOCKER in " + nat + " -> 172.18.0.2:53"},
			{", docker and its own link", "", in(coming, "br0"), "accepts"},
		} {
			tests = append(tests, struct {
				name, program, rules, line string
				packet                     foreign.Packet
				want                       string
			}{p.program + tt.name, p.program, plainXT, tt.line, tt.packet, tt.want})
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			lab := firewalltest.NewLab(t)
			load(t, lab.Router, tt.program, strings.ReplaceAll(tt.rules, "#LINE", tt.line))
			rules := foreign.Read(lab.Router.NetNS())
			if len(rules.Untold) > 0 {
				t.Fatal(rules.Untold)
			}
			if got := describe(rules.Follow(tt.packet)); got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}

func to(p foreign.Packet, proto uint8, port uint16) foreign.Packet {
	p.Proto, p.To = proto, netip.AddrPortFrom(p.To.Addr(), port)
	return p
}

func in(p foreign.Packet, link string) foreign.Packet {
	p.In = link
	return p
}

func describe(f foreign.Fate) string {
	if f.Kind == foreign.Passes {
		return f.Kind.String()
	}
	text := f.Kind.String() + ": " + f.String()
	if f.Kind == foreign.Translates {
		text += " -> " + f.To.String()
	}
	if f.Unsure {
		text += ", unsure"
	}
	return text
}

// load loads a ruleset as its own program does.
func load(t *testing.T, h *firewalltest.Host, program, rules string) {
	t.Helper()
	args := []string{"-f", "-"}
	if program != "nft" {
		program, args = program+"-restore", nil
	}
	if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
	cmd := h.Command(program, args...)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}
