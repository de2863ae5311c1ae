package capture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// rcvbuf is the receive queue in bytes of payload and bookkeeping (the kernel doubles it): some thousand packets, a few
// milliseconds of flood, small enough for a router with 64 MiB.
const rcvbuf = 1 << 20

// pause is how long a reader rests when the kernel is short of memory.
const pause = 10 * time.Millisecond

// socket is one family's end.
type socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	v4   bool
	size int

	ignored atomic.Uint64 // packets that reached the reader but not handle
}

// openSocket binds a socket that has its filter already: not one packet of another length is ever queued.
func openSocket(at netip.AddrPort, size int) (*socket, error) {
	s := &socket{v4: at.Addr().Is4(), size: size}
	network := "udp6"
	if s.v4 {
		network = "udp4"
	}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = s.prepare(int(fd)) }); e != nil {
			return e
		}
		return err
	}}
	p, err := c.ListenPacket(context.Background(), network, at.String())
	if err != nil {
		return nil, err
	}
	s.conn = p.(*net.UDPConn)
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		s.conn.Close()
		return nil, err
	}
	return s, nil
}

// prepare sets what must be set before the socket has an address. Package net has set V6ONLY.
func (s *socket) prepare(fd int) error {
	if err := attach(fd, s.size); err != nil {
		return fmt.Errorf("attaching the length filter: %w", err)
	}
	enlarge(fd)
	if s.v4 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// attach installs the filter. A UDP socket's filter sees the datagram from the UDP header on (8 bytes).
func attach(fd, size int) error {
	prog, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(size + 8), SkipFalse: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		filter[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

func (s *socket) port() uint16 { return uint16(s.conn.LocalAddr().(*net.UDPAddr).Port) }

// run reads until ctx ends.
func (s *socket) run(ctx context.Context, handle func(Datagram)) error {
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	defer s.wakeAt(ctx)()
	return s.loop(ctx, newReader(s), handle)
}

func (s *socket) loop(ctx context.Context, r *reader, handle func(Datagram)) error {
	for ctx.Err() == nil {
		switch err := r.read(handle); {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		case !passes(err):
			return fmt.Errorf("reading from the udp socket: %w", err)
		default:
			rest(ctx)
		}
	}
	return nil
}

// wakeAt ends a read when ctx ends. The function it returns undoes that, and waits if it is happening just now: a late
// deadline would hit the next run.
func (s *socket) wakeAt(ctx context.Context) func() {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		s.conn.SetReadDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// passes says whether reading may go on after err: an ICMP error about an earlier reply, an interface that is down for
// now, a kernel short of memory.
func passes(err error) bool {
	switch e := syscall.Errno(0); {
	case !errors.As(err, &e):
		return false
	case e.Temporary(), e.Timeout():
		return true
	default:
		switch e {
		case unix.ENOBUFS, unix.ENOMEM, unix.ECONNREFUSED, unix.ECONNRESET, unix.EHOSTUNREACH, unix.EHOSTDOWN, unix.ENETUNREACH,
			unix.ENETDOWN, unix.EPROTO, unix.ENOPROTOOPT, unix.EMSGSIZE:
			return true
		}
		return false
	}
}

// rest keeps an error that comes again and again from taking a whole core.
func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// parse takes from the control message where the packet was sent to. It says false if there is nothing to answer from:
// no such message, or a broadcast or multicast address.
func (d *Datagram) parse(oob []byte) bool {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return false
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			i := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			d.Local, d.Link = netip.AddrFrom4(i.Addr), int(i.Ifindex)
			// For a unicast packet the kernel names one address twice; for a broadcast to a subnet, which looks like
			// any other address, the second is one of the interface's own (ip(7), ipi_spec_dst).
			return i.Addr == i.Spec_dst && !d.Local.IsMulticast()
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			i := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			d.Local, d.Link = netip.AddrFrom16(i.Addr), int(i.Ifindex)
			return !d.Local.IsMulticast()
		}
		oob = rest
	}
	return false
}

// reply makes one attempt: an answer that can't leave now is better lost than waited for.
func (s *socket) reply(d Datagram, p []byte) error {
	oob, to, err := s.path(d)
	if err != nil {
		return err
	}
	var serr error
	err = s.raw.Write(func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), p, oob, to, unix.MSG_DONTWAIT)
		return true
	})
	if err = errors.Join(err, serr); err != nil {
		return fmt.Errorf("answering %s: %w", d.From, err)
	}
	return nil
}

// path returns the control message that sets the source address, and the destination. Only a link-local answer is
// bound to the interface: forcing others out by it would overrule the machine's routes.
func (s *socket) path(d Datagram) ([]byte, unix.Sockaddr, error) {
	if s.v4 {
		to := &unix.SockaddrInet4{Addr: d.From.Addr().As4(), Port: int(d.From.Port())}
		if !d.Local.Is4() {
			return nil, to, nil
		}
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: d.Local.As4()}), to, nil
	}
	to := &unix.SockaddrInet6{Addr: d.From.Addr().As16(), Port: int(d.From.Port())}
	info := &unix.Inet6Pktinfo{Addr: d.Local.As16()}
	if d.Local.IsLinkLocalUnicast() || d.From.Addr().IsLinkLocalUnicast() {
		info.Ifindex = uint32(d.Link)
		to.ZoneId = uint32(d.Link)
	}
	return unix.PktInfo6(info), to, nil
}

// dropped reads the socket's own count (SO_MEMINFO, since Linux 4.12): asking when somebody wants to know costs nothing
// per packet, unlike SO_RXQ_OVFL.
func (s *socket) dropped() (n uint32) {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	s.raw.Control(func(fd uintptr) {
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if e == 0 {
			n = info[unix.SK_MEMINFO_DROPS]
		}
	})
	return n
}
