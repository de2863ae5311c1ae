package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"spad/pkg/client"
)

// network is which families this device has, by its own addresses.
func (e *examination) network() {
	var kinds []string
	for _, v6 := range []bool{false, true} {
		f := client.IPv4
		if v6 {
			f = client.IPv6
		}
		kinds = append(kinds, fmt.Sprintf("%v %s", f, own(v6)))
	}
	e.ok("network", "%s", strings.Join(kinds, ", "))
}

// own says what kind of address this device has in a family.
func own(v6 bool) string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "could not be looked at (" + err.Error() + ")"
	}
	private := ""
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); ip.Is6() != v6 || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		if client.Global(ip) {
			return ip.String() + " (public)"
		}
		private = ip.String() + " (private: translated on the way)"
	}
	if private == "" {
		return "none"
	}
	return private
}

// greeting is what a router's answer tells: "answered in 12 ms, saw you as 203.0.113.7 (you are behind NAT), your clock is off by 3 s".
func greeting(d client.Diagnosis, w client.Way) string {
	text := fmt.Sprintf("the router answered in %s, saw you as %v", milliseconds(w.RTT), w.Result.Seen)
	if w.Local.IsValid() && w.Result.Seen != w.Local {
		text += fmt.Sprintf(" (you are behind NAT, here it is %v)", w.Local)
	}
	if off := d.Offset.Round(100 * time.Millisecond); d.Known && off.Abs() >= time.Second {
		direction := "behind"
		if off < 0 {
			direction = "ahead"
		}
		text += fmt.Sprintf(", your clock is off by %v (%s; knocks correct for it)", off.Abs(), direction)
	}
	return text + packets(w.Local)
}

func milliseconds(d time.Duration) string {
	if d < time.Millisecond {
		return "under 1 ms"
	}
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}

// packets says by which link packets leave, if that can be told.
func packets(local netip.Addr) string {
	links, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if ip, _ := netip.AddrFromSlice(n.IP); ip.Unmap() == local.WithZone("") {
				return fmt.Sprintf("; packets leave by %s (MTU %d)", l.Name, l.MTU)
			}
		}
	}
	return ""
}

func silence(w client.Way) string {
	at := w.Result.Router.String()
	if len(w.Addrs) > 1 {
		at += " and its other address"
	}
	return fmt.Sprintf("nothing came back from %s, asked from %v%s", at, w.Local, packets(w.Local))
}

// obstacle says why no packet left.
func obstacle(r client.Router, w client.Way) string {
	var dns *net.DNSError
	switch {
	case errors.As(w.LookupErr, &dns) && dns.IsNotFound:
		return fmt.Sprintf("%s has no %v address", r.Host(), w.Family)
	case errors.Is(w.LookupErr, context.DeadlineExceeded) || dns != nil && dns.IsTimeout:
		return fmt.Sprintf("looking up %s: no answer from the name server%s", r.Host(), server(dns))
	case dns != nil:
		return fmt.Sprintf("looking up %s: %s%s", r.Host(), dns.Err, server(dns))
	case w.LookupErr != nil:
		return w.LookupErr.Error()
	case w.LocalErr != nil:
		return w.LocalErr.Error()
	case w.Result.Err != nil:
		return w.Result.Err.Error()
	}
	return "no packet left"
}

// server names the resolver, where the system says which one it was.
func server(dns *net.DNSError) string {
	if dns == nil || dns.Server == "" {
		return ""
	}
	return " (" + dns.Server + ")"
}
