package iptables

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// getInfo is the kernel's struct ipt_getinfo and ip6t_getinfo.
type getInfo struct {
	name    [32]byte // of the table
	hooks   uint32
	entry   [5]uint32 // where the builtin chains begin
	under   [5]uint32 // where their policies are
	entries uint32
	size    uint32
}

// soGetInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const soGetInfo = 64

// info returns how many rules a legacy table has, and where its chains begin: one system call, where a list is a process.
func (p *program) info(table string) (word string, err error) {
	domain, level := unix.AF_INET, unix.SOL_IP
	if p.v6 {
		domain, level = unix.AF_INET6, unix.SOL_IPV6
	}
	err = within(p.netns, func() error {
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var i getInfo
		copy(i.name[:], table)
		length := uint32(unsafe.Sizeof(i))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soGetInfo,
			uintptr(unsafe.Pointer(&i)), uintptr(unsafe.Pointer(&length)), 0)
		if errno != 0 {
			return errno
		}
		word = fmt.Sprint(i.hooks, i.entry, i.under, i.entries, i.size)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("asking for the table %s: %w", table, err)
	}
	return word, nil
}
