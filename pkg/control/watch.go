package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"spad/pkg/event"
)

// watch streams events, one JSON object per line, until the client goes or the daemon stops. The bus drops what does
// not fit the watcher's queue and says so in the next event; a watcher that reads nothing at all for watcherTimeout
// loses its connection.
func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	if h.watchers.Add(1) > maxWatchers {
		h.watchers.Add(-1)
		refuse(w, http.StatusServiceUnavailable, "too many watchers: stop a spad watch and try again")
		return
	}
	defer h.watchers.Add(-1)
	body, err := readBody(w, r)
	if err == nil && len(body) > 0 {
		err = errBody
	}
	if err != nil {
		fail(w, err)
		return
	}
	events, leave := h.Events.Subscribe(watcherQueue)
	defer leave()
	s := stream{w: w, c: http.NewResponseController(w), entry: entryOf(r.Context())}
	if s.begin() != nil {
		return
	}
	s.copy(r.Context(), h.stopping, events)
	if s.entry.gone() {
		panic(http.ErrAbortHandler) // cut, so that nobody takes it for the daemon's end
	}
}

var errGone = errors.New("the watcher has lost its rights")

// stream is an answer without an end that is known beforehand.
type stream struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	entry Entry
	lost  uint64 // before events that are not shown
}

// begin sends the header, so that the client knows it misses nothing from now on. The read deadline goes, because it
// would end the request's context.
func (s stream) begin() error {
	if err := s.c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	s.w.Header().Set("Content-Type", "application/x-ndjson")
	return s.send(nil)
}

// copy sends events as they come. When the daemon stops, what waits already is sent and the stream ends cleanly.
func (s *stream) copy(ctx context.Context, stopping <-chan struct{}, events <-chan event.Event) {
	for {
		select {
		case e := <-events:
			if s.event(e) != nil {
				return
			}
		case <-ctx.Done():
			return
		case <-s.entry.Gone:
			return
		case <-stopping:
			for len(events) > 0 {
				if s.event(<-events) != nil {
					return
				}
			}
			return
		}
	}
}

func (s *stream) event(e event.Event) error {
	if s.entry.gone() {
		return errGone
	}
	e.Lost += s.lost
	if s.lost = 0; !s.entry.shows(e) {
		s.lost = e.Lost
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.send(append(b, '\n'))
}

func (s stream) send(b []byte) error {
	if err := s.c.SetWriteDeadline(time.Now().Add(watcherTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.c.Flush()
}
