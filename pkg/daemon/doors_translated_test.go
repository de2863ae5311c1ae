package daemon_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

// lasting makes a connection through a way and leaves it open; over UDP the server sends without end.
func (d *doors) lasting(h *firewalltest.Host, w doorWay) *firewalltest.Call {
	d.t.Helper()
	c, err := h.Call(netip.AddrPort{}, w.proto, d.Router.At(w.v6, w.port), patient)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	if w.proto == firewall.UDP {
		err = c.Stream()
	} else {
		err = c.Ping(d.behind(w), patient)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// lives reports whether a lasting connection still carries something.
func (d *doors) lives(c *firewalltest.Call, w doorWay) bool {
	if w.proto == firewall.UDP {
		return !c.Silent(impatient)
	}
	return c.Ping(d.behind(w), impatient) == nil
}

// A published port that strangers already use when spad starts: by on_expire, their connections live on or end, as those
// of a device do when its door shuts.
func TestDoorsDockerConnections(t *testing.T) {
	var all []subtest
	for _, row := range everyBackend(func(f besides) bool { return f.published }) {
		for _, onExpire := range []string{"keep", "cut"} {
			all = append(all, subtest{row.name + "/" + onExpire, func(t *testing.T) {
				d, cut := newDoors(t, row.besides, ""), onExpire == "cut"
				d.configure(row.config + strings.ReplaceAll(doorServices, "[service.own]", "[service.own]\non_expire = \""+onExpire+"\""))
				d.load(d.rig)
				if d.allow != nil {
					d.allow(d.rig)
				}
				d.ways = slices.DeleteFunc(d.ways, func(w doorWay) bool {
					// iptables has no table behind source NAT, where an answer of a container's has the router's address: it
					// can't cut what nobody asks for.
					return w.kind != "own" || cut && w.proto == firewall.UDP && row.backend != "nftables"
				})
				var before, during []*firewalltest.Call
				for _, w := range d.ways {
					before = append(before, d.lasting(d.Stranger, w))
				}
				d.begin()
				d.each("others", d.silent(d.Stranger))
				d.knock("own", "--no-address")
				for _, w := range d.ways {
					during = append(during, d.lasting(d.Laptop, w))
				}
				d.knock("close", "own")
				for i, w := range d.ways {
					for who, c := range map[string]*firewalltest.Call{"the stranger's, from before spad": before[i], "the laptop's": during[i]} {
						if d.lives(c, w) == cut {
							t.Errorf("%s, %v, IPv6 %v: lives %v, on_expire cut %v", who, w.proto, w.v6, !cut, cut)
						}
					}
				}
				d.each("shut", d.silent(d.Laptop))
			}})
		}
	}
	atOnce(t, all)
}

// The LAN's connections to somebody else, which another program leads to the router itself (a DNS that everybody has to use),
// are not the business of a service at that port: neither hidden nor cut. (iptables can't tell them from a stranger's who was
// redirected from our own port, and cuts both.)
func TestDoorsRedirected(t *testing.T) {
	t.Parallel()
	d := newDoors(t, besides{programs: []string{"nft"}}, "")
	d.configure("[service.own]\nopen = [\"tcp/2201\", \"udp/2202\"]\non_expire = \"cut\"\n")
	d.nft(d.links(`table inet elsewhere {
		chain prerouting {
			type nat hook prerouting priority dstnat; policy accept;
			iifname "LAN_LINK" th dport { 2201, 2202 } fib daddr type != local dnat ip to ` + d.Router.IP4.String() + `
			iifname "LAN_LINK" th dport { 2201, 2202 } fib daddr type != local dnat ip6 to ` + firewalltest.RouterLAN6.String() + `
		}
	}`))
	d.ways = slices.DeleteFunc(d.ways, func(w doorWay) bool { return w.kind != "own" })
	d.start()
	d.each("elsewhere", func(w doorWay) error {
		return call(d.LANHost, w.proto, d.Laptop.At(w.v6, w.port), byRouter, patient)
	})
	d.each("shut", d.silent(d.LANHost))
}
