package iptables

import (
	"slices"
	"strings"
	"testing"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

// Every feature names its modules in a way that they are found in.
func TestFeaturesNameModules(t *testing.T) {
	for _, f := range features {
		if len(f.modules()) == 0 {
			t.Errorf("%q names no module", f.name)
		}
	}
	comment := features[0]
	if have, _ := comment.has([]string{"set", "comment"}); !have {
		t.Error("what the kernel says that it has is not believed")
	}
}

// Looking for what is missing makes no table.
func TestMissingMakesNoTable(t *testing.T) {
	l := firewalltest.NewLab(t)
	for _, variant := range []string{"nft", "legacy"} {
		missing, _, err := Missing(Options{Variant: variant, NetNS: l.Router.NetNS()}, firewall.Ruleset{})
		if err != nil && strings.Contains(err.Error(), "iptables is not complete") {
			t.Skip(err)
		}
		if err != nil || len(missing) > 0 {
			t.Errorf("%s: %q, %v", variant, missing, err)
		}
	}
	for _, v6 := range []bool{false, true} {
		names, err := loadedTables(l.Router.NetNS(), v6)
		if err != nil || len(names) > 0 {
			t.Errorf("tables %q are there, %v", names, err)
		}
	}
	p, err := newProgram("iptables-legacy", false, l.Router.NetNS())
	if err != nil {
		t.Skip(err)
	}
	if _, err := p.list("filter"); err != nil {
		t.Fatal(err)
	}
	if names, _ := loadedTables(l.Router.NetNS(), false); !slices.Contains(names, "filter") {
		t.Errorf("listing made no table, so that this test proves nothing: %q", names)
	}
}
