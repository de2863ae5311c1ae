package doctor

import (
	"fmt"
	"strings"

	"spad/pkg/firewall"
	"spad/pkg/firewall/foreign"
)

// remedy is the exact line for the program that made the rule.
func (c *chart) remedy(o obstacle) string {
	f := o.fate
	switch {
	case f.Kind == foreign.Translates:
		return "take that redirect away, or give spad another port: what it redirects does not get to where the door leads"
	case o.met.Hook == foreign.Prerouting && o.met.Mark == 0:
		return "take that rule away, or accept these ports before it: it comes before spad's, where nothing is marked yet"
	case o.met.Reply:
		return c.answers(o)
	case f.Table == "fw4":
		return c.fw4(o)
	case f.Table == "firewalld":
		return c.firewalld(o)
	}
	return c.mark(o)
}

// mask is the mark as iptables has it.
func (c *chart) mask() string { return fmt.Sprintf("%#x/%#x", c.Config.Mark, c.Config.Mark) }

func (c *chart) fw4(o obstacle) string {
	chain := o.met.Hook.String()
	return fmt.Sprintf("mkdir -p /usr/share/nftables.d/chain-pre/%s && echo 'meta mark & %#x != 0 accept comment \"!spad: has a door, or knocks\"' "+
		"> /usr/share/nftables.d/chain-pre/%s/spad.nft && fw4 reload", chain, c.Config.Mark, chain)
}

// firewalld has no rule for marks, but spad hides what it lets pass.
func (c *chart) firewalld(o obstacle) string {
	if o.met.Hook == foreign.Forward {
		return "allow it in a policy of firewalld (firewall-cmd --permanent --policy …)"
	}
	ports := []string{fmt.Sprintf("--add-port=%d/udp", c.Config.Port)}
	for _, s := range c.Config.Doors {
		for _, p := range s.Open {
			ports = append(ports, "--add-port="+portOf(p))
		}
	}
	return "firewall-cmd --permanent " + strings.Join(ports, " ") + " && firewall-cmd --reload"
}

func portOf(p firewall.Ports) string {
	proto, ports, _ := strings.Cut(p.String(), "/")
	return ports + "/" + proto
}

// mark is the line that accepts what carries spad's mark, for what is no fw4 and no firewalld.
func (c *chart) mark(o obstacle) string {
	f := o.fate
	if !xtables(f) {
		return fmt.Sprintf("nft insert rule %s %s %s meta mark and %#x != 0 accept, and write it where your rules are kept (/etc/nftables.conf)",
			f.Family, f.Table, f.Base, c.Config.Mark)
	}
	chains := c.Rules().Chains(f.Family, f.Table)
	line := fmt.Sprintf("-m mark --mark %s -j ACCEPT", c.mask())
	ufw := map[string]string{"ip": "ufw", "ip6": "ufw6"}[f.Family]
	switch {
	case chains[ufw+"-before-input"]:
		file := map[string]string{"ip": "before.rules", "ip6": "before6.rules"}[f.Family]
		return fmt.Sprintf(`write after "# End required lines" in /etc/ufw/%s: -A %s-before-%s %s; then: ufw reload`,
			file, ufw, strings.ToLower(f.Base), line)
	case f.Base == "FORWARD" && chains["DOCKER-USER"]:
		return fmt.Sprintf("%s -I DOCKER-USER %s", program(f), line)
	}
	table := ""
	if f.Table != "filter" {
		table = "-t " + f.Table + " "
	}
	return fmt.Sprintf("%s %s-I %s %s, and keep it for the next start (netfilter-persistent save)", program(f), table, f.Base, line)
}

// answers carry no mark: they pass where established connections do, as every firewall has it.
func (c *chart) answers(o obstacle) string {
	f := o.fate
	if !xtables(f) {
		return fmt.Sprintf("nft insert rule %s %s %s ct state established,related accept, and write it where your rules are kept", f.Family, f.Table, f.Base)
	}
	chain := f.Base
	if chain == "FORWARD" && c.Rules().Chains(f.Family, f.Table)["DOCKER-USER"] {
		chain = "DOCKER-USER"
	}
	return fmt.Sprintf("%s -I %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", program(f), chain)
}

// xtables reports whether the table is one of iptables.
func xtables(f foreign.Fate) bool {
	builtin := map[string]bool{"PREROUTING": true, "INPUT": true, "FORWARD": true, "OUTPUT": true, "POSTROUTING": true}
	return f.Legacy || f.Family != "inet" && builtin[f.Base]
}

func program(f foreign.Fate) string {
	name := "iptables"
	if f.Family == "ip6" {
		name = "ip6tables"
	}
	if f.Legacy {
		name += "-legacy"
	}
	return name
}
