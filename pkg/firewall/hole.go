package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// MinHoleBits is how many last bits of an address a Hole must have: the half that a host chooses, and no provider.
const MinHoleBits = 64

// Hole is whom a pinhole leads to: a host behind the router, by its own IPv6 address, or by the end of it where the
// provider changes the beginning. The zero value is nobody.
type Hole struct {
	Addr netip.Addr // bits that don't count are zero
	Bits int        // how many of the last bits count: 64 to 128, which is the whole address
}

// ParseHole reads "2001:db8:5::50", or "::50/-64" for every address whose last 64 bits are those of ::50. It takes only
// what String writes.
func ParseHole(text string) (Hole, error) {
	addr, length, suffix := strings.Cut(text, "/-")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return Hole{}, fmt.Errorf("pinhole %q: want an IPv6 address, or the end of one as ::50/-64", text)
	}
	h := Hole{a, 128}
	if suffix {
		if h.Bits, err = strconv.Atoi(length); err != nil || h.Bits == 128 {
			return Hole{}, fmt.Errorf("pinhole %q: want a number of last bits, as ::50/-64", text)
		}
	}
	if err := h.check(); err != nil {
		return Hole{}, err
	}
	if h.String() != text {
		return Hole{}, fmt.Errorf("pinhole %q: write it as %v", text, h)
	}
	return h, nil
}

// IsValid reports whether there is a pinhole.
func (h Hole) IsValid() bool { return h != Hole{} }

// String returns the text that ParseHole reads.
func (h Hole) String() string {
	switch {
	case !h.IsValid():
		return "none"
	case h.Bits == 128:
		return h.Addr.String()
	}
	return fmt.Sprintf("%v/-%d", h.Addr, h.Bits)
}

// Mask returns the address whose bits are set where those of the host's count.
func (h Hole) Mask() netip.Addr {
	var m [16]byte
	for i := 128 - h.Bits; i < 128; i++ {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom16(m)
}

// Contains reports whether an address is the host's.
func (h Hole) Contains(a netip.Addr) bool {
	return h.IsValid() && a.Is6() && end(a, h.Bits) == h.Addr
}

// Overlaps reports whether an address can be the host's of both.
func (h Hole) Overlaps(o Hole) bool {
	bits := min(h.Bits, o.Bits)
	return h.IsValid() && o.IsValid() && end(h.Addr, bits) == end(o.Addr, bits)
}

// end returns an IPv6 address without what is before its last bits.
func end(a netip.Addr, bits int) netip.Addr {
	b, m := a.As16(), Hole{Bits: bits}.Mask().As16()
	for i := range b {
		b[i] &= m[i]
	}
	return netip.AddrFrom16(b)
}

func (h Hole) check() error {
	switch a := h.Addr; {
	case !a.Is6() || a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("pinhole %v: want an IPv6 address without zone", h.Addr)
	case h.Bits < MinHoleBits || h.Bits > 128:
		return fmt.Errorf("pinhole %v: want the last %d bits at least", h, MinHoleBits)
	case end(a, h.Bits) != a:
		return fmt.Errorf("pinhole %v: has bits set before the last %d", h, h.Bits)
	case a.IsUnspecified():
		return fmt.Errorf("pinhole %v: is no host's address", h)
	case h.Bits == 128 && (a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast()):
		return fmt.Errorf("pinhole %v: is no address that packets are forwarded to", h)
	}
	return nil
}

// Cluster is services with pinholes for different hosts, whose ports overlap or touch through those of others. Nearly
// always that is one service, or several with the same port.
type Cluster struct {
	Ports
	Services []Service
}

// Clusters returns the pinholes of services by port. The ports of clusters do not overlap.
func Clusters(services []Service) []Cluster {
	var holes []Service
	for _, s := range services {
		if s.Forward != nil && s.Forward.Hole.IsValid() {
			holes = append(holes, s)
		}
	}
	slices.SortStableFunc(holes, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Forward.Port.Proto, b.Forward.Port.Proto), cmp.Compare(a.Forward.Port.First, b.Forward.Port.First))
	})
	var all []Cluster
	for _, s := range holes {
		if n := len(all); n > 0 && all[n-1].Overlaps(s.Forward.Port) {
			all[n-1].Services = append(all[n-1].Services, s)
			all[n-1].Last = max(all[n-1].Last, s.Forward.Port.Last)
		} else {
			all = append(all, Cluster{s.Forward.Port, []Service{s}})
		}
	}
	return all
}

// holeClashes returns an error for each two pinholes that want the same port of the same host.
func holeClashes(services []Service) []error {
	var errs []error
	for _, c := range Clusters(services) {
		for i, s := range c.Services {
			for _, other := range c.Services[:i] {
				if s.Forward.Hole.Overlaps(other.Forward.Hole) && s.Forward.Port.Overlaps(other.Forward.Port) {
					errs = append(errs, fmt.Errorf("service %q: %v of %v overlaps %v of %v of service %q",
						s.Name, s.Forward.Port, s.Forward.Hole, other.Forward.Port, other.Forward.Hole, other.Name))
				}
			}
		}
	}
	return errs
}

var errTwoWays = errors.New("a pinhole and an IPv6 target: want one of them")
