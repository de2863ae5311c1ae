package iptables

import (
	"strings"
	"testing"

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
