// Package journal writes log lines to systemd's journal with their fields, so that journalctl can pick by them:
//
//	journalctl SPAD_KIND=opened SPAD_DEVICE=laptop
//
// A line's message is the same text as on a terminal, without time and level, which the journal has fields of its own for. Each
// attribute is a field too: SPAD_ and its name in capitals.
package journal

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"spad/pkg/event"
)

// Stderr says whether what is written to stderr ends up in the journal, which by its native protocol can have fields
// (systemd.io/JOURNAL_NATIVE_PROTOCOL, automatic protocol upgrading).
func Stderr() bool {
	is, err := journal.StderrIsJournalStream()
	return is && err == nil
}

// Handler is a slog.Handler that writes to the journal.
type Handler struct {
	plain  slog.Handler // decides what is loud enough, and gets what the journal does not take
	attrs  []slog.Attr
	prefix string // of the groups that are open
}

// New returns a handler that falls back to a plain one, which writes to stderr.
func New(plain slog.Handler) *Handler { return &Handler{plain: plain} }

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.plain.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		c.attrs = append(c.attrs, h.named(a))
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.prefix += name + "."
	}
	return &c
}

// named puts the open groups before an attribute's name.
func (h *Handler) named(a slog.Attr) slog.Attr {
	a.Key = h.prefix + a.Key
	return a
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, h.named(a))
		return true
	})
	all := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	all.AddAttrs(attrs...)
	vars := map[string]string{"SYSLOG_IDENTIFIER": "spad"}
	if kind := strings.ReplaceAll(r.Message, " ", "_"); slices.Contains(event.Kinds(), event.Kind(kind)) {
		vars["SPAD_KIND"] = kind
	}
	for _, a := range attrs {
		fields(vars, "SPAD_", a)
	}
	if journal.Send(message(ctx, all), priority(r.Level), vars) != nil {
		return h.plain.Handle(ctx, all)
	}
	return nil
}

// message is a line as a terminal would show it, without time and level.
func message(ctx context.Context, r slog.Record) string {
	var b bytes.Buffer
	b.WriteString(r.Message + " ")
	_ = slog.NewTextHandler(&b, &slog.HandlerOptions{Level: r.Level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}}).Handle(ctx, r) // a buffer takes everything
	return strings.TrimSpace(b.String())
}

// fields adds an attribute, or those of its group.
func fields(vars map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, in := range v.Group() {
			fields(vars, prefix+a.Key+"_", in)
		}
		return
	}
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().Format(time.RFC3339Nano)
	}
	vars[strings.Map(fieldRune, prefix+a.Key)] = text
}

// fieldRune makes a character one that the name of a field may have.
func fieldRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z':
		return r - 'a' + 'A'
	case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return r
	}
	return '_'
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
