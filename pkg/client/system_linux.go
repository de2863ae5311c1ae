package client

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// synchronised asks the kernel, to which every time daemon reports (adjtimex(2)). A
// kernel that doesn't answer, as in some sandboxes, is taken to be synchronised: a
// wrong clock is then found out by the router.
func synchronised() bool {
	var t unix.Timex // no modes: only asks
	state, err := unix.Adjtimex(&t)
	return err != nil || state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // then no offset counts as learned since boot, which is the safe side
	}
	return strings.TrimSpace(string(id))
}

// syncData waits until a file's bytes, and the length needed to read them back, are on disk; the times of the file,
// which would cost another write, may wait.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
