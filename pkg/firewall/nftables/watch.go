package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

var _ firewall.Watcher = (*Backend)(nil)

// watchRoom is for what others change while nobody reads; what is lost counts as damage.
const watchRoom = 1 << 20

// Watch implements firewall.Watcher: the kernel tells of each change, and whose it was.
func (b *Backend) Watch(ctx context.Context, damaged func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: b.netns})
	if err != nil {
		return fmt.Errorf("watching nf_tables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := b.listen(conn); err != nil {
		return errors.Join(fmt.Errorf("watching nf_tables: %w", err), conn.Close())
	}
	defer b.listen(nil) //nolint:errcheck // nothing can fail
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			damaged()
		case err != nil:
			return errors.Join(fmt.Errorf("watching nf_tables: %w", err), conn.Close())
		case slices.ContainsFunc(messages, touchesOurs):
			damaged()
		}
	}
}

// touchesOurs reports whether a message tells of a change in our table. Every kind has the table's name in its first
// attribute, but the one that ends a transaction.
func touchesOurs(m netlink.Message) bool {
	if m.Header.Type&0xff == unix.NFT_MSG_NEWGEN || len(m.Data) < 4 || m.Data[0] != family {
		return false
	}
	ours := false
	_ = attributes(m, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NFTA_TABLE_NAME {
			ours = ours || strings.TrimRight(string(d.Bytes()), "\x00") == tableName
		}
	})
	return ours
}

// listen lets a connection hear of all changes but our own, from now on; nil ends that.
func (b *Backend) listen(conn *netlink.Conn) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watching = conn
	if conn == nil {
		return nil
	}
	if err := conn.SetReadBuffer(watchRoom); err != nil {
		return err
	}
	if err := b.ignoreOwn(); err != nil {
		return err
	}
	return conn.JoinGroup(unix.NFNLGRP_NFTABLES)
}

// ignoreOwn has the kernel keep from the watching connection what our other one did, before it takes any room: opening
// a hundred thousand doors is as many messages. With the lock held, whenever the other connection was made.
func (b *Backend) ignoreOwn() error {
	if b.watching == nil || b.kernel == nil {
		return nil
	}
	const portOffset = 12 // of the sender's address in struct nlmsghdr, in the host's byte order
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: portOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(native.PutUint32(b.kernel.port())), SkipTrue: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	return b.watching.SetBPF(program)
}
