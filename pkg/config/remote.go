package config

import (
	"fmt"
	"net/netip"
)

// remote reads where remote control listens. That every address is meant has to be written out: a port alone would be
// quickly written and widely open.
func (t table) remote() netip.AddrPort {
	const example = "192.168.1.1:41373"
	text, ok := t.text("remote", example)
	if !ok {
		return netip.AddrPort{}
	}
	at, err := netip.ParseAddrPort(text)
	remedy := fmt.Sprintf("write an address of the router and a port, such as remote = %q", example)
	switch {
	case len(text) > 1 && text[0] == ':':
		t.bad("remote", quote(text)+" names no address", remedy+`, or "0.0.0.0`+text+`" for every one`)
	case err != nil || at.Port() == 0:
		t.bad("remote", quote(text)+" is no address and port", remedy)
	case at.Addr().Zone() != "" || at.Addr().Is4In6() || at.Addr().IsMulticast():
		t.bad("remote", quote(text)+" is no address that others can connect to", remedy)
	}
	return at
}
