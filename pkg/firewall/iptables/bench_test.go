package iptables_test

import (
	"testing"

	"spad/pkg/firewall/firewalltest"
)

// BenchmarkPackets measures what a packet costs with many doors and services against one of each.
func BenchmarkPackets(b *testing.B) {
	for _, variant := range []string{"nft", "legacy"} {
		b.Run(variant, func(b *testing.B) { firewalltest.BenchmarkPackets(b, backend(variant)) })
	}
}
