// Package capture is where packets come from. It knows nothing of what is in them but their length.
//
// The one source so far is [UDP], a pair of sockets, one per address family. A kernel filter on each drops every
// datagram of another length than the one expected before it is queued, so that junk costs neither memory nor a wakeup;
// what is left goes to the reader's handle function one by one, without a copy and without an allocation.
package capture

import (
	"context"
	"net/netip"
)

// Datagram is one received packet.
type Datagram struct {
	Payload []byte         // valid only until handle returns
	From    netip.AddrPort // IPv4-mapped addresses unmapped; a link-local IPv6 address has its zone
	Local   netip.Addr     // the address it was sent to, one of this machine's
	Link    int            // index of the interface it came in by
}

// Source is a place where packets come from and answers go to.
type Source interface {
	// Run hands every packet to handle until ctx ends; then it returns nil. It may call handle from several goroutines
	// at once, and handle must not block.
	Run(ctx context.Context, handle func(Datagram)) error
	// Reply sends p to where d came from, from where d was sent to. It does not block and may be called from any
	// goroutine, also after handle has returned: it does not look at d.Payload.
	Reply(d Datagram, p []byte) error
	// Close frees what the source holds.
	Close() error
}
