// Package flood bounds what strangers can make the router compute and remember.
//
// A [Budget] says whether public-key work may be done for a packet: a token bucket
// per source (an IPv4 address or an IPv6 /64) and one for all sources together, part
// of which is kept for sources that knocked well lately. A [Seen] holds the packets
// of late, so that a recording costs a look-up and no curve operation.
//
// Every table has a fixed size, is made once and is indexed by a keyed hash, so that
// nobody can aim at one place in it. The tables say what is lost when they are full.
// There is no clock here: now is any duration that grows, say since start.
package flood

import "math"

// Rate is a token bucket: PerSecond tokens flow in, Burst is its size. A rate without
// both lets nothing through.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Limits are the budgets for public-key work, in packets.
type Limits struct {
	Source Rate // of each source
	Global Rate // of all sources together
	// ReservedShare is the part of Global, 0 to 1, that is kept for sources that
	// knocked well lately. The others share the rest.
	ReservedShare float64
}

// DefaultLimits are 10 packets a second with a burst of 32 for each source and 2500 a
// second with a burst of 500 for all, a quarter of both kept. Public-key work for one
// packet, X25519 and Ed25519, was measured at 0.1 ms (amd64), so junk that passes the
// gate takes at most a quarter of one core there. On a processor ten times slower 250
// a second does the same.
func DefaultLimits() Limits {
	return Limits{
		Source:        Rate{PerSecond: 10, Burst: 32},
		Global:        Rate{PerSecond: 2500, Burst: 500},
		ReservedShare: 0.25,
	}
}

// split divides the global rate into what everybody may use and what is reserved. Each
// gets a token at least, if there are two and the share is neither nothing nor all.
func (l Limits) split() (common, reserved Rate) {
	share, burst := min(l.ReservedShare, 1), l.Global.Burst
	if !(share > 0) {
		return l.Global, Rate{}
	}
	kept := burst
	if share < 1 {
		kept = max(min(max(int(math.Round(float64(burst)*share)), 1), burst-1), 0)
	}
	return Rate{l.Global.PerSecond * (1 - share), burst - kept}, Rate{l.Global.PerSecond * share, kept}
}
