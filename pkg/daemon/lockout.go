package daemon

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"spad/pkg/firewall"
)

// lockout returns an error if the guard of a ruleset would shut out the ssh session that spad is started from.
// connection is the environment's SSH_CONNECTION: client address, client port, server address, server port.
func lockout(rules firewall.Ruleset, connection string) error {
	words := strings.Fields(connection)
	if len(words) != 4 {
		return nil
	}
	client, err := netip.ParseAddr(words[0])
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(words[3], 10, 16)
	if err != nil {
		return nil
	}
	client = client.Unmap().WithZone("")
	for _, p := range rules.AlwaysAllow {
		if p.Contains(client) {
			return nil
		}
	}
	if client.IsLoopback() {
		return nil
	}
	for _, s := range rules.Services {
		if s.Guard != firewall.GuardOff && guards(s, uint16(port)) {
			return fmt.Errorf("service %q would shut the port of the ssh session you are starting spad from (%s, tcp/%d): "+
				"put %s into always_allow, or start it with --allow-lockout", s.Name, client, port, client)
		}
	}
	return nil
}

func guards(s firewall.Service, port uint16) bool {
	for _, p := range s.Ports() {
		if p.Proto == firewall.TCP && p.First <= port && port <= p.Last {
			return true
		}
	}
	return false
}
