package daemon

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"spad/pkg/capture"
	"spad/pkg/wire"
)

// ear is the socket that knocks come to. A reload may change it for one on another port: that one is opened first, so
// that a port that is taken leaves the old one as it is.
type ear struct {
	log *slog.Logger

	mu      sync.Mutex
	udp     *capture.UDP
	reading *capture.UDP       // what Run reads, for a moment longer than it is udp
	hangUp  context.CancelFunc // ends that …
	over    chan struct{}      // … and is closed when it has ended

	dropped, ignored atomic.Uint64 // of sockets that were changed for others
}

// listen opens the first socket.
func listen(addr string, log *slog.Logger) (*ear, error) {
	e := &ear{log: log}
	var err error
	e.udp, err = e.another(addr)
	return e, err
}

// another opens a socket beside the present one.
func (e *ear) another(addr string) (*capture.UDP, error) {
	return capture.ListenUDP(addr, wire.PacketSize, e.log)
}

// move goes on with another socket. The old one is closed when it returns.
func (e *ear) move(to *capture.UDP) {
	e.mu.Lock()
	old, reading, hangUp, over := e.udp, e.reading, e.hangUp, e.over
	e.udp = to
	e.mu.Unlock()
	if old == reading {
		hangUp()
		<-over
	}
	e.retire(old)
}

// Run reads until ctx ends, whichever socket it is.
func (e *ear) Run(ctx context.Context, handle func(capture.Datagram)) error {
	for {
		e.mu.Lock()
		udp := e.udp
		turn, hangUp := context.WithCancel(ctx)
		over := make(chan struct{})
		e.reading, e.hangUp, e.over = udp, hangUp, over
		e.mu.Unlock()
		err := udp.Run(turn, handle)
		hangUp()
		close(over)
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

func (e *ear) retire(udp *capture.UDP) {
	e.dropped.Add(udp.Dropped())
	e.ignored.Add(udp.Ignored())
	if err := udp.Close(); err != nil {
		e.log.Warn("closing the port that knocks came to before", "port", udp.Port(), "err", err)
	}
}

func (e *ear) now() *capture.UDP {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.udp
}

// Reply answers from the present socket: who knocked at the one before has to knock again anyway.
func (e *ear) Reply(d capture.Datagram, p []byte) error { return e.now().Reply(d, p) }

// Port returns the port of the present socket.
func (e *ear) Port() uint16 { return e.now().Port() }

// Dropped returns what the kernel threw away, of all sockets there were.
func (e *ear) Dropped() uint64 { return e.dropped.Load() + e.now().Dropped() }

// Ignored returns how many packets were not handed on, of all sockets there were.
func (e *ear) Ignored() uint64 { return e.ignored.Load() + e.now().Ignored() }

// Close closes the present socket.
func (e *ear) Close() error { return e.now().Close() }
