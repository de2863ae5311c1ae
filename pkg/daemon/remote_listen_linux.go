package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenRemote listens where remotes connect to. The daemon is up before the network, so that an address which the router
// has not yet is no error: it is listened at all the same, and the log says so.
func listenRemote(at netip.AddrPort, log *slog.Logger) (net.Listener, error) {
	network := "tcp4" // package net makes 0.0.0.0 every address of both families, which is not what is written
	if at.Addr().Is6() {
		network = "tcp"
	}
	l, err := net.Listen(network, at.String())
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		log.Warn("the router does not have the address of remote yet; remotes are heard once it does", "remote", at)
		early := net.ListenConfig{Control: freebind}
		l, err = early.Listen(context.Background(), network, at.String())
	}
	if err != nil {
		return nil, fmt.Errorf("listening for remotes: %w; choose another port in remote, or stop what has it", err)
	}
	return l, nil
}

// freebind lets a socket have an address that may come later (ip(7), IP_FREEBIND). It takes no capability.
func freebind(network, _ string, raw syscall.RawConn) (err error) {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if network == "tcp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}
