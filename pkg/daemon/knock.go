package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"runtime"
	"time"

	"spad/pkg/capture"
	"spad/pkg/event"
	"spad/pkg/policy"
	"spad/pkg/session"
	"spad/pkg/verify"
	"spad/pkg/wire"
)

// queueLength bounds the packets that wait for a worker; what is over is dropped and counted. The sender knocks again.
const queueLength = 256

// workers is how many packets are worked on at once: enough to keep the cores busy while some wait for the disk.
func workers() int { return 2*runtime.GOMAXPROCS(0) + 2 }

// job is a packet that passed the gate.
type job struct {
	from   capture.Datagram // without its payload
	packet [wire.PacketSize]byte
	relay  *relay // nil: it came by UDP
}

// read does the cheap checks where the packet is read, and never blocks.
func (d *Daemon) read(dg capture.Datagram) {
	reason := d.verifier.Admit(dg.Payload, dg.From.Addr().WithZone(""), monotonic())
	d.counters.count(reason)
	if reason != verify.Accepted {
		return
	}
	j := job{from: dg}
	copy(j.packet[:], dg.Payload)
	j.from.Payload = nil
	select {
	case d.queue <- j:
	default:
		d.counters.overrun.Add(1)
	}
}

// work takes packets from the queue until ctx is done.
func (d *Daemon) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-d.queue:
			d.handle(j)
		}
	}
}

// handle verifies a packet, does what it asks, and answers if that is wanted and allowed.
func (d *Daemon) handle(j job) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	src := j.from.From.Addr().WithZone("")
	k, err := d.verifier.Verify(j.packet[:], src, monotonic())
	var r *verify.Rejection
	if errors.As(err, &r) {
		d.refuse(j, r)
		return
	}
	if j.relay != nil && !d.relayed(j, k) {
		return
	}
	if k.Packet.Message.Op == wire.OpEnroll {
		d.handleEnroll(j, k)
		return
	}
	d.counters.good.Add(1)
	d.answer(j, k.Packet, d.obey(j, k))
}

// refuse counts a rejection, tells the bus if the device is proven, and answers if that is allowed.
func (d *Daemon) refuse(j job, r *verify.Rejection) {
	d.counters.count(r.Reason)
	d.rememberRefusal(j, r)
	e := event.Event{Kind: event.KnockRefused, Source: j.from.From.Addr().String(), Reason: string(r.Reason)}
	if r.Answer || r.Reason == verify.Replayed {
		e.Device = r.Device
	}
	d.bus.Publish(e)
	if r.Reason == verify.JournalFailed {
		d.bus.Publish(event.Event{Kind: event.JournalFailed, Device: r.Device, Reason: r.Err.Error()})
	}
	if r.Answer {
		d.answer(j, r.Packet, wire.Answer{Status: r.Status})
	}
}

// obey does what an authenticated knock asks and returns what to answer.
func (d *Daemon) obey(j job, k verify.Knock) wire.Answer {
	m := k.Packet.Message
	switch m.Op {
	case wire.OpHello:
		return d.accepted(j, k, "", wire.Answer{Status: wire.Hello})
	case wire.OpClose:
		return d.obeyClose(j, k)
	default:
		return d.obeyOpen(j, k)
	}
}

func (d *Daemon) obeyOpen(j job, k verify.Knock) wire.Answer {
	m := k.Packet.Message
	verdict := d.cfg.Load().Rules.Decide(policy.Request{
		Allow: k.Device.Allow, Service: m.Service, TTL: m.TTL, Source: k.Source, At: time.UnixMilli(d.journal.NowMS()),
	})
	if !verdict.Allowed {
		return d.deny(j, k, verdict.Service.Name, policyError(verdict.Reason), wire.Denied)
	}
	left := untilExpiry(k.Device, verdict.TTL, time.UnixMilli(d.journal.NowMS()))
	verdict.TTL = max(left.Truncate(time.Second), time.Second)
	s, err := d.table.Open(session.Opening{
		Device: k.Device.Name, Key: k.Device.ID().String(), Service: verdict.Service.Name, Source: verdict.Source, TTL: verdict.TTL,
		Delegated: k.Delegated, Fixed: !verdict.Service.Roam, By: "knock", TimeMS: m.TimeMS,
	})
	switch {
	case errors.Is(err, session.ErrStopped):
		return wire.Answer{Status: wire.Busy} // the next start opens
	case errors.Is(err, session.ErrStale):
		return d.deny(j, k, verdict.Service.Name, err, wire.Denied)
	case errors.Is(err, session.ErrFull):
		return d.deny(j, k, verdict.Service.Name, err, wire.Busy)
	case err != nil:
		return d.deny(j, k, verdict.Service.Name, err, wire.Failed)
	}
	left = min(s.Until-bootTime()+time.Second/2, verdict.TTL)
	return d.accepted(j, k, verdict.Service.Name, wire.Answer{
		Status: wire.Opened, TTL: uint16(max(left/time.Second, 1)), Port: verdict.Service.PortFor(verdict.Source.Addr()),
	})
}

func (d *Daemon) obeyClose(j job, k verify.Knock) wire.Answer {
	m := k.Packet.Message
	verdict := d.cfg.Load().Rules.DecideClose(k.Device.Allow, m.Service)
	if !verdict.Allowed {
		return d.deny(j, k, verdict.Service.Name, policyError(verdict.Reason), wire.Denied)
	}
	if err := d.journal.Raise(k.Device.Key, m.TimeMS); err != nil {
		return d.deny(j, k, verdict.Service.Name, journalError{err}, wire.Failed)
	}
	sel := session.Selection{
		Device: k.Device.Name, Key: k.Device.ID().String(), Service: verdict.Service.Name,
		Source: d.sourceOf(verdict.Service.Name, k.Source), Own: !k.Delegated, TimeMS: m.TimeMS,
	}
	switch _, err := d.table.Close(sel, "knock"); {
	case errors.Is(err, session.ErrStopped):
		return wire.Answer{Status: wire.Busy}
	case errors.Is(err, session.ErrStale):
		return d.deny(j, k, verdict.Service.Name, err, wire.Denied)
	case err != nil:
		return d.deny(j, k, verdict.Service.Name, err, wire.Failed)
	}
	return d.accepted(j, k, verdict.Service.Name, wire.Answer{Status: wire.Closed})
}

// sourceOf masks an address to what a door of the service covers.
func (d *Daemon) sourceOf(service string, a netip.Addr) netip.Prefix {
	for _, s := range d.cfg.Load().Doors {
		if s.Name == service {
			return s.Prefix(a)
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// accepted tells the bus that a knock was obeyed; of a hello, which does nothing, only who asks why hears.
func (d *Daemon) accepted(j job, k verify.Knock, service string, a wire.Answer) wire.Answer {
	if a.Status != wire.Hello {
		d.bus.Publish(event.Event{Kind: event.KnockAccepted, Device: k.Device.Name, Service: service, Source: k.Source.String()})
	}
	d.remember(j, k, service, nil, a)
	return a
}

// deny tells the bus why an authenticated knock is not obeyed.
func (d *Daemon) deny(j job, k verify.Knock, service string, why error, status wire.Status) wire.Answer {
	d.remember(j, k, service, why, wire.Answer{})
	d.counters.denied.Add(1)
	kind := event.KnockRefused
	if status == wire.Failed {
		kind = event.BackendFailed
	}
	d.bus.Publish(event.Event{Kind: kind, Device: k.Device.Name, Service: service, Source: k.Source.String(), Reason: why.Error()})
	return wire.Answer{Status: status}
}

// handleEnroll uses the invite. Whatever is wrong is silence: the sender is nobody yet.
func (d *Daemon) handleEnroll(j job, k verify.Knock) {
	if err := d.registry.enroll(k.Packet.Message.Token, k.Device.Key); err != nil {
		d.counters.denied.Add(1)
		d.rememberEnrolment(j, err)
		d.bus.Publish(event.Event{
			Kind: event.KnockRefused, Device: "(enrolment)", Source: j.from.From.Addr().String(), Reason: err.Error(),
		})
		return
	}
	d.counters.good.Add(1)
	d.answer(j, k.Packet, wire.Answer{Status: wire.Enrolled})
}

// answer sends a, completed by what every answer says, if the packet asked for one.
func (d *Daemon) answer(j job, p *wire.Packet, a wire.Answer) {
	if !p.Message.WantAnswer {
		return
	}
	a.RouterMS = d.journal.NowMS()
	a.PacketMS = p.Message.TimeMS
	a.Seen = j.from.From.Addr().WithZone("")
	sealed, err := p.Answer(a, rand.Reader)
	if err == nil && j.relay != nil {
		j.relay.answer = sealed[:]
		return
	}
	if err == nil {
		err = d.udp.Reply(j.from, sealed[:])
	}
	if err != nil {
		d.log.Debug("an answer could not be sent", "to", j.from.From.Addr(), "err", err)
	}
}
