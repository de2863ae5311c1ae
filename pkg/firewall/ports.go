package firewall

import (
	"fmt"
	"strconv"
	"strings"
)

// Proto is a transport protocol, by its IP protocol number.
type Proto uint8

// The transport protocols that have ports.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// String returns "tcp" or "udp".
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "proto " + strconv.Itoa(int(p))
}

// Ports is a range of ports of one protocol, both ends included.
type Ports struct {
	Proto       Proto
	First, Last uint16
}

// ParsePorts reads "tcp/22" or "udp/60000-61000". It takes only what String writes.
func ParsePorts(text string) (Ports, error) {
	proto, ports, ok := strings.Cut(text, "/")
	if !ok {
		return Ports{}, fmt.Errorf("ports %q: want a protocol and a port, as tcp/22 or udp/60000-61000", text)
	}
	var p Ports
	switch proto {
	case "tcp":
		p.Proto = TCP
	case "udp":
		p.Proto = UDP
	default:
		return Ports{}, fmt.Errorf("ports %q: the protocol is tcp or udp, in lower case", text)
	}
	first, last, ranged := strings.Cut(ports, "-")
	var err error
	if p.First, err = parsePort(first); err != nil {
		return Ports{}, fmt.Errorf("ports %q: %w", text, err)
	}
	p.Last = p.First
	if ranged {
		if p.Last, err = parsePort(last); err != nil {
			return Ports{}, fmt.Errorf("ports %q: %w", text, err)
		}
		if p.Last <= p.First {
			return Ports{}, fmt.Errorf("ports %q: a range goes from a lower to a higher port", text)
		}
	}
	return p, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("%q is no port: want a number from 1 to 65535", text)
	}
	return uint16(n), nil
}

// String returns the text that ParsePorts reads.
func (p Ports) String() string {
	if p.First == p.Last {
		return fmt.Sprintf("%v/%d", p.Proto, p.First)
	}
	return fmt.Sprintf("%v/%d-%d", p.Proto, p.First, p.Last)
}

// Overlaps reports whether a port of p is also one of q.
func (p Ports) Overlaps(q Ports) bool {
	return p.Proto == q.Proto && p.First <= q.Last && q.First <= p.Last
}

// Count returns how many ports there are.
func (p Ports) Count() int { return int(p.Last) - int(p.First) + 1 }

// Contains reports whether the port is one of p.
func (p Ports) Contains(proto Proto, port uint16) bool {
	return p.Proto == proto && p.First <= port && port <= p.Last
}

func (p Ports) check() error {
	if p.Proto != TCP && p.Proto != UDP {
		return fmt.Errorf("ports %v: the protocol is tcp or udp", p)
	}
	if p.First == 0 || p.Last < p.First {
		return fmt.Errorf("ports %v: want 1 to 65535, the lower first", p)
	}
	return nil
}
