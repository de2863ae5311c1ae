package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"spad/pkg/policy"
)

// parseDuration reads hours, minutes and seconds, as 1h30m. There are no days: no time of ours is that long.
func parseDuration(text string) (time.Duration, bool) {
	if strings.Trim(text, "0123456789hms") != "" || strings.Contains(text, "ms") {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d%time.Second == 0 && text != "0"
}

// short writes a duration as parseDuration reads it, without parts that are zero.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// parseHours reads 07:00-23:00. The end may be 24:00, and may be before the start: over midnight.
func parseHours(text string) (policy.Hours, bool) {
	first, last, ranged := strings.Cut(text, "-")
	from, ok1 := parseClock(first)
	to, ok2 := parseClock(last)
	return policy.Hours{From: from, To: to}, ranged && ok1 && ok2 && from < 24*60
}

// parseClock reads 07:00 as minutes since midnight, up to 24:00.
func parseClock(text string) (int, bool) {
	if len(text) != 5 || text[2] != ':' || strings.Trim(text[:2]+text[3:], "0123456789") != "" {
		return 0, false
	}
	hour, minute := int(text[0]-'0')*10+int(text[1]-'0'), int(text[3]-'0')*10+int(text[4]-'0')
	return hour*60 + minute, hour < 24 && minute < 60 || hour == 24 && minute == 0
}

// parseNetwork reads a network, or an address, which is the network of only itself. If it is wrong, it returns what is
// and what would be right.
func parseNetwork(text string) (p netip.Prefix, what, remedy string) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		p = netip.PrefixFrom(a, a.BitLen())
	} else if p, err = netip.ParsePrefix(text); err != nil {
		return p, quote(text) + " is no network", "write an address and a length, such as 192.168.1.0/24 or 2001:db8::/32"
	}
	switch masked := p.Masked(); {
	case p.Addr().Is4In6():
		return p, text + " is IPv4 written as IPv6", "write it as IPv4: " + p.Addr().Unmap().String()
	case p != masked:
		return p, text + " has bits set behind its length", "write " + masked.String()
	}
	return p, "", ""
}

// parseRate reads 10/s.
func parseRate(text string) (int64, bool) {
	digits, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseInt(digits, 10, 32)
	return n, err == nil && unit == "s" && strconv.FormatInt(n, 10) == digits
}

// parsePort reads a port from 1 to 65535, in the one way to write it.
func parsePort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == text
}

// CheckHostname returns nil if a name can stand in the configuration as hostname: a DNS name in ASCII, or an IP address
// without port and brackets. The error says what is wrong and what would be right.
func CheckHostname(name string) error {
	if what, remedy := checkHost(name); what != "" {
		return fmt.Errorf("hostname: %s; %s", what, remedy)
	}
	return nil
}

// maxHost leaves room for a colon and a port in the 255 bytes that an invite has for both.
const maxHost = 249

func checkHost(name string) (what, remedy string) {
	const example = "write a name such as home.example.net, or an IP address"
	if a, err := netip.ParseAddr(name); err == nil {
		if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
			return quote(name) + " is no address that a device could knock at", "write the router's public address"
		}
		return "", ""
	}
	switch host, _, found := strings.Cut(name, ":"); {
	case name == "":
		return "is empty", example
	case found && !strings.Contains(name[len(host)+1:], ":"):
		return quote(name) + " has a port", `write the name alone here, or external = "HOST:PORT" instead`
	case len(name) > maxHost:
		return fmt.Sprintf("is longer than %d characters", maxHost), example
	case strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f }):
		return quote(name) + " is not ASCII", "write the name as DNS has it, with xn--"
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !validLabel(label) {
			return quote(name) + " is no host name", example
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return quote(name) + " is neither a name nor an IP address", example
	}
	return "", ""
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(label, func(r rune) bool { return !bare(r) })
}
