package client

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"spad/pkg/wire"
)

// Family is a version of the internet protocol.
type Family uint8

// The families, and Both, the zero value, where a choice between them is offered.
const (
	Both Family = 0
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "IPv4", "IPv6" or "IPv4 and IPv6".
func (f Family) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return "IPv4 and IPv6"
}

// ErrNoAnswer means that packets were sent and no answer came.
var ErrNoAnswer = errors.New("no answer")

// StatusError is an answer that does not grant the wish.
type StatusError struct{ Status wire.Status }

// Error returns the name of the status.
func (e *StatusError) Error() string { return "the router answered: " + e.Status.String() }

// Result is what became of one service in one family.
type Result struct {
	Service string
	Family  Family
	Router  netip.AddrPort // where the packets went; not valid if there was no way
	// Err is nil if the wish was granted, or if the packet left and no answer was
	// asked for. Else it is a *StatusError, ErrNoAnswer, or what failed on this device.
	Err error
	// The rest is set only if Answered.
	Answered bool
	Status   wire.Status
	TTL      time.Duration // granted
	Port     uint16        // to connect to; 0 if the service has not exactly one
	Seen     netip.Addr    // the address the router saw

	rtt time.Duration
}

// rank orders results by what they tell about the service: a success, then what the
// router said, then silence, then what this device could not do. That something
// failed is put before a denial: a service that can't be had in a family is denied
// there as a matter of course.
func (r Result) rank() int {
	var s *StatusError
	switch {
	case r.Err == nil:
		return 0
	case errors.As(r.Err, &s) && s.Status != wire.Denied:
		return 1
	case errors.As(r.Err, &s):
		return 2
	case errors.Is(r.Err, ErrNoAnswer):
		return 3
	}
	return 4
}

// Outcome is what became of one service. Families has a result for each family whose
// answer was awaited, IPv4 first: not for one that lost the race after the other had
// succeeded.
type Outcome struct {
	Service  string
	Families []Result
}

// Best returns the result that counts: one success is success.
func (o Outcome) Best() Result {
	if len(o.Families) == 0 {
		return Result{Service: o.Service, Err: ErrNoAnswer}
	}
	return slices.MinFunc(o.Families, func(a, b Result) int { return cmp.Compare(a.rank(), b.rank()) })
}

// Err returns nil if the wish was granted in a family, else what went wrong, naming
// the families: a *StatusError, an ErrNoAnswer or a local error, for errors.Is and As.
func (o Outcome) Err() error {
	best := o.Best()
	switch rank := best.rank(); {
	case rank <= 2 || best.Family == Both:
		return best.Err
	case rank == 3:
		return o.silence()
	}
	return o.local()
}

func (o Outcome) silence() error {
	var tried []string
	for _, r := range o.Families {
		if errors.Is(r.Err, ErrNoAnswer) {
			tried = append(tried, r.Family.String())
		}
	}
	return fmt.Errorf("%w (%s)", ErrNoAnswer, strings.Join(tried, " and "))
}

func (o Outcome) local() error {
	if len(o.Families) == 1 || o.Families[0].Err.Error() == o.Families[1].Err.Error() {
		return o.Families[0].Err
	}
	a, b := o.Families[0], o.Families[1]
	return fmt.Errorf("%v: %w; %v: %w", a.Family, a.Err, b.Family, b.Err)
}

// failed gives all wishes the same result.
func failed(wishes []wish, err error) []Outcome {
	out := make([]Outcome, len(wishes))
	for i, w := range wishes {
		out[i] = Outcome{Service: w.service, Families: []Result{{Service: w.service, Err: err}}}
	}
	return out
}
