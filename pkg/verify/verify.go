// Package verify turns a datagram into a Knock or a Rejection. It is the only place that orders the checks of
// PROTOCOL.md, each dearer than the one before:
//
//	1 length       2 gate          3 budget      4 gate value seen lately      Admit: where the packet is read
//	5 box          6 format        7 device or token          8 signature      Verify: on a worker
//	9 time, spent on disk          10 address
//
// The eleventh, policy, is Decide of package policy on the Knock that comes out. A rejection at 1 to 8, or of a time
// already spent, is silence on the wire; Rejection.Answer says whether an answer may be sent at all.
package verify

import (
	"net/netip"
	"sync/atomic"
	"time"

	"spad/keys"
	"spad/pkg/device"
	"spad/pkg/flood"
	"spad/pkg/replay"
	"spad/pkg/wire"
)

// Journal remembers which times were used. *replay.Journal is one.
type Journal interface {
	// NowMS is the knock clock, milliseconds since 1970-01-01 UTC.
	NowMS() int64
	// Spend uses up a time of a device; what it says is on disk when it returns.
	Spend(k keys.DevicePublic, timeMS int64) (replay.Verdict, error)
}

// Tokens finds the secret of an open invite. *device.Store is one.
type Tokens interface {
	// Token returns the secret of a token that exists and has not expired.
	Token(id keys.TokenID, nowMS int64) (keys.TokenSecret, bool)
}

// Knock is an authenticated packet. Of every operation but enroll its time is spent and fresh, and Source is an
// address a door may be opened for.
type Knock struct {
	// Packet is what came in; it makes the answer.
	Packet *wire.Packet
	// Device is who knocked; of an enrolment only its Key is set.
	Device device.Device
	// Source is the address to open for: the one in the IP header, or the one a delegate named.
	Source netip.Addr
	// Delegated is true if a delegate named an address that is not the header's.
	Delegated bool
}

// Verifier runs the checks. Safe for concurrent use.
type Verifier struct {
	opener   *wire.Opener
	budget   *flood.Budget
	seen     *flood.Seen
	journal  Journal
	tokens   Tokens
	roster   atomic.Pointer[device.Roster]
	own      atomic.Pointer[map[netip.Addr]bool]
	loopback atomic.Bool
}

// Options are the parts a Verifier works with; all are needed.
type Options struct {
	Secret   keys.RouterSecret
	Budget   *flood.Budget
	Journal  Journal
	Tokens   Tokens
	Roster   *device.Roster
	Loopback bool // accept loopback sources: for tests (configuration key test_loopback)
}

// New returns a Verifier.
func New(o Options) *Verifier {
	v := &Verifier{
		opener:  wire.NewOpener(o.Secret),
		budget:  o.Budget,
		seen:    flood.NewSeen(),
		journal: o.Journal,
		tokens:  o.Tokens,
	}
	v.loopback.Store(o.Loopback)
	v.roster.Store(o.Roster)
	v.own.Store(&map[netip.Addr]bool{})
	return v
}

// SetRoster replaces the enrolled devices.
func (v *Verifier) SetRoster(r *device.Roster) { v.roster.Store(r) }

// SetLoopback says whether loopback sources are accepted.
func (v *Verifier) SetLoopback(yes bool) { v.loopback.Store(yes) }

// SetOwn replaces the set of the router's own addresses, which are refused as a source.
func (v *Verifier) SetOwn(addrs []netip.Addr) {
	own := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		own[a.Unmap().WithZone("")] = true
	}
	v.own.Store(&own)
}

// Admit runs checks 1 to 4, which cost no public-key work and no allocation: it belongs where packets are read. It
// returns Accepted, or the reason to drop the packet silently. now is monotonic; src is the header's source, unmapped.
func (v *Verifier) Admit(p []byte, src netip.Addr, now time.Duration) Reason {
	switch v.opener.Gate(p) {
	case nil:
	case wire.ErrLength:
		return Length
	default:
		return Gate
	}
	if !v.budget.Take(now, src) {
		return Budget
	}
	if !v.seen.Add(wire.GateValue(p)) {
		v.budget.Return(now, src)
		return Repeated
	}
	return Accepted
}

// Verify runs checks 5 to 10 on a packet that Admit accepted. It returns a Knock, or a Rejection as the error.
func (v *Verifier) Verify(p []byte, src netip.Addr, now time.Duration) (Knock, error) {
	packet, err := v.opener.Open(p)
	if err != nil {
		return Knock{}, &Rejection{Reason: classify(err)}
	}
	if packet.Message.Op == wire.OpEnroll {
		return v.enrolment(packet, src)
	}
	d, ok := v.roster.Load().ByID(packet.Message.Device)
	if !ok {
		return Knock{}, &Rejection{Reason: Device}
	}
	if !d.Active(v.journal.NowMS()) {
		return Knock{}, &Rejection{Reason: Inactive, Device: d.Name}
	}
	if !packet.SignedBy(d.Key) {
		return Knock{}, &Rejection{Reason: Signature}
	}
	if r := v.spend(packet, d); r != nil {
		return Knock{}, r
	}
	v.budget.Good(now, src)
	return v.address(packet, d, src)
}

// enrolment checks the token and the signature that proves both it and the new key.
func (v *Verifier) enrolment(packet *wire.Packet, src netip.Addr) (Knock, error) {
	secret, ok := v.tokens.Token(packet.Message.Token, v.journal.NowMS())
	if !ok {
		return Knock{}, &Rejection{Reason: Token}
	}
	if !packet.SignedWith(secret) {
		return Knock{}, &Rejection{Reason: Signature}
	}
	return Knock{Packet: packet, Device: device.Device{Key: packet.Message.Key}, Source: src}, nil
}

// spend uses the packet's time up: check 9.
func (v *Verifier) spend(packet *wire.Packet, d device.Device) *Rejection {
	verdict, err := v.journal.Spend(d.Key, packet.Message.TimeMS)
	switch {
	case err != nil:
		return &Rejection{Reason: JournalFailed, Device: d.Name, Status: wire.Failed, Answer: true, Packet: packet, Err: err}
	case verdict == replay.Fresh:
		return nil
	case verdict == replay.ClockOff:
		return &Rejection{Reason: ClockOff, Device: d.Name, Status: wire.ClockOff, Answer: true, Packet: packet}
	default:
		return &Rejection{Reason: Replayed, Device: d.Name}
	}
}

// address settles which address the knock is for: check 10.
func (v *Verifier) address(packet *wire.Packet, d device.Device, src netip.Addr) (Knock, error) {
	k := Knock{Packet: packet, Device: d, Source: src}
	named := packet.Message.Address
	if named.IsValid() && named != src {
		if !d.Delegate {
			return Knock{}, &Rejection{Reason: Mismatch, Device: d.Name, Status: wire.Mismatch, Answer: true, Packet: packet}
		}
		k.Source, k.Delegated = named, true
	}
	if v.Usable(k.Source) {
		return k, nil
	}
	status := wire.Denied
	if named.IsValid() {
		status = wire.Mismatch
	}
	return Knock{}, &Rejection{Reason: BadAddress, Device: d.Name, Status: status, Answer: true, Packet: packet}
}

// Usable says whether a door may be opened for an address: not if it is unspecified, multicast, loopback (unless the
// configuration says test), or the router's own; nor if it is IPv6 link-local, which another host on each link may have.
func (v *Verifier) Usable(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == broadcast || a.Is6() && a.IsLinkLocalUnicast() {
		return false
	}
	if a.IsLoopback() {
		return v.loopback.Load()
	}
	return !(*v.own.Load())[a.WithZone("")]
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
