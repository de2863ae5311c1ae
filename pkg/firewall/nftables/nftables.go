// Package nftables is the firewall backend for nf_tables.
//
// All is in the table "inet spad", which nft list table inet spad shows with comments. A packet's way through it:
//
//	prerouting -110  guard   iif lo, replies: on; by port, in maps per protocol -------> guard_NAME
//	                           guard_NAME: for another host: on; source in from4_NAME, from6_NAME or always: permit;
//	                                       established (unless cut): permit; otherwise drop, reject or on
//	                           permit: set the mark bit, on
//	prerouting -101  dstnat  new connections, by port ---------------------------------> dstnat_NAME
//	postrouting  99  srcnat  where lan is known: from it, by a door -------------------> srcnat_NAME: the router's address
//	postrouting 150  cut     replies, by the port that the client used ----------------> cut_NAME
//
// Packets for a pinhole, a host's own IPv6 address, take the same way by guard-holes_PORTS, guard-hole_NAME, cut-hole_NAME.
//
// Doors are elements with a timeout in the sets from4_NAME and from6_NAME; the kernel ends them by itself. The cost per
// packet depends neither on the number of doors nor on that of services, but for services with ranges of ports: there it
// grows by the depth of a tree. After a reload, names end with .1, then with nothing again: each Apply builds beside what
// is there.
//
// It needs the capability CAP_NET_ADMIN, and a kernel from 5.4 on, or 5.9 for reject, which is in prerouting.
package nftables

import (
	"errors"
	"fmt"
	"sync"

	"github.com/mdlayher/netlink"

	"spad/pkg/firewall"
)

// Options of New. The zero value is the network namespace of the process.
type Options struct {
	NetNS int // a file descriptor of the network namespace to work in, open as long as the Backend; 0: the caller's own
}

// Backend is a firewall.Backend on nf_tables, over one netlink connection that is made again when it is lost.
type Backend struct {
	dial  func() (kernel, error)
	netns int

	mu     sync.Mutex
	kernel kernel // nil: lost, or not made yet
	rules  *inForce
	closed bool

	watching *netlink.Conn // of Watch, or nil
}

var _ firewall.Backend = (*Backend)(nil)

// New connects to nf_tables. An error says what is missing: the capability, or the kernel's support.
func New(o Options) (*Backend, error) {
	b := &Backend{dial: func() (kernel, error) { return dial(o.NetNS) }, netns: o.NetNS}
	err := b.do("connecting to nf_tables", func(k kernel) error {
		_, err := k.generation()
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Open implements firewall.Backend. If it takes several transactions and a later one fails, all of the doors are shut:
// half of them open is what nobody asked for.
func (b *Backend) Open(doors ...firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	parts, err := b.change("opening doors", doors, true, renewDoors)
	if err != nil && parts > 0 {
		_, shutErr := b.change("shutting them again", doors, false, shutDoors)
		err = errors.Join(err, shutErr)
	}
	return err
}

// Shut implements firewall.Backend.
func (b *Backend) Shut(doors ...firewall.Door) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := b.change("shutting doors", doors, false, shutDoors)
	return err
}

// change returns how many transactions took effect.
func (b *Backend) change(doing string, doors []firewall.Door, timed bool, write writer) (int, error) {
	if b.rules == nil {
		return 0, fmt.Errorf("%s: %w", doing, firewall.ErrNoRuleset)
	}
	if err := b.rules.services.Doors(doors, timed); err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	done := 0
	err := b.do(doing, func(k kernel) error {
		for _, part := range split(&batch{}, k.room(), *b.rules, doors, write) {
			if err := send(k, part); err != nil {
				return err
			}
			done++
		}
		return nil
	})
	return done, err
}

// Down implements firewall.Backend.
func (b *Backend) Down() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &batch{}
	out.addTable() // deleting needs one
	out.delTable()
	if err := b.do("removing the table inet "+tableName, func(k kernel) error { return send(k, out) }); err != nil {
		return err
	}
	b.rules = nil
	return nil
}

// Close implements firewall.Backend. It may be called more than once.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.kernel == nil {
		return nil
	}
	err := b.kernel.close()
	b.kernel = nil
	return err
}

// attempts is how often something is tried that may work on a second try.
const attempts = 3

// do runs f on a connection, with the lock held.
func (b *Backend) do(doing string, f func(kernel) error) error {
	if b.closed {
		return fmt.Errorf("%s: the firewall backend is closed", doing)
	}
	var err error
	for range attempts {
		if err = b.try(f); err == nil || !again(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, explain(err, b.try))
	}
	return nil
}

// try runs f once. After an error the connection is given up: there may be more answers to what failed.
func (b *Backend) try(f func(kernel) error) error {
	if b.kernel == nil {
		k, err := b.dial()
		if err != nil {
			return err
		}
		b.kernel = k
		if err := b.ignoreOwn(); err != nil {
			return err
		}
	}
	err := f(b.kernel)
	if err != nil {
		_ = b.kernel.close()
		b.kernel = nil
	}
	return err
}

func send(k kernel, b *batch) error {
	if len(b.messages) == 0 && b.err == nil {
		return nil
	}
	messages, err := b.sealed()
	if err != nil {
		return err
	}
	return k.commit(messages)
}
