package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Template returns the configuration that a new router starts with: one service that works, and examples to uncomment.
// The hostname is one that CheckHostname accepts, or empty. No problem is found in it.
func Template(listenPort uint16, hostname string) []byte {
	host := `# hostname = "home.example.net"`
	if hostname != "" {
		host = "hostname = " + strconv.Quote(hostname)
	}
	return []byte(strings.ReplaceAll(fmt.Sprintf(template, listenPort, host), "\t", "    "))
}

const template = `# The configuration of spad. Every key, its default and its bounds: pkg/config/reference.toml in the source.
# After a change: spad check, then spad reload.

# The UDP port that knocks come to. It was picked at random; let it through the firewall of your provider, if there is one.
listen = ":%d"

# What invites tell devices to knock at: the router's name or address as seen from outside.
%s

# READ THIS IF YOU REACH THIS MACHINE BY SSH ALONE.
# The service ssh below shuts tcp/22 for everyone who has not knocked. Connections that stand when spad starts live on, but
# a new one needs a knock. So, before the first start, do one of the two:
#   1. name the network that you come from: it is never shut out;
#   2. or write guard = "off" in [service.ssh] until a knock of yours has been answered, then drop that line.
# always_allow = ["192.168.1.0/24", "2001:db8:1234::/48"]

# A service is what a device can open: ports of this machine ...
[service.ssh]
open = ["tcp/22"]
ttl  = "15m"          # how long a door stays open; what was connected by then lives on
# guard = "off"       # leave the port to everybody for now; knocking works all the same

# ... or a port that leads to a host behind it.
# [service.nas]
# forward   = { port = "tcp/7890", to = "192.168.1.50:80" }
# ttl       = "1h"
# on_expire = "cut"   # end what is connected when the door shuts

# Groups grant several services, if you like only from somewhere or at some hours.
# [group.family]
# services = ["nas"]
# hours    = "07:00-23:00"

# Devices come by invite (spad invite laptop --allow ssh) and are kept in the state folder. One can be written here too:
# [device.laptop]
# key   = "knock-device:..."
# allow = ["ssh", "group:family"]
`
