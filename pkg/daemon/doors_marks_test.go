package daemon_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// begin starts spad and enrols the laptop.
func (d *doors) begin() {
	d.t.Helper()
	d.start()
	d.knock("enroll", strings.TrimSpace(d.must("invite", "laptop", "--allow", "own,lan-tcp,lan-udp", "--no-qr")))
}

// Beside others who put bits into marks, each packet has their bits and ours, and connections only theirs.
func TestDoorsMarks(t *testing.T) {
	var all []subtest
	for _, row := range []struct {
		name, config string
		bit          uint32
	}{
		{"the default", "", 0x10000000},
		{"another bit", "mark = 0x100000", 0x100000},
		{"the highest", "mark = 0x80000000", 0x80000000},
		{"iptables nft", backends[1].config, 0x10000000},
		{"iptables legacy", backends[2].config, 0x10000000},
	} {
		all = append(all, subtest{row.name, func(t *testing.T) {
			d := newDoors(t, besides{programs: []string{"iptables-nft", "nft"}}, row.config)
			d.nft(d.ruleset("plain.nft"))
			for _, program := range []string{"iptables-nft", "ip6tables-nft"} {
				d.restore(program, d.ruleset("marks.rules"))
			}
			for _, chain := range []string{"input", "forward"} {
				d.nft(fmt.Sprintf("insert rule inet filter %s meta mark and %#x != 0 accept", chain, row.bit))
			}
			const others = 0x100 | 0x2 // mwan3's first uplink, SQM's class
			marks := strings.NewReplacer("PERMITTED", fmt.Sprintf("%#x", row.bit|others), "ANSWERED", fmt.Sprintf("%#x", others))
			d.nft(marks.Replace(d.ruleset("marks-seen.nft")))
			before := d.foreign()

			d.begin()
			d.knock("own", "lan-tcp", "lan-udp", "--no-address")
			d.each("opens", d.open(d.Laptop))
			d.each("others", d.silent(d.Stranger))
			counters := d.tool("", "nft", "list", "counters", "table", "inet", "seen")
			for name, some := range map[string]bool{"permitted": true, "answered": true, "others": false} {
				if n := counted(t, counters, name); n > 0 != some {
					t.Errorf("%s: %d packets", name, n)
				}
			}
			d.must("down")
			if after := d.foreign(); withoutBuiltins(after) != withoutBuiltins(before) {
				t.Errorf("foreign rules are\n%s\nwere\n%s", after, before)
			}
		}})
	}
	atOnce(t, all)
}

// counted returns the packets that a named counter has seen.
func counted(t *testing.T, counters, name string) int {
	t.Helper()
	m := regexp.MustCompile(`counter ` + name + ` \{\s+packets (\d+)`).FindStringSubmatch(counters)
	if m == nil {
		t.Fatalf("no counter %s in\n%s", name, counters)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}
