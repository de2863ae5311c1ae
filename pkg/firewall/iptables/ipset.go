package iptables

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ipsets is what a Backend needs of the kernel's sets.
type ipsets interface {
	names() ([]string, error) // all, also other programs'
	read(name string) (set, error)
	create(name string, kind setKind) error
	destroy(name string) error       // errInUse: rules refer to it
	put(name string, e entry) error  // adds the entry or renews its time, in place
	drop(name string, e entry) error // that it is not there is no error
	close()
}

var errInUse = nl.IPSetError(nl.IPSET_ERR_BUSY)

// kernelSets are the sets behind two lasting netlink connections: the library's, and one for what the library lacks.
type kernelSets struct {
	handle *netlink.Handle
	socket *nl.SocketHandle
}

// patience bounds the wait for an answer of the kernel.
const patience = 10 * time.Second

func dialSets(fd int) (ipsets, error) {
	ns := netns.NsHandle(fd)
	if fd == 0 {
		ns = netns.None()
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		h.Close()
		return nil, err
	}
	k := kernelSets{h, &nl.SocketHandle{Socket: s}}
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(h.SetSocketTimeout(patience), s.SetSendTimeout(&timeout), s.SetReceiveTimeout(&timeout))
	if err == nil {
		_, err = k.names()
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func (k kernelSets) close() {
	k.handle.Close()
	k.socket.Close()
}

// do calls the library, which panics where what went wrong is not an errno.
func (k kernelSets) do(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("talking to ipset: %v", p)
		}
	}()
	for range 3 {
		if err = f(); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return err
}

// names lists names alone, which the library's list of sets does not: other programs' sets may be large.
func (k kernelSets) names() ([]string, error) {
	const listNames = 1 << 1 // IPSET_FLAG_LIST_SETNAME
	req := nl.NewNetlinkRequest(nl.IPSET_CMD_LIST|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(nl.IPSET_CMD_LIST))
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: k.socket}
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	req.AddData(&nl.Uint32Attribute{Type: nl.IPSET_ATTR_FLAGS | nl.NLA_F_NET_BYTEORDER, Value: listNames})
	var all []string
	err := k.do(func() error {
		answers, err := req.Execute(unix.NETLINK_NETFILTER, 0)
		all = nil
		for _, a := range answers {
			for attr := range nl.ParseAttributes(a[4:]) {
				if attr.Type == nl.IPSET_ATTR_SETNAME {
					all = append(all, nl.BytesToString(attr.Value))
				}
			}
		}
		return err
	})
	return all, err
}

func (k kernelSets) read(name string) (set, error) {
	var got *netlink.IPSetResult
	err := k.do(func() (err error) { got, err = k.handle.IpsetList(name); return err })
	if err != nil {
		return set{}, fmt.Errorf("reading the set %s: %w", name, err)
	}
	s := set{
		kind:    setKind{nets: got.TypeName == "hash:net", v6: got.Family == unix.AF_INET6, timed: got.Timeout != nil},
		entries: make(map[netip.Prefix]uint32, len(got.Entries)),
	}
	if !s.kind.nets && got.TypeName != "hash:ip" {
		return set{}, fmt.Errorf("the set %s is of type %s: another program made it; remove it with: ipset destroy %s", name, got.TypeName, name)
	}
	for _, e := range got.Entries {
		from, ok := netip.AddrFromSlice(e.IP)
		if !ok {
			continue
		}
		p := netip.PrefixFrom(from, from.BitLen())
		if s.kind.nets && e.CIDR != 0 {
			p = netip.PrefixFrom(from, int(e.CIDR))
		}
		s.entries[p] = 0
		if e.Timeout != nil {
			s.entries[p] = *e.Timeout
		}
	}
	return s, nil
}

func (k kernelSets) create(name string, kind setKind) error {
	o := netlink.IpsetCreateOptions{Family: unix.AF_INET, MaxElements: maxElements}
	if kind.v6 {
		o.Family = unix.AF_INET6
	}
	if kind.timed {
		o.Timeout = new(uint32(1)) // what says no time is as good as shut
	}
	typename := "hash:ip"
	if kind.nets {
		typename = "hash:net"
	}
	return k.do(func() error { return k.handle.IpsetCreate(name, typename, o) })
}

func (k kernelSets) destroy(name string) error {
	return k.do(func() error { return k.handle.IpsetDestroy(name) })
}

func (k kernelSets) put(name string, e entry) error {
	return k.do(func() error { return k.handle.IpsetAdd(name, e.wire()) })
}

func (k kernelSets) drop(name string, e entry) error {
	e.seconds = 0
	return k.do(func() error { return k.handle.IpsetDel(name, e.wire()) })
}

// wire returns the entry as the library wants it; Replace makes it no error that one is there, or is not.
func (e entry) wire() *netlink.IPSetEntry {
	w := &netlink.IPSetEntry{IP: e.from.Addr().AsSlice(), Replace: true}
	if !e.from.IsSingleIP() {
		w.CIDR = uint8(e.from.Bits())
	}
	if e.seconds > 0 {
		w.Timeout = &e.seconds
	}
	return w
}

// errno returns the kernel's error number, if it was one.
func errno(err error) (syscall.Errno, bool) {
	var e syscall.Errno
	return e, errors.As(err, &e)
}
