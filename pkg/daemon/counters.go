package daemon

import (
	"sync/atomic"
	"time"

	"spad/pkg/verify"
)

// start anchors the monotonic clock of budgets.
var start = time.Now()

func monotonic() time.Duration { return time.Since(start) }

// counters count packets by what became of them. What strangers send is only counted, never logged.
type counters struct {
	reasons [16]atomic.Uint64 // by the place in counted
	good    atomic.Uint64
	denied  atomic.Uint64
	overrun atomic.Uint64
}

// counted is every reason to drop a packet, in the order of the checks.
var counted = [16]verify.Reason{
	verify.Length, verify.Gate, verify.Budget, verify.Repeated, verify.Key, verify.Box, verify.Format, verify.Device,
	verify.Inactive, verify.Token, verify.Signature, verify.Replayed, verify.ClockOff, verify.JournalFailed,
	verify.Mismatch, verify.BadAddress,
}

// count adds one to the counter of a reason; Accepted has none.
func (c *counters) count(r verify.Reason) {
	for i, name := range counted {
		if name == r {
			c.reasons[i].Add(1)
			return
		}
	}
}

// of returns the counter of a reason.
func (c *counters) of(r verify.Reason) uint64 {
	for i, name := range counted {
		if name == r {
			return c.reasons[i].Load()
		}
	}
	return 0
}

// counts returns every counter under its name.
func (d *Daemon) counts() map[string]uint64 {
	all := map[string]uint64{
		"knocks":            d.counters.good.Load(),
		"denied":            d.counters.denied.Load(),
		"dropped: queue":    d.counters.overrun.Load(),
		"dropped: socket":   d.udp.Dropped(),
		"dropped: address":  d.udp.Ignored(),
		"events not logged": d.bus.Dropped(),
	}
	for i, name := range counted {
		all["refused: "+string(name)] = d.counters.reasons[i].Load()
	}
	d.sinks.counts(all)
	return all
}
