package nftables_test

import (
	"os"
	"testing"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
	"spad/pkg/firewall/nftables"
)

func TestMain(m *testing.M) { os.Exit(firewalltest.Main(m)) }

func backend(tb testing.TB, router *firewalltest.Host) firewall.Backend {
	tb.Helper()
	b, err := nftables.New(nftables.Options{NetNS: router.NetNS()})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestConformance(t *testing.T) { firewalltest.Conformance(t, "nftables", backend) }

func BenchmarkPackets(b *testing.B) { firewalltest.BenchmarkPackets(b, backend) }
