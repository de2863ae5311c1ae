package daemon

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spad/pkg/event"
	"spad/pkg/session"
)

// The watchdog is fed only while the table's goroutine answers and the rights are not held: what hangs must look dead.
func TestWatchdogIsTiedToLiveness(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "2000")

	log := slog.New(slog.DiscardHandler)
	d := &Daemon{log: log, bus: event.NewBus(log)}
	d.table = session.New(session.Options{Bus: d.bus, Log: log, File: filepath.Join(t.TempDir(), "sessions"), Now: bootTime})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	attended, ran := make(chan error, 1), make(chan error, 1)
	go func() { attended <- d.attend(ctx) }()

	buf := make([]byte, 512)
	beats := func(within time.Duration) bool {
		conn.SetReadDeadline(time.Now().Add(within))
		n, err := conn.Read(buf)
		return err == nil && strings.HasPrefix(string(buf[:n]), "WATCHDOG=1\n")
	}
	const quiet, patience = 100 * time.Millisecond, 10 * time.Second
	if beats(quiet) {
		t.Error("it is fed before the table runs")
	}
	go func() { ran <- d.table.Run(ctx) }()
	if !beats(patience) {
		t.Fatal("it is not fed though the table runs")
	}
	d.mu.Lock()
	for beats(quiet) { // what was under way
	}
	if beats(quiet) {
		t.Error("it is fed while nothing can be decided")
	}
	d.mu.Unlock()
	if !beats(patience) {
		t.Error("it is not fed again")
	}
	stop()
	if err := <-attended; err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
