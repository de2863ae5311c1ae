package firewalltest

import (
	"testing"
)

// Conformance proves that a backend does what firewall.Backend promises, with real traffic. Every backend passes it: a
// further one is named in one more call. The factory is called several times in a test where the process restarts.
//
// Each test has a Lab of its own, so they run side by side; they wait where the kernel is to end something by itself.
func Conformance(t *testing.T, name string, factory Factory) {
	t.Run(name, func(t *testing.T) {
		for _, c := range conformance {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, factory)
			})
		}
	})
}

var conformance = []struct {
	name string
	run  func(*testing.T, Factory)
}{
	{"door opens for one source and the kernel shuts it", testDoor},
	{"renewal loses no packet", testRenewal},
	{"renewal shortens and lengthens", testRenewedTime},
	{"shut at once", testShut},
	{"keep lets connections live", testKeep},
	{"cut ends connections, loose tracking off", func(t *testing.T, f Factory) { testCut(t, f, "0") }},
	{"cut ends connections, loose tracking on", func(t *testing.T, f Factory) { testCut(t, f, "1") }},
	{"cut without a guard spares others", testCutOff},
	{"guard drop hides broadcast and multicast too", testMulticast},
	{"guard reject answers as a closed port", testReject},
	{"guard off leaves the port to others", testOff},
	{"UDP client that was too early", testTooEarly},
	{"fragments", testFragments},
	{"always_allow", testAlwaysAllow},
	{"the router's own traffic", testOwnTraffic},
	{"same port of another host", testOtherHost},
	{"port ranges", testRanges},
	{"IPv6 prefix length", testPrefix},
	{"neighbours", testNeighbours},
	{"forward with one family", testOneFamily},
	{"mark", testMarks},
	{"foreign rules stay as they are", testForeign},
	{"apply under traffic", testApply},
	{"apply replaces everything", testReplace},
	{"restart takes over", testRestart},
	{"down removes only ours", testDown},
	{"thousands of doors", testMany},
	{"what makes no sense is refused", testRefused},
}
