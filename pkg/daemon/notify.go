package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"spad/pkg/session"
)

// notify tells the service manager that started us what happens, one assignment a line, if it wants to know: systemd and
// those that speak its protocol (sd_notify(3)) name a socket in NOTIFY_SOCKET.
func (d *Daemon) notify(assignments ...string) {
	if _, err := sd.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		d.log.Warn("the service manager can't be told what happens", "err", err)
	}
}

// statusLine is what systemctl status shows.
func statusLine(format string, a ...any) string {
	return "STATUS=" + strings.ReplaceAll(fmt.Sprintf(format, a...), "\n", "; ")
}

// ready tells that knocks are answered, and how many doors are open.
func (d *Daemon) ready(note string) {
	open, err := d.table.Count()
	if err != nil {
		return // it stops
	}
	d.notify(sd.SdNotifyReady, statusLine("%sanswering knocks, doors open: %d", note, open))
}

// reloading tells that a reload has begun, and when: with that, Type=notify-reload knows which answer belongs to it.
func (d *Daemon) reloading() {
	var ts unix.Timespec
	// The clock always exists; the call can't fail.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	d.notify(sd.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/int64(time.Microsecond)))
}

// attend tells the service manager's watchdog that we live, for as long as that is so, and that we stop. It asks the way a
// knock goes: through the lock on the rights and the goroutine of the table. Where one of them hangs no knock is answered
// any more, and being killed and started again is better: guard and doors are the kernel's.
func (d *Daemon) attend(ctx context.Context) error {
	defer d.notify(sd.SdNotifyStopping)
	within, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("the service manager's watchdog is not fed", "err", err)
	}
	if within == 0 {
		within = math.MaxInt64
	}
	beat := time.NewTicker(max(within/2, time.Millisecond)) // half of it is what sd_watchdog_enabled(3) recommends
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		}
		open, err := d.alive()
		if errors.Is(err, session.ErrStopped) {
			return nil
		}
		d.notify(sd.SdNotifyWatchdog, statusLine("answering knocks, doors open: %d", open))
	}
}

// alive returns the number of open doors as soon as a knock could be decided upon.
func (d *Daemon) alive() (open int, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.table.Count()
}
