package daemon_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// besides is a firewall beside which doors open.
type besides struct {
	name       string
	programs   []string   // that load it
	probe      func(*rig) // skips the test where the kernel can't
	load       func(*rig) // as its own program does it
	allow      func(*rig) // the one static line; nil: it needs none
	clear      func(*rig) // goes before load and allow when it is loaded again; nil: they replace what is there
	reload     func(*rig) // instead, if its program has a word for it
	dropped    string     // the kind of doors that don't open without that line: own, lan, or both
	published, // Docker has published the router's ports: a container answers there
	inTheOpen, // without spad, everybody reaches the router's ports
	lineOpens, // so it is once the line is there
	routed bool // and the hosts behind it, by their addresses
}

var firewalls = []besides{
	{name: "none", load: func(*rig) {}, clear: flushAll, inTheOpen: true, routed: true},
	{
		name: "fw4", programs: []string{"nft"}, dropped: "both",
		load:  func(r *rig) { r.nft(r.fw4(nil)) },
		allow: func(r *rig) { r.nft(r.fw4([]string{"PRE"})) },
	},
	{
		// Its own redirect makes it accept whatever is translated: only the router's own ports need the line.
		name: "fw4 redirect", programs: []string{"nft"}, dropped: "own",
		load:  func(r *rig) { r.nft(r.fw4([]string{"DNAT"})) },
		allow: func(r *rig) { r.nft(r.fw4([]string{"DNAT", "PRE"})) },
	},
	{
		name: "fw4 offload", programs: []string{"nft"}, dropped: "both", probe: needsFlowtables,
		load:  func(r *rig) { r.nft(r.fw4([]string{"OFFLOAD"})) },
		allow: func(r *rig) { r.nft(r.fw4([]string{"OFFLOAD", "PRE"})) },
	},
	{
		name: "ufw", programs: []string{"ufw", "iptables", "unshare"}, dropped: "both", probe: needsUFWsFiles,
		load: func(r *rig) {
			r.ufw("ufw --force enable && ufw allow in on LAN_LINK && ufw route allow in on LAN_LINK out on WAN_LINK")
		},
		allow: func(r *rig) {
			lines := strings.Join(r.readme("-A ufw-before-"), `\n`)
			for version, lines := range map[string]string{"": lines, "6": strings.ReplaceAll(lines, "ufw-", "ufw6-")} {
				r.ufw(`sed -i "/^# End required lines/a ` + lines + `" /etc/ufw/before` + version + `.rules`)
			}
			r.ufw("ufw reload")
		},
		reload: func(r *rig) { r.ufw("ufw reload") },
	},
	{
		// Nothing of firewalld's matches a mark, and what is translated it lets pass: it needs the ports, as
		// firewall-cmd --add-port writes them.
		name: "firewalld", programs: []string{"nft"}, dropped: "own", lineOpens: true,
		load: func(r *rig) { r.nft(r.ruleset("firewalld.nft")) },
		allow: func(r *rig) {
			for _, port := range []string{"udp dport 41372", "tcp dport 2201", "udp dport 2202"} {
				r.nft("add rule inet firewalld filter_IN_public_allow " + port + " accept")
			}
		},
		clear: func(r *rig) { r.nft("delete table inet firewalld") },
	},
	{
		// It drops answers too that are not for its own bridges, so it takes the line that every other firewall has.
		name: "docker iptables", programs: []string{"iptables-nft"}, dropped: "lan", published: true, inTheOpen: true,
		load: func(r *rig) {
			r.restore("iptables-nft", r.ruleset("docker.rules"))
			r.restore("ip6tables-nft", r.ruleset("docker6.rules"))
		},
		allow: func(r *rig) {
			r.iptables("iptables -I DOCKER-USER ", "iptables-nft", "ip6tables-nft")
		},
	},
	{
		name: "docker nftables", programs: []string{"nft"}, published: true, inTheOpen: true, routed: true,
		load:  func(r *rig) { r.nft(r.ruleset("docker.nft")) },
		clear: flushAll,
	},
	plainIptables("iptables-nft", "iptables-nft", "ip6tables-nft"),
	plainIptables("iptables-legacy", "iptables-legacy", "ip6tables-legacy"),
	{
		name: "nftables", programs: []string{"nft"}, dropped: "both",
		load: func(r *rig) { r.nft(r.ruleset("plain.nft")) },
		allow: func(r *rig) {
			for _, line := range r.readme("nft insert rule inet filter ") {
				r.tool("", "sh", "-c", line)
			}
		},
		clear: flushAll, // its configuration begins so
	},
}

// again loads the firewall once more, while doors are open.
func (b besides) again(r *rig) {
	if b.reload != nil {
		b.reload(r)
		return
	}
	if b.clear != nil {
		b.clear(r)
	}
	b.load(r)
	if b.allow != nil {
		b.allow(r)
	}
}

// flushAll is what somebody does who starts afresh, with every tool.
func flushAll(r *rig) {
	r.nft("flush ruleset")
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		if _, err := exec.LookPath(program); err == nil {
			r.restore(program, "*filter\nCOMMIT\n*nat\nCOMMIT\n*mangle\nCOMMIT\n")
		}
	}
}

func plainIptables(name string, programs ...string) besides {
	return besides{
		name: name, programs: programs, dropped: "both",
		load: func(r *rig) {
			for _, p := range programs {
				r.restore(p, r.ruleset("plain.rules"))
			}
		},
		allow: func(r *rig) {
			r.iptables("iptables -I INPUT ", programs...)
			r.iptables("iptables -I FORWARD ", programs...)
		},
	}
}

// readme returns the lines of the README that begin so: what it tells people to do is what is tried.
func (r *rig) readme(prefix string) (lines []string) {
	r.t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		r.t.Fatalf("the README has no line that begins with %q", prefix)
	}
	return lines
}

// iptables does what the README says for iptables, with each of these.
func (r *rig) iptables(prefix string, programs ...string) {
	r.t.Helper()
	for _, line := range r.readme(prefix) {
		for _, program := range programs {
			r.tool("", "sh", "-c", program+strings.TrimPrefix(line, "iptables"))
		}
	}
}

// fw4 is the ruleset that fw4 loads, with its additions, and with the files of ours that it includes if PRE is among them.
func (r *rig) fw4(additions []string) string {
	r.t.Helper()
	lines := map[string]string{}
	for _, part := range strings.Split(r.ruleset("fw4-additions.txt"), "\n#")[1:] {
		place, text, _ := strings.Cut(part, "\n")
		lines[place] = text
	}
	dir, err := filepath.Abs("../../contrib/openwrt/usr/share/nftables.d/chain-pre")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, chain := range []string{"input", "forward"} {
		files, err := filepath.Glob(filepath.Join(dir, chain, "*.nft"))
		if err != nil || len(files) != 1 {
			r.t.Fatalf("files for the chain %s of fw4: %v, %v", chain, files, err)
		}
		lines["PRE:"+chain] = `include "` + files[0] + `"`
	}
	places := regexp.MustCompile(`#([A-Z]+):([a-z0-9]+)\n`)
	return places.ReplaceAllStringFunc(r.ruleset("fw4.nft"), func(place string) string {
		if word, _, _ := strings.Cut(place[1:], ":"); !slices.Contains(additions, word) {
			return "\n"
		}
		return lines[strings.TrimSpace(place[1:])] + "\n"
	})
}

// needsFlowtables skips a test where the kernel has none, also in CI: it is no more than an addition.
func needsFlowtables(r *rig) {
	cmd := r.Router.Command("nft", "-c", "add table inet probe; add flowtable inet probe ft { hook ingress priority 0; devices = { lo }; }")
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Skipf("no flow tables in this kernel (CONFIG_NF_FLOW_TABLE): %s", strings.TrimSpace(string(out)))
	}
}

// needsUFWsFiles skips a test that is not run as root, who alone may read them.
func needsUFWsFiles(r *rig) {
	if _, err := os.ReadFile("/etc/ufw/before.rules"); err == nil {
		return
	} else if os.Getenv("CI") == "true" {
		r.t.Fatal(err)
	} else {
		r.t.Skip(err)
	}
}

// ufw runs commands of the real ufw, with copies of all that it writes.
func (r *rig) ufw(commands string) {
	r.t.Helper()
	etc := r.dir + "/ufw"
	if _, err := os.Stat(etc); os.IsNotExist(err) {
		r.tool("", "cp", "-a", "/etc/ufw", etc)
	}
	r.tool("", "unshare", "--mount", "sh", "-euc", `mount -t tmpfs tmpfs /run; mount --bind "$1" /etc/ufw; `+r.links(commands), "sh", etc)
}

// The files for fw4 hold one rule and nothing else, which is the mark's default.
func TestFilesForFW4(t *testing.T) {
	for _, chain := range []string{"input", "forward"} {
		text, err := os.ReadFile("../../contrib/openwrt/usr/share/nftables.d/chain-pre/" + chain + "/spad.nft")
		if err != nil {
			t.Fatal(err)
		}
		rules := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(text), "")
		if want := "meta mark & 0x10000000 != 0 accept comment \"!spad: has a door, or knocks\"\n"; rules != want {
			t.Errorf("%s: %q, want %q", chain, rules, want)
		}
	}
}
