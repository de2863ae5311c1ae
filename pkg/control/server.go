package control

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"spad/pkg/event"
)

// Limits of the server. A request and its answer are a few kilobytes and both ends are on one machine: who needs longer
// is stuck or means harm.
const (
	maxBody        = 64 << 10
	maxHeader      = 8 << 10
	maxConns       = 64
	maxWatchers    = maxConns / 2 // watchers stay, so they must not take every place
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	idleTimeout    = 30 * time.Second
	writeTimeout   = 2 * time.Minute // an answer may wait for a slow firewall
	watcherTimeout = 5 * time.Second // without progress, then the watcher is dropped
	watcherQueue   = 256             // events
	stopGrace      = 2 * time.Second // for requests under way when the daemon stops
)

// Server answers requests by what the daemon can do. Without Access and TLS it is root alone who may reach its listener.
// Operations of a part that is nil do not exist; Sessions, Devices, Daemon and Events are needed.
type Server struct {
	Sessions Sessions
	Devices  Devices
	Daemon   Daemon
	Why      Explainer
	Events   *event.Bus
	Services Services
	Knocks   Knocks
	Remotes  Remotes
	Metrics  func(context.Context, io.Writer) error // writes the text format of Prometheus
	Access   Access                                 // who may do what; nil: all may do everything
	TLS      *tls.Config                            // nil: the listener's connections are plain
	Log      *slog.Logger                           // nil: slog.Default()
}

// Serve answers requests on l until ctx ends, and closes l. Streams end at once then; requests under way have a few
// seconds to finish before their context ends. It returns nil after a stop, else what made it give up.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	log := s.Log
	if log == nil {
		log = slog.Default()
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	h := &http.Server{
		Handler:           newHandler(s, ctx.Done()),
		BaseContext:       func(net.Listener) context.Context { return base },
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(quiet{log.Handler()}, slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(s.limit(l)) }()
	select {
	case err := <-served:
		h.Close()
		return err
	case <-ctx.Done():
	}
	grace, end := context.WithTimeout(base, stopGrace)
	defer end()
	if h.Shutdown(grace) != nil {
		h.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
