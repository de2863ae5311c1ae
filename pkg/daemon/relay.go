package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"spad/pkg/capture"
	"spad/pkg/control"
	"spad/pkg/event"
	"spad/pkg/verify"
	"spad/pkg/wire"
)

// relay is the way of a knock that somebody handed in: it goes where any other goes, and the answer comes back here.
type relay struct {
	by     string
	may    func(wire.ServiceID) bool // whether who handed it in may do so, for that service; zero is none
	answer []byte
}

// errRelay refuses a knock because of who handed it in.
var errRelay = errors.New("handed in by a remote without the right to it")

// Knock implements control.Knocks for root.
func (d *Daemon) Knock(ctx context.Context, k control.KnockRequest) ([]byte, error) {
	return d.handIn(k, &relay{by: byOf(ctx), may: func(wire.ServiceID) bool { return true }})
}

// handIn does the checks of read and the work of a worker, on the goroutine of the request: these are as few as there are
// connections.
func (d *Daemon) handIn(k control.KnockRequest, r *relay) ([]byte, error) {
	if len(k.Packet) != wire.PacketSize {
		return nil, &control.UsageError{Text: fmt.Sprintf("a knock has %d bytes, not %d", wire.PacketSize, len(k.Packet))}
	}
	reason := d.verifier.Admit(k.Packet, k.From, monotonic())
	d.counters.count(reason)
	if reason != verify.Accepted {
		return nil, nil
	}
	d.handle(job{from: capture.Datagram{From: netip.AddrPortFrom(k.From, 0)}, packet: [wire.PacketSize]byte(k.Packet), relay: r})
	return r.answer, nil
}

// relayed says whether a verified knock goes on, and answers if not. It makes known who handed it in.
func (d *Daemon) relayed(j job, k verify.Knock) bool {
	m := k.Packet.Message
	e := event.Event{Kind: event.KnockRelayed, Device: k.Device.Name, Source: k.Source.String(), By: j.relay.by}
	if m.Op == wire.OpEnroll { // the token is the right to it, and what is wrong is silence
		e.Device = "(enrolment)"
		d.bus.Publish(e)
		return j.relay.may(wire.ServiceID{})
	}
	service, _ := d.cfg.Load().Rules.ServiceByID(m.Service)
	e.Service = service.Name
	d.bus.Publish(e)
	if !j.relay.may(m.Service) {
		d.answer(j, k.Packet, d.deny(j, k, service.Name, fmt.Errorf("%w: %s", errRelay, j.relay.by), wire.Denied))
		return false
	}
	return true
}
