package daemon

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is CLOCK_BOOTTIME: it neither jumps with the wall clock nor stops in suspend.
func bootTime() time.Duration {
	var ts unix.Timespec
	// The clock exists since Linux 2.6.39; the call can't fail.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// bootID names this boot. Without one, no session of an earlier run is taken over.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
