package capture

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Queue returns how many bytes of packets may wait for a reader, as wanted and as this process gets them. It opens a socket
// without a port, and closes it.
func Queue() (wanted, got int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("opening a udp socket: %w", err)
	}
	defer unix.Close(fd)
	enlarge(fd)
	got, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return rcvbuf, got / 2, err // the kernel doubles what was asked for
}

// enlarge makes the queue as long as it may be. FORCE goes beyond net.core.rmem_max and needs CAP_NET_ADMIN; a smaller queue
// is no reason not to run.
func enlarge(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rcvbuf) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rcvbuf)
	}
}
