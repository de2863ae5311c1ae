package firewalltest

import (
	"encoding/binary"
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

func testMulticast(t *testing.T, f Factory) {
	s := newScene(t, f, nil)
	const guarded, unguarded = 2900, 2901
	s.rules.Services = []firewall.Service{{Name: "cast", Open: []firewall.Ports{{Proto: firewall.UDP, First: guarded, Last: guarded}}}}
	s.must(s.Apply(s.rules, nil))
	for _, v6 := range s.families() {
		// The host on the other end of the router's link sends to all hosts there. A port that nobody guards gets it.
		network, group, from := "udp4", "224.0.0.1", s.Router.hops.up4
		if v6 {
			network, group, from = "udp6", "ff02::1", s.Router.hops.up6
		}
		hidden := s.Router.serve(t, network, guarded, tagRouter)
		public := s.Router.serve(t, network, unguarded, tagRouter)
		s.must(s.Internet.shout(s.Router.down, group, guarded))
		s.must(s.Internet.shout(s.Router.down, group, unguarded))
		for until := time.Now().Add(longEnough); public.Seen(from) == 0 && time.Now().Before(until); {
			time.Sleep(10 * time.Millisecond)
		}
		if public.Seen(from) == 0 {
			t.Errorf("the test's packet to %s does not even arrive at a port that is not guarded", group)
		}
		if n := hidden.Seen(from); n != 0 {
			t.Errorf("%d packets to %s got past the guard", n, group)
		}
	}
}

// shout sends a ping to a multicast group on a link.
func (h *Host) shout(name, group string, port uint16) error {
	link, err := h.links.LinkByName(name)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	c, err := h.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	to := &net.UDPAddr{IP: net.ParseIP(group), Port: int(port)}
	if to.IP.To4() == nil {
		to.Zone = strconv.Itoa(index) // by name it would be looked up in another namespace
	} else if err := multicastBy(c.(*net.UDPConn), index); err != nil {
		return err
	}
	_, err = c.WriteTo(binary.BigEndian.AppendUint64(nil, pings.Add(1)), to)
	return err
}

// multicastBy makes a socket send its IPv4 multicast packets over the link with that index.
func multicastBy(c *net.UDPConn, index int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
	})
	return errors.Join(err, failed)
}
