package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"spad/pkg/control"
	"spad/pkg/policy"
	"spad/pkg/session"
	"spad/pkg/verify"
	"spad/pkg/wire"
)

// remedies say of each reason what it means and what to do. A test holds them against the packages that give reasons.
var remedies = map[string]string{
	// Packets that prove nobody.
	string(verify.Length):    "datagrams of another size: another program, or a scan; no knock is among them",
	string(verify.Gate):      "not made with this router's key: another program, a scan, or a device enrolled before the key was replaced; enrol that one anew",
	string(verify.Budget):    "more packets than the budget allows: a flood by somebody who has the router's key, or a device that knocks without pause; see budget",
	string(verify.Repeated):  "the same packet again at once, as a network or a client that repeats itself sends it; the first one counted",
	string(verify.Key):       "a packet with a weak key: nobody's honest program",
	string(verify.Box):       "damaged on its way, or made by somebody who has the router's key and no working client",
	string(verify.Format):    "a packet of another version or with impossible contents: update the client",
	string(verify.Device):    "a device that is not enrolled here, or was removed: compare spad device list with what knock key says there",
	string(verify.Token):     "an enrolment whose invite was used, has expired or was withdrawn: make another with spad invite",
	string(verify.Signature): "signed with another key than the device's: somebody pretends to be it, or its key file was exchanged",

	// Packets that name a device, and may have been recorded.
	string(verify.Inactive): "the device is disabled, or its expires has passed: spad device show tells which",
	string(verify.Replayed): "the packet's time was used before: it was recorded and sent again, or came late behind a newer one; " +
		"if the device itself is refused, two copies of its key are in use, or its clock went back: knock once more",
	string(verify.JournalFailed): "the replay journal can't be written, so nothing opens: make room on the disk of the state directory, see spad's log",

	// Knocks.
	string(verify.ClockOff):       "the device's clock differs by more than window; it was told the time and knocks again by itself; if this goes on, set the router's clock",
	string(verify.Mismatch):       "the packet came from another address than the device declared: something between translates addresses (knock --no-address), or somebody held it back",
	string(verify.BadAddress):     "no door is opened for an address that is the router's own, loopback, link-local or multicast: knock from another network",
	string(policy.UnknownService): "no service of that name: compare the name with those in the configuration, or reload it",
	string(policy.NotAllowed):     "the device's allow does not grant it: add the service or a group in allow, then spad reload; or invite the device anew",
	string(policy.NotFromHere):    "its groups grant it from other networks only: see from in [group.…]",
	string(policy.NotNow):         "its groups grant it at other hours only: see hours in [group.…], in the router's local time",
	string(policy.NoSuchFamily):   "the service has no target for this address family: add one to its forward, or knock with -4 or -6",
	session.ErrStale.Error():      "a later knock or close of the device overtook it: nothing to do",
	session.ErrFull.Error():       "the most doors are open already: close some with spad close, or shorten ttl",
	errRelay.Error():              "who handed the knock in has no right to the service: see spad remote list; the device itself may knock by UDP",
	backendFailed:                 "the firewall did not take the door: see spad's log, and whether nft or iptables works by hand",
	enrolFailed:                   "the invite was good and the device could not be enrolled: see spad's log",
}

// refused is the outcome of a knock that was not obeyed.
const refused = "refused"

// Reasons of the daemon's own.
const (
	backendFailed = "firewall failed"
	enrolFailed   = "enrolment failed"
)

// provesNobody are the reasons to drop a packet of which nothing is kept but the number.
var provesNobody = []verify.Reason{
	verify.Length, verify.Gate, verify.Budget, verify.Repeated, verify.Key, verify.Box, verify.Format, verify.Device, verify.Token,
	verify.Signature,
}

// Why implements control.Explainer.
func (d *Daemon) Why(_ context.Context, r control.WhyRequest) (control.Why, error) {
	pick := func(k control.Knock) bool { return k.Device == r.Device }
	if r.Device == "" {
		address := r.Address.String()
		pick = func(k control.Knock) bool { return k.Source == address || k.Sender == address }
	}
	w := control.Why{Since: d.started, Knocks: d.past.of(pick), Drops: []control.Drop{}}
	if _, enrolled := d.registry.Roster().ByName(r.Device); r.Device != "" && !enrolled && len(w.Knocks) == 0 {
		return w, control.Unknown(fmt.Sprintf("no device is called %q; spad device list shows them", r.Device))
	}
	for i := range w.Knocks {
		k := &w.Knocks[i]
		k.Remedy = remedies[k.Reason]
	}
	if w.Knocks == nil {
		w.Knocks = []control.Knock{}
	}
	for _, reason := range provesNobody {
		if n := d.counters.of(reason); n > 0 {
			w.Drops = append(w.Drops, control.Drop{Reason: string(reason), Count: n, Remedy: remedies[string(reason)]})
		}
	}
	return w, nil
}

// remember notes an authenticated knock and what became of it; why is nothing if it was obeyed.
func (d *Daemon) remember(j job, k verify.Knock, service string, why error, a wire.Answer) {
	n := control.Knock{Time: time.Now(), Device: k.Device.Name, Service: service, Source: k.Source.String(), TTL: int(a.TTL)}
	n.Outcome = a.Status.String()
	if why != nil {
		n.Outcome = refused
		n.Reason, n.Detail = reasonOf(why)
	}
	if sender := j.sender(); sender != n.Source {
		n.Sender = sender
	}
	d.past.fresh.add(n)
}

// rememberRefusal notes a packet that was refused before policy, if it names a device.
func (d *Daemon) rememberRefusal(j job, r *verify.Rejection) {
	if r.Device == "" {
		return
	}
	k := control.Knock{Time: time.Now(), Device: r.Device, Source: j.sender(), Outcome: refused, Reason: string(r.Reason)}
	if r.Err != nil {
		k.Detail = r.Err.Error()
	}
	switch r.Reason {
	case verify.ClockOff, verify.Mismatch, verify.BadAddress: // its time is spent: it can't be sent again
		d.past.fresh.add(k)
	default:
		d.past.doubtful.add(k)
	}
}

// rememberEnrolment notes why a good invite enrolled nobody. It is open and may be used again, by whoever recorded it too.
func (d *Daemon) rememberEnrolment(j job, why error) {
	d.past.doubtful.add(control.Knock{
		Time: time.Now(), Source: j.sender(), Outcome: refused, Reason: enrolFailed, Detail: why.Error(),
	})
}

// policyError is a denial by policy.
type policyError policy.Reason

func (e policyError) Error() string { return string(e) }

// journalError is a failure of the replay journal.
type journalError struct{ error }

// reasonOf returns the reason that an error stands for, as remedies has it, and what the error says beyond it.
func reasonOf(why error) (reason, detail string) {
	if p, ok := errors.AsType[policyError](why); ok {
		return string(p), ""
	}
	reason = backendFailed
	for _, known := range []error{session.ErrStale, session.ErrFull, errRelay} {
		if errors.Is(why, known) {
			reason = known.Error()
		}
	}
	if _, ok := errors.AsType[journalError](why); ok {
		reason = string(verify.JournalFailed)
	}
	if detail = why.Error(); detail == reason {
		detail = ""
	}
	return reason, detail
}

// sender is the address in the packet's header.
func (j job) sender() string { return j.from.From.Addr().WithZone("").String() }
