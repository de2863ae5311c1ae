package control

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"golang.org/x/net/netutil"

	"spad/pkg/remote"
)

// gate stands before the mux where others than root connect: whoever comes in has been asked for, route by route.
type gate struct{ *handler }

// ServeHTTP implements http.Handler.
func (g gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, route := g.mux.Handler(r)
	peer, err := peerOf(r)
	var e Entry
	if err == nil {
		e, err = g.Access.Enter(r.Context(), peer, route)
	}
	if err != nil {
		w.Header().Set("Connection", "close") // there is no reason to stay
		fail(w, err)
		return
	}
	if e.Caller == nil { // who joins is nobody yet, and may not keep the place
		w.Header().Set("Connection", "close")
	}
	e.peer = peer
	g.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), entryKey{}, e)))
}

func peerOf(r *http.Request) (Peer, error) {
	if r.TLS == nil {
		return Peer{}, Denied("remote control is by TLS only")
	}
	binding, err := remote.Binding(*r.TLS)
	if err != nil {
		return Peer{}, err
	}
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return Peer{}, err
	}
	return Peer{Pin: remote.PinOf(*r.TLS), Addr: at.Addr().Unmap().WithZone(""), Binding: binding}, nil
}

// limit bounds the connections of a listener, TLS or not. Package http makes the handshake, under headerTimeout, if it
// is handed connections of TLS themselves.
func (s *Server) limit(l net.Listener) net.Listener {
	l = netutil.LimitListener(l, maxConns)
	if s.TLS != nil {
		l = tls.NewListener(newFair(l), s.TLS)
	}
	return l
}

// quiet is a log without handshakes that failed: with a stranger that is what is meant to happen, as often as he likes.
type quiet struct{ slog.Handler }

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "TLS handshake error") {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}
