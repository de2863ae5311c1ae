package main

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"spad/pkg/event/journal"
)

// logs writes log lines to stderr as text or as JSON, and can change from one to the other while they are written. If that leads
// to systemd's journal, what is not JSON has fields there.
type logs struct {
	text, json slog.Handler
	asJSON     *atomic.Bool
}

func newLogs(w io.Writer, asJSON bool) *logs {
	l := &logs{text: slog.NewTextHandler(w, nil), json: slog.NewJSONHandler(w, nil), asJSON: &atomic.Bool{}}
	if journal.Stderr() {
		l.text = journal.New(l.text)
	}
	l.format(asJSON)
	return l
}

// format chooses the form of the lines from now on, also of loggers made of this one.
func (l *logs) format(asJSON bool) { l.asJSON.Store(asJSON) }

func (l *logs) now() slog.Handler {
	if l.asJSON.Load() {
		return l.json
	}
	return l.text
}

// Enabled implements slog.Handler.
func (l *logs) Enabled(ctx context.Context, level slog.Level) bool {
	return l.now().Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l *logs) Handle(ctx context.Context, r slog.Record) error { return l.now().Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (l *logs) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logs{text: l.text.WithAttrs(attrs), json: l.json.WithAttrs(attrs), asJSON: l.asJSON}
}

// WithGroup implements slog.Handler.
func (l *logs) WithGroup(name string) slog.Handler {
	return &logs{text: l.text.WithGroup(name), json: l.json.WithGroup(name), asJSON: l.asJSON}
}
