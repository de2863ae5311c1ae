package nftables

import (
	"cmp"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// kernel is what a Backend needs of nf_tables.
type kernel interface {
	commit([]netlink.Message) error // one transaction
	room() int                      // how many bytes a transaction may have
	chains() ([]*nftables.Chain, error)
	sets() ([]string, error) // the newest first; an error that is unix.ENOENT: there is no table
	elements(set string) ([]element, error)
	generation() (uint32, error) // changes with every transaction of anybody
	port() uint32                // the connection's address, which is in what the kernel tells of its changes
	close() error
}

// link is the kernel behind one lasting netlink connection.
type link struct {
	conn   *nftables.Conn
	socket *netlink.Conn // the one of conn
	bytes  int
	pid    uint32 // the address: of a process's first connection, it is its pid
}

// Room for 100,000 doors in one transaction; the kernel takes the memory only when it is used.
const wantedRoom = 16 << 20

// patience bounds the wait for an answer. The kernel answers before it returns from the sending of a transaction, so
// this only says that a kernel which does not answer is not waited for.
const patience = 10 * time.Second

func dial(netns int) (kernel, error) {
	l := &link{}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(netns), nftables.WithSockOptions(l.adopt))
	if err != nil {
		return nil, err
	}
	l.conn = conn
	return l, nil
}

// adopt prepares the socket of a new connection. Beyond the system's limit a buffer only grows with CAP_NET_ADMIN
// in the first user namespace; what was granted is what counts.
func (l *link) adopt(c *netlink.Conn) error {
	l.socket = c
	_ = c.SetOption(netlink.CapAcknowledge, true) // errors need not carry the message back; kernel 4.3
	if err := c.SetWriteBuffer(wantedRoom); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		l.bytes, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		name, err := unix.Getsockname(int(fd))
		if at, ok := name.(*unix.SockaddrNetlink); ok {
			l.pid = at.Pid
		}
		failed = errors.Join(failed, err)
	})
	return errors.Join(err, failed, l.widen(raw))
}

// listPart is the most that the kernel lists at once.
const listPart = 32 << 10

// widen receives one answer, whatever it is, into a buffer of that size: only then the kernel makes use of it, and not
// of 4 KiB as in the buffers of package netlink. Before each part it walks past all the elements that it has listed, so
// that 100,000 of a set took 1.7 s.
func (l *link) widen(raw syscall.RawConn) error {
	if err := l.socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := l.socket.Send(request(unix.NFT_MSG_GETGEN, 0, nil)); err != nil {
		return err
	}
	var failed error
	buffer := make([]byte, listPart)
	err := raw.Read(func(fd uintptr) bool {
		_, _, failed = unix.Recvfrom(int(fd), buffer, 0)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	return errors.Join(err, failed)
}

func request(kind netlink.HeaderType, flags netlink.HeaderFlags, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	}
}

// room leaves some for what the kernel keeps back (32 bytes) and the ends of the batch.
func (l *link) room() int { return l.bytes - 512 }

// commit sends a transaction and waits for the one answer: the first error, or that of the last message. After an error
// more answers may follow, so the caller gives the connection up.
func (l *link) commit(messages []netlink.Message) error {
	if err := l.socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := l.socket.SendMessages(messages); err != nil {
		return err
	}
	_, err := l.socket.Receive()
	return err
}

func (l *link) port() uint32 { return l.pid }

func (l *link) chains() ([]*nftables.Chain, error) {
	return l.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
}

// dump asks for a list. (The lists of nftables.Conn hide the kernel's error number.)
func (l *link) dump(kind netlink.HeaderType, attrs ...netlink.Attribute) ([]netlink.Message, error) {
	return l.ask(kind, netlink.Dump, attrs...)
}

func (l *link) ask(kind netlink.HeaderType, flags netlink.HeaderFlags, attrs ...netlink.Attribute) ([]netlink.Message, error) {
	if err := l.socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	return l.socket.Execute(request(kind, flags, data))
}

// attributes calls f for each attribute of a message of nf_tables.
func attributes(m netlink.Message, f func(*netlink.AttributeDecoder)) error {
	if len(m.Data) < 4 {
		return errors.New("nf_tables answers with a message that is too short")
	}
	d, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return err
	}
	return each(d, f)
}

func each(d *netlink.AttributeDecoder, f func(*netlink.AttributeDecoder)) error {
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		f(d)
	}
	return d.Err()
}

func (l *link) sets() ([]string, error) {
	answer, err := l.dump(unix.NFT_MSG_GETSET, text(unix.NFTA_SET_TABLE, tableName))
	if err != nil {
		return nil, err
	}
	type named struct {
		name   string
		handle uint64 // grows from set to set
	}
	var all []named
	for _, m := range answer {
		var s named
		err := attributes(m, func(d *netlink.AttributeDecoder) {
			switch d.Type() {
			case unix.NFTA_SET_NAME:
				s.name = d.String()
			case attrSetHandle:
				s.handle = d.Uint64()
			}
		})
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b named) int { return cmp.Compare(b.handle, a.handle) })
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.name
	}
	return names, nil
}

// settle waits until no packet is on its way that came before the last transaction. Packets are filtered under the RCU
// read lock, and this call waits for a grace period of it. A kernel may lack it; then a while must do.
func settle() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		time.Sleep(50 * time.Millisecond)
	}
}

func (l *link) elements(set string) ([]element, error) {
	answer, err := l.dump(unix.NFT_MSG_GETSETELEM,
		text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName), text(unix.NFTA_SET_ELEM_LIST_SET, set))
	if err != nil {
		return nil, err
	}
	var all []element
	for _, m := range answer {
		err := attributes(m, func(d *netlink.AttributeDecoder) {
			if d.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				return
			}
			d.Nested(func(list *netlink.AttributeDecoder) error {
				return each(list, func(d *netlink.AttributeDecoder) {
					var e element
					d.Nested(e.read)
					all = append(all, e)
				})
			})
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// read takes the key, and as timeout what is left of it.
func (e *element) read(d *netlink.AttributeDecoder) error {
	return each(d, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				return each(d, func(d *netlink.AttributeDecoder) { e.key = d.Bytes() })
			})
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.timeout = d.Uint64()
		}
	})
}

func (l *link) generation() (uint32, error) {
	answer, err := l.ask(unix.NFT_MSG_GETGEN, 0)
	if err != nil {
		return 0, err
	}
	var generation uint32
	for _, m := range answer {
		err := attributes(m, func(d *netlink.AttributeDecoder) {
			if d.Type() == unix.NFTA_GEN_ID {
				generation = d.Uint32()
			}
		})
		if err != nil {
			return 0, err
		}
	}
	return generation, nil
}

func (l *link) close() error { return l.conn.CloseLasting() }

// again reports whether what failed may work on a second try: interrupted, no room for the answer, a set changed in
// between (an element expired, another program flushed), or the connection lost, which is all that is not an answer of
// the kernel. All our transactions can be repeated.
func again(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	switch errno {
	case unix.EINTR, unix.EAGAIN, unix.ENOBUFS, unix.ENOENT, unix.EEXIST, unix.EBUSY,
		unix.EBADF, unix.ENOTCONN, unix.EPIPE, unix.ECONNRESET, unix.ECONNREFUSED:
		return true
	}
	return false
}
