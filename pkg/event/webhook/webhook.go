// Package webhook delivers events to an HTTPS endpoint, signed as Standard Webhooks has it (standardwebhooks.com).
//
// Each event is a POST of its JSON with the headers
//
//	webhook-id          the event's id, the same at each attempt
//	webhook-timestamp   of the attempt, in seconds since 1970
//	webhook-signature   v1,base64(HMAC-SHA256(secret, id.timestamp.body))
//
// A status of 2xx takes it over; anything else, or none, means that it is tried again, for ever: at least once, so a receiver
// knows by the id what it has already. The events of one session arrive in order, one after the other; several sessions are
// under way at once, and an event that the receiver does not like holds up those of its own session alone.
//
// Certificates are always verified, redirects never followed, and neither secret nor address is ever logged.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"spad/keys"
	"spad/pkg/event/outbox"
)

// inFlight is how many sessions have an event under way at once.
const inFlight = 8

// maxAnswer is how much of an answer is read, so that the connection can be used again; what it says is not looked at.
const maxAnswer = 4 << 10

// Options say where and how to deliver.
type Options struct {
	Name    string // for the log
	URL     string // https; http only to loopback
	Secret  keys.WebhookSecret
	Roots   *x509.CertPool // who may vouch for the receiver; nil: the system's
	Timeout time.Duration  // of one attempt
	Outbox  *outbox.Outbox
	Log     *slog.Logger // it must not block; nil for nothing
	Agent   string       // User-Agent

	pace pace // for tests; its zero value is the default
}

// Webhook delivers what is in an outbox.
type Webhook struct {
	o      Options
	client *http.Client

	mu    sync.Mutex
	state state
	stats Stats
}

// Stats say what a webhook has done since it was made.
type Stats struct {
	Delivered uint64
	Failed    uint64 // attempts
	Gone      bool   // the receiver said 410, so that nothing is sent till the next reload
	Down      bool   // the last attempts failed
}

// New returns a webhook that Run starts.
func New(o Options) *Webhook {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.pace == (pace{}) {
		o.pace = normal
	}
	return &Webhook{o: o, client: &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: o.Timeout}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    o.Timeout,
			MaxIdleConnsPerHost:    inFlight,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        90 * time.Second,
			DisableCompression:     true,
			// No HTTP/2: one connection for all that has died without a word would time every attempt out until TCP
			// notices, which takes a quarter of an hour. Of HTTP/1.1 an attempt that times out takes its own with it.
			ForceAttemptHTTP2: false,
		},
	}}
}

// Run delivers until ctx is done or the outbox is closed. What is under way then is tried again by the next one.
func (w *Webhook) Run(ctx context.Context) error {
	defer w.client.CloseIdleConnections()
	group, ctx := errgroup.WithContext(ctx)
	for range inFlight {
		group.Go(func() error { return w.work(ctx) })
	}
	return group.Wait()
}

// work delivers one event after the other.
func (w *Webhook) work(ctx context.Context) error {
	for {
		m, err := w.o.Outbox.Next(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		if w.await(ctx) != nil {
			w.o.Outbox.Retry(m, 0)
			return nil
		}
		result := w.send(ctx, m)
		if ctx.Err() != nil && !result.ok() {
			w.o.Outbox.Retry(m, 0)
			return nil
		}
		w.settle(m, result)
	}
}

// ended tells an orderly end from another.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, outbox.ErrClosed) {
		return nil
	}
	return err
}

// result is what became of one attempt.
type result struct {
	status int   // 0 without an answer
	err    error // then, why
	after  time.Duration
}

func (r result) ok() bool { return r.status/100 == 2 }

// text says for the log what was wrong, without any word of the other side.
func (r result) text() string {
	switch {
	case r.err != nil:
		return r.err.Error()
	case r.status/100 == 3:
		return fmt.Sprintf("status %d: redirects are not followed, name the final address in url", r.status)
	}
	return fmt.Sprintf("status %d %s", r.status, http.StatusText(r.status))
}

// send makes one attempt.
func (w *Webhook) send(ctx context.Context, m outbox.Message) result {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, w.o.URL, bytes.NewReader(m.Body))
	if err != nil {
		return result{err: plain(err)}
	}
	now := time.Now()
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("User-Agent", w.o.Agent)
	q.Header.Set("webhook-id", m.ID)
	q.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	q.Header.Set("webhook-signature", w.o.Secret.Sign(m.ID, now, m.Body))
	r, err := w.client.Do(q)
	if err != nil {
		return result{err: plain(err)}
	}
	defer r.Body.Close()
	_, _ = io.CopyN(io.Discard, r.Body, maxAnswer) // the status has said it all
	return result{status: r.StatusCode, after: retryAfter(r.Header.Get("Retry-After"), now)}
}

// plain takes off the address, which may hold a token, that net/http puts before an error.
func plain(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		if u.Timeout() {
			return errors.New("no answer in time")
		}
		return u.Err
	}
	return err
}

// retryAfter reads what a receiver asks for: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// Stats says what was done.
func (w *Webhook) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}
