package iptables_test

import (
	"os"
	"testing"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
	"spad/pkg/firewall/iptables"
)

func TestMain(m *testing.M) { os.Exit(firewalltest.Main(m)) }

func backend(variant string) firewalltest.Factory {
	return func(tb testing.TB, router *firewalltest.Host) firewall.Backend {
		tb.Helper()
		b, err := iptables.New(iptables.Options{Variant: variant, NetNS: router.NetNS()})
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
}

func TestConformanceNFT(t *testing.T) { firewalltest.Conformance(t, "iptables-nft", backend("nft")) }

func TestConformanceLegacy(t *testing.T) {
	firewalltest.Conformance(t, "iptables-legacy", backend("legacy"))
}
