package main

import (
	"strings"
	"testing"
	"time"

	"spad/pkg/control"
	"spad/pkg/event"
)

func TestSpan(t *testing.T) {
	tests := map[string]string{
		"0s": "0s", "400ms": "0s", "59s": "59s", "59.6s": "1m", "1m": "1m", "1m5s": "1m5s", "9m59s": "9m59s", "10m30s": "10m",
		"59m59s": "59m", "1h": "1h", "1h0m30s": "1h", "3h5m": "3h5m", "47h59m": "47h59m", "48h": "2d", "8760h": "365d",
	}
	for in, want := range tests {
		d, err := time.ParseDuration(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := span(d); got != want {
			t.Errorf("span(%s) = %q, want %q", in, got, want)
		}
	}
}

func TestWhen(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		at   time.Time
		want string
	}{
		{now.Add(14 * time.Minute), "in 14m"},
		{now.Add(-90 * time.Second), "1m30s ago"},
		{now.Add(300 * time.Millisecond), "now"},
	}
	for _, tt := range tests {
		if got := when(tt.at, now); got != tt.want {
			t.Errorf("when(%v) = %q, want %q", tt.at.Sub(now), got, tt.want)
		}
	}
}

func TestSkew(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := map[time.Duration]string{
		0: "as the system clock", time.Second: "as the system clock", time.Hour: "1h ahead of the system clock",
		-time.Minute: "1m behind the system clock",
	}
	for off, want := range tests {
		if got := skew(now.Add(off), now); got != want {
			t.Errorf("skew by %v = %q, want %q", off, got, want)
		}
	}
}

func TestCondition(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	before, after := now.Add(-time.Second), now.Add(time.Second)
	tests := []struct {
		name string
		d    control.Device
		want string
	}{
		{"no end", control.Device{}, "enabled"},
		{"end to come", control.Device{Expires: &after}, "enabled"},
		{"end now", control.Device{Expires: &now}, "expired"},
		{"end past", control.Device{Expires: &before}, "expired"},
		{"disabled", control.Device{Disabled: true, Expires: &before}, "disabled"},
	}
	for _, tt := range tests {
		if got := condition(tt.d, now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestEventLine(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	tests := []struct {
		name string
		e    event.Event
		want string
	}{
		{
			"opened",
			event.Event{Kind: event.Opened, Device: "laptop", Service: "nas", Source: "2001:db8::7", TTL: time.Hour, Until: at.Add(time.Hour)},
			"12:00:00 opened device=laptop service=nas source=2001:db8::7 ttl=1h until=13:00:00",
		},
		{
			"words are quoted",
			event.Event{Kind: event.KnockRefused, Device: "laptop", Reason: "not now"},
			`12:00:00 knock refused device=laptop reason="not now"`,
		},
		{
			"one line whatever comes",
			event.Event{Kind: event.ReloadFailed, Reason: "one\ntwo\x1b[1m"},
			`12:00:00 reload failed reason="one\ntwo\x1b[1m"`,
		},
		{
			"too slow",
			event.Event{Kind: event.Started, Lost: 3},
			"12:00:00 started (3 events before it were lost: this terminal is too slow)",
		},
	}
	for _, tt := range tests {
		tt.e.Time = at
		if got := eventLine(tt.e); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// A port that init picks must be in the range, and none that other programs use.
func TestRandomPort(t *testing.T) {
	seen := map[uint16]bool{}
	for range 2000 {
		port, err := randomPort()
		if err != nil {
			t.Fatal(err)
		}
		if port < 20000 || port > 60999 || port == 51820 {
			t.Fatalf("port %d", port)
		}
		seen[port] = true
	}
	if len(seen) < 1500 {
		t.Errorf("only %d different ports of 2000", len(seen))
	}
}

func TestColouredLine(t *testing.T) {
	for kind, want := range map[event.Kind]string{event.Opened: "\x1b[32m", event.KnockRefused: "\x1b[33m", event.BackendFailed: "\x1b[31m", event.Started: ""} {
		e := event.Event{Kind: kind, Time: time.Unix(0, 0)}
		line := colouredLine(e)
		if !strings.HasPrefix(line, want) || strings.Contains(line, "\x1b") != (want != "") || want != "" && !strings.HasSuffix(line, "\x1b[0m") {
			t.Errorf("%s: %q", kind, line)
		}
	}
}
