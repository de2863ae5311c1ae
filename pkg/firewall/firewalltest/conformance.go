package firewalltest

import (
	"testing"
	"testing/synctest"

	"spad/pkg/firewall"
)

// Conformance proves that a backend does what firewall.Backend promises, with real traffic. Every backend passes it: a
// further one is named in one more call. The factory is called several times in a test where the process restarts.
// Main prints a table of the results.
//
// Each test has a Lab of its own, so they run side by side; they wait where the kernel is to end something by itself.
func Conformance(t *testing.T, name string, factory Factory) {
	if factory == nil {
		t.Fatal("conformance without a factory")
	}
	t.Run(name, func(t *testing.T) {
		for _, c := range conformance {
			t.Run(c.name, func(t *testing.T) {
				results.watch(t, name, c.name)
				t.Parallel()
				c.run(t, factory)
			})
		}
	})
}

// conformanceOfFake is Conformance for the Fake, in all that can be told without packets. No time passes outside.
func conformanceOfFake(t *testing.T) {
	const name = "fake"
	t.Run(name, func(t *testing.T) {
		for _, c := range conformance {
			if c.needs == packets {
				results.set(name, c.name, needsKernel)
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				results.watch(t, name, c.name)
				synctest.Test(t, func(t *testing.T) { c.run(t, nil) })
			})
		}
	})
}

// What a case needs to tell right from wrong.
const (
	answers = iota // a stage's word on what is open
	packets        // a kernel, and connections, other programs' rules, or the very bytes
)

var conformance = []struct {
	name  string
	run   func(*testing.T, Factory)
	needs int
}{
	{"door opens for one source and the kernel shuts it", testDoor, answers},
	{"renewal loses no packet", testRenewal, answers},
	{"renewal shortens and lengthens", testRenewedTime, answers},
	{"shut at once", testShut, answers},
	{"keep lets connections live", testKeep, packets},
	{"cut ends connections, loose tracking off", func(t *testing.T, f Factory) { testCut(t, f, firewall.GuardDrop, "0") }, packets},
	{"cut ends connections, loose tracking on", func(t *testing.T, f Factory) { testCut(t, f, firewall.GuardDrop, "1") }, packets},
	{"cut ends connections, guard reject", func(t *testing.T, f Factory) { testCut(t, f, firewall.GuardReject, "1") }, packets},
	{"cut without a guard spares others", testCutOff, packets},
	{"guard drop hides broadcast and multicast too", testMulticast, packets},
	{"guard hides every address of the router", testAddresses, packets},
	{"guard reject answers as a closed port", testReject, packets},
	{"guard off leaves the port to others", testOff, packets},
	{"UDP client that was too early", testTooEarly, packets},
	{"fragments", testFragments, packets},
	{"always_allow", testAlwaysAllow, answers},
	{"always_allow keeps connections", testAlwaysKept, packets},
	{"the router's own traffic", testOwnTraffic, packets},
	{"same port of another host", testOtherHost, packets},
	{"port ranges", testRanges, answers},
	{"forward of port ranges", testForwardRanges, answers},
	{"cut ends connections to port ranges", testCutRanges, packets},
	{"pinholes to the same port of several hosts", testPinholes, answers},
	{"pinhole and translation to one port", testTwiceBehind, packets},
	{"IPv6 prefix length", testPrefix, answers},
	{"neighbours", testNeighbours, answers},
	{"forward with one family", testOneFamily, answers},
	{"service that opens and forwards", testBoth, packets},
	{"forward to the router itself", testToItself, packets},
	{"hairpin from the LAN", testHairpin, packets},
	{"uplink that is a bridge", testBridgeUplink, packets},
	{"uplink from point to point", testTunnelUplink, packets},
	{"two uplinks", testTwoUplinks, packets},
	{"address of the uplink changes", testAddressChange, packets},
	{"mark", testMarks, packets},
	{"foreign rules stay as they are", testForeign, packets},
	{"what another program damages is noticed", testHealing, packets},
	{"apply under traffic", testApply, answers},
	{"apply replaces everything", testReplace, answers},
	{"restart takes over", testRestart, answers},
	{"down removes only ours", testDown, answers},
	{"thousands of doors", testMany, answers},
	{"what makes no sense is refused", testRefused, answers},
	{"rules that make no sense change nothing", testRefusedRules, answers},
}
