package doctor_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	nftLine = "meta mark and 0x10000000 != 0 accept"
	xtMark  = "-m mark --mark 0x10000000/0x10000000 -j ACCEPT"
)

const inputNFT = `table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iif lo accept
		ct state established,related accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
}`

const fw4 = `table inet fw4 {
	chain input { type filter hook input priority filter; policy drop; #LINE
		ct state vmap { established : accept, related : accept }; jump handle_reject; }
	chain forward { type filter hook forward priority filter; policy accept; }
	chain handle_reject { meta l4proto tcp reject with tcp reset; reject with icmpx type port-unreachable; }
}`

const firewalld = `table inet firewalld {
	chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state established accept; jump zones; reject with icmpx type admin-prohibited; }
	chain zones { goto filter_IN_public_allow; }
	chain filter_IN_public_allow {
		tcp dport 22 accept
		#LINE
	}
}`

const ufw = `*filter
:INPUT DROP [0:0]
:ufw-before-input - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`

const docker = `*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:DOCKER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER
-A DOCKER -d 172.18.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i br0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:80
COMMIT
`

const plainXT = `*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`

// A firewall beside spad: what doctor says of it, the remedy that it names, and that this very remedy helps.
func TestOtherFirewalls(t *testing.T) {
	for _, tt := range []struct {
		name   string
		load   func(*rig)
		what   string   // of the finding that fails
		remedy []string // of all that fail, in their order
		mend   func(*rig, finding)
	}{
		{
			"nft", nft(inputNFT),
			"packets of knocks (udp/41372), ssh (tcp/2222), web (tcp/8080) are dropped: policy of chain input in table inet filter",
			[]string{"nft insert rule inet filter input " + nftLine, "nft insert rule inet filter forward " + nftLine},
			run,
		},
		{
			"nft that drops answers", nft(strings.ReplaceAll(inputNFT, "ct state established,related accept", nftLine)),
			"packets of answers of nas (tcp/7890) are dropped: policy of chain forward in table inet filter",
			[]string{"nft insert rule inet filter forward ct state established,related accept"},
			run,
		},
		{
			"nft before spad", nft("table ip first { chain pre { type filter hook prerouting priority raw; udp dport 41372 drop; }; }"),
			"packets of knocks (udp/41372) are dropped over IPv4: rule 1 of chain pre in table ip first",
			[]string{"take that rule away"},
			nil,
		},
		{
			"nft that redirects knocks", nft("table ip nat { chain pre { type nat hook prerouting priority dstnat; udp dport 41372 redirect to :53; }; }"),
			"packets of knocks (udp/41372) are redirected to another port over IPv4",
			[]string{"take that redirect away"},
			nil,
		},
		{
			"fw4", nft(strings.ReplaceAll(fw4, "#LINE", "")),
			"packets of knocks (udp/41372) are rejected: rule 2 of chain handle_reject in table inet fw4",
			[]string{
				`meta mark & 0x10000000 != 0 accept comment "!spad: has a door, or knocks"' > /usr/share/nftables.d/chain-pre/input/spad.nft && fw4 reload`,
				"fw4 reload",
			},
			func(r *rig, f finding) {
				_, line, _ := strings.Cut(f.Remedy, "echo '")
				line, _, _ = strings.Cut(line, "'")
				r.tool("flush ruleset\n"+strings.ReplaceAll(fw4, "#LINE", line), "nft", "-f", "-")
			},
		},
		{
			"firewalld", nft(firewalld),
			"packets of knocks (udp/41372), ssh (tcp/2222), web (tcp/8080) are rejected",
			[]string{"firewall-cmd --permanent --add-port=41372/udp --add-port=2222/tcp --add-port=8080/tcp && firewall-cmd --reload"},
			func(r *rig, f finding) {
				for _, word := range strings.Fields(f.Remedy) {
					if p, ok := strings.CutPrefix(word, "--add-port="); ok {
						number, proto, _ := strings.Cut(p, "/")
						r.tool("", "nft", "add", "rule", "inet", "firewalld", "filter_IN_public_allow", proto, "dport", number, "accept")
					}
				}
			},
		},
		{
			"ufw", restore("iptables-nft", ufw),
			"packets of knocks (udp/41372), ssh (tcp/2222), web (tcp/8080) are dropped over IPv4: policy of chain INPUT in table ip filter",
			[]string{`write after "# End required lines" in /etc/ufw/before.rules: -A ufw-before-input ` + xtMark + "; then: ufw reload"},
			func(r *rig, f finding) {
				_, line, _ := strings.Cut(f.Remedy, ": ")
				line, _, _ = strings.Cut(line, ";")
				r.tool("", "iptables-nft", strings.Fields(line)...)
			},
		},
		{
			"docker", restore("iptables-nft", docker),
			"packets of nas (tcp/7890) are dropped over IPv4: policy of chain FORWARD in table ip filter",
			[]string{"iptables -I DOCKER-USER " + xtMark, "iptables -I DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"},
			run,
		},
		{
			"iptables-nft", restore("iptables-nft", plainXT),
			"are dropped over IPv4: policy of chain INPUT in table ip filter",
			[]string{"iptables -I INPUT " + xtMark},
			run,
		},
		{
			"iptables-legacy", restore("iptables-legacy", plainXT),
			"are dropped over IPv4: policy of chain INPUT in iptables-legacy, table filter",
			[]string{"iptables-legacy -I INPUT " + xtMark},
			run,
		},
		{
			"ip6tables-legacy", restore("ip6tables-legacy", plainXT),
			"are dropped over IPv6: policy of chain INPUT in iptables-legacy, table filter",
			[]string{"ip6tables-legacy -I INPUT " + xtMark},
			run,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			needs(t, "nft") // to see that looking changes nothing
			r := newRig(t, "hostname = \"203.0.113.1\"\n")
			r.start()
			tt.load(r)
			before := r.ruleset()
			f := r.doctor(1)
			if !f.has("firewall", "FAIL", tt.what, tt.remedy[0]) {
				t.Fatalf("want %q and %q in\n%s", tt.what, tt.remedy[0], f)
			}
			if after := r.ruleset(); after != before {
				t.Errorf("looking changed the rules:\n%s\nand were\n%s", after, before)
			}
			if tt.mend == nil {
				return
			}
			for _, one := range f {
				if one.Level == "FAIL" && one.Check == "firewall" {
					tt.mend(r, one)
				}
			}
			if f := r.doctor(0); !f.has("firewall", "ok", "other rules let pass", "") {
				t.Errorf("mended, and still:\n%s", f)
			}
		})
	}
}

func nft(rules string) func(*rig) {
	return func(r *rig) { r.tool(rules, "nft", "-f", "-") }
}

func restore(program, rules string) func(*rig) {
	return func(r *rig) { r.tool(rules, program+"-restore") }
}

// run does what the remedy says, as a shell would.
func run(r *rig, f finding) {
	line, _, _ := strings.Cut(f.Remedy, ", and")
	line = strings.Replace(line, "iptables -I", "iptables-nft -I", 1)
	r.tool("", "sh", "-c", line)
}

// A port that Docker has published and that is a service: spad guards it, and it is said.
func TestPublishedPort(t *testing.T) {
	r := newRig(t, "hostname = \"203.0.113.1\"\n")
	r.start()
	r.tool(docker, "iptables-nft-restore")
	f := r.doctor(1)
	if !f.has("docker", "ok", "web (tcp/8080): published by a container program", "") {
		t.Errorf("nothing about tcp/8080 in\n%s", f)
	}
	if f.has("service", "warn", "web", "") || !f.has("service", "warn", "ssh: nobody listens on tcp/2222", "") {
		t.Errorf("who listens is wrong in\n%s", f)
	}
}

// The way through a pinhole is not translated, so that what lets translated packets pass does not help it.
func TestPinhole(t *testing.T) {
	r := newRig(t, "hostname = \"203.0.113.1\"\n")
	r.add("[service.hole]\nforward = { port = \"tcp/443\", pinhole = \"::50/-64\" }\n")
	r.start()
	rules := "table inet filter { chain forward { type filter hook forward priority filter; policy drop; ct state established accept; ct status dnat accept; }; }"
	nft(rules)(r)
	f := r.doctor(1)
	if !f.has("firewall", "FAIL", "packets of hole (tcp/443) are dropped: policy of chain forward", "nft insert rule inet filter forward "+nftLine) {
		t.Fatalf("nothing about the pinhole in\n%s", f)
	}
	r.tool("", "nft", "insert", "rule", "inet", "filter", "forward", nftLine)
	r.doctor(0)
}

// One whose guard is off is open to everybody.
func TestPublishedPortWithoutGuard(t *testing.T) {
	r := newRig(t, "hostname = \"203.0.113.1\"\n")
	r.add("[service.bare]\nopen = [\"tcp/8081\"]\nguard = \"off\"\n")
	r.start()
	r.tool(strings.Replace(docker, "--dport 8080", "--dport 8081", 1), "iptables-nft-restore")
	if f := r.doctor(1); !f.has("docker", "warn", "bare (tcp/8081)", "guard") {
		t.Errorf("nothing about tcp/8081 in\n%s", f)
	}
}

// What doctor advises is what the README says.
func TestRemediesAreTheREADMEs(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := strings.Join(strings.Fields(string(text)), " ")
	for _, line := range []string{
		"nft insert rule inet filter input " + nftLine, "nft insert rule inet filter forward " + nftLine,
		"iptables -I INPUT " + xtMark, "-A ufw-before-input " + xtMark, "iptables -I DOCKER-USER " + xtMark,
		"iptables -I DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "firewall-cmd --permanent --add-port=41372/udp --add-port=",
	} {
		if !strings.Contains(readme, line) {
			t.Errorf("the README lacks %q", line)
		}
	}
}

// Where the name leads, by a hosts file of the router's own.
func TestHostname(t *testing.T) {
	for _, tt := range []struct {
		name, hosts string
		exit        int
		level, what string
	}{
		{"here", "203.0.113.1 home.test\n2001:db8:1::1 home.test\n", 0, "ok", "home.test points here: 203.0.113.1"},
		{"elsewhere", "203.0.113.66 home.test\n2001:db8:1::1 home.test\n", 1, "FAIL", "home.test points elsewhere over IPv4: to 203.0.113.66, and this machine is 203.0.113.1"},
		{"elsewhere over IPv6", "203.0.113.1 home.test\n2001:db8:66::66 home.test\n", 1, "FAIL", "home.test points elsewhere over IPv6: to 2001:db8:66::66"},
		{"both", "203.0.113.1 home.test\n203.0.113.66 home.test\n2001:db8:1::1 home.test\n", 0, "warn", "points here (203.0.113.1), and elsewhere (203.0.113.66)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, "hostname = \"home.test\"\n")
			r.start()
			file := filepath.Join(r.dir, "hosts")
			if err := os.WriteFile(file, []byte(tt.hosts), 0o644); err != nil {
				t.Fatal(err)
			}
			f := r.doctor(tt.exit, "unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, file)
			if !f.has("hostname", tt.level, tt.what, "") {
				t.Errorf("want %s, %q in\n%s", tt.level, tt.what, f)
			}
		})
	}
}

// Another program has the port that knocks come to.
func TestPortTaken(t *testing.T) {
	r := newRig(t, "hostname = \"203.0.113.1\"\n")
	c, err := r.Router.ListenPacket("udp", ":41372")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if f := r.doctor(1); !f.has("port", "FAIL", "udp/41372 is taken by exe (pid ", "ss -ulpn sport = 41372") {
		t.Errorf("it is not said in\n%s", f)
	}
}

// With iptables, spad's own rules are nobody else's.
func TestOwnRules(t *testing.T) {
	for _, tt := range []struct{ name, config string }{
		{"nftables", ""},
		{"iptables-nft", "firewall = \"iptables\"\niptables = \"nft\"\n"},
		{"iptables-legacy", "firewall = \"iptables\"\niptables = \"legacy\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			needs(t, "iptables-legacy")
			r := newRig(t, "hostname = \"203.0.113.1\"\n"+tt.config)
			r.start()
			f := r.doctor(0)
			if !f.has("firewall", "ok", "", "") || !f.has("filter", "ok", "", "") {
				t.Errorf("want both well in\n%s", f)
			}
			if tt.config != "" {
				restore(tt.name, plainXT)(r)
				r.doctor(1)
			}
		})
	}
}

// What can't be looked at is said, and not taken for well: here without any capability.
func TestUnprivileged(t *testing.T) {
	needs(t, "setpriv")
	r := newRig(t, "hostname = \"203.0.113.1\"\n")
	r.start()
	nft(inputNFT)(r)
	f := r.doctor(0, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
	if !f.has("firewall", "warn", "could not look at the rules in nf_tables", "by hand") || !f.has("kernel", "warn", "could not look at", "root") {
		t.Errorf("it is not said in\n%s", f)
	}
}

// The state of another firewall, and a key that others may read.
func TestStateAndKey(t *testing.T) {
	r := newRig(t, "hostname = \"203.0.113.1\"\n")
	state := filepath.Join(r.dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"firewall": "iptables nft\n", "devices.json": "{", "journal": "rubbish"} {
		if err := os.WriteFile(filepath.Join(state, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(r.dir, "router.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := r.doctor(1)
	if want := []string{"daemon", "key", "devices"}; !slices.Equal(f.fails(), want) {
		t.Errorf("failed are %q, want %q", f.fails(), want)
	}
	for _, want := range []finding{
		{"key", "FAIL", "its mode 0644 lets others in", "chmod 600"},
		{"devices", "FAIL", "damaged", "put back a good copy"},
		{"journal", "warn", "cut short", "the next start"},
		{"filter", "warn", "the state says that iptables nft may have rules of spad's, and the configuration names nftables", "start spad"},
	} {
		if !f.has(want.Check, want.Level, want.What, want.Remedy) {
			t.Errorf("want %v in\n%s", want, f)
		}
	}
}
