package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"spad/pkg/client"
	"spad/pkg/wire"
)

// granted returns the families in which the wish was granted.
func (a answer) granted() (ok []client.Result) {
	for _, r := range a.Families {
		if r.Err == nil && r.Answered {
			ok = append(ok, r)
		}
	}
	return ok
}

// ttl returns the shortest time granted, over the families; 0 if none was.
func (a answer) ttl() (shortest time.Duration) {
	for _, r := range a.granted() {
		if shortest == 0 || r.TTL < shortest {
			shortest = r.TTL
		}
	}
	return shortest
}

// text returns the line for a wish that was granted, or sent where no answer was wanted.
func (a answer) text() string {
	best := a.Best()
	switch {
	case a.noAnswer:
		return a.Service + ": sent"
	case best.Status == wire.Closed:
		return a.Service + ": closed"
	}
	text := fmt.Sprintf("%s: open for %s from %s", a.Service, short(a.ttl()), strings.Join(a.seen(), " and "))
	if port := a.port(); port != 0 {
		text += fmt.Sprintf(", port %d", port)
	}
	return text
}

// port returns the one port to connect to; 0 if there are several, or none of the router's.
func (a answer) port() uint16 {
	for _, r := range a.granted() {
		if r.Port != 0 {
			return r.Port
		}
	}
	return 0
}

// seen returns the addresses for which it was opened.
func (a answer) seen() (list []string) {
	for _, r := range a.granted() {
		if s := r.Seen.String(); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// short writes a time without the zeros at its end: 15m, not 15m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// jsonAnswer is one service in --json. Of a result that was not answered it has only
// the status "no answer", "sent" or "error".
type jsonAnswer struct {
	Service  string       `json:"service"`
	Router   string       `json:"router"`
	Status   string       `json:"status"`
	TTL      int64        `json:"ttl,omitempty"` // seconds
	Port     uint16       `json:"port,omitempty"`
	Seen     *netip.Addr  `json:"seen,omitempty"`
	Error    string       `json:"error,omitempty"`
	Families []jsonFamily `json:"families,omitempty"`
}

type jsonFamily struct {
	Family  string      `json:"family"`
	Address string      `json:"address,omitempty"` // host:port that was knocked at
	Status  string      `json:"status"`
	TTL     int64       `json:"ttl,omitempty"`
	Port    uint16      `json:"port,omitempty"`
	Seen    *netip.Addr `json:"seen,omitempty"`
	Error   string      `json:"error,omitempty"`
}

func (a answer) json() jsonAnswer {
	best := a.Best()
	j := jsonAnswer{Service: a.Service, Router: a.router.Name, Status: status(best), TTL: int64(best.TTL / time.Second), Port: a.port(), Seen: seen(best)}
	if a.err != nil {
		j.Error = message(a.err)
	}
	for _, r := range a.Families {
		if r.Family == client.Both { // what kept all families from being tried
			continue
		}
		f := jsonFamily{Family: strings.ToLower(r.Family.String()), Status: status(r), TTL: int64(r.TTL / time.Second), Port: r.Port, Seen: seen(r)}
		if r.Router.IsValid() {
			f.Address = r.Router.String()
		}
		if r.Err != nil {
			f.Error = r.Err.Error()
		}
		j.Families = append(j.Families, f)
	}
	return j
}

func status(r client.Result) string {
	switch {
	case r.Answered:
		return r.Status.String()
	case r.Err == nil:
		return "sent"
	case errors.Is(r.Err, client.ErrNoAnswer):
		return "no answer"
	}
	return "error"
}

func seen(r client.Result) *netip.Addr {
	if !r.Answered {
		return nil
	}
	return &r.Seen
}
