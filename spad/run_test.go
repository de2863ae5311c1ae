package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"syscall"
	"testing"
)

func TestHangups(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wishes := hangups(ctx)
	for range 2 { // the process must live on after each
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		<-wishes
	}
}

func TestLogger(t *testing.T) {
	var text, asJSON strings.Builder
	out := &text
	logs := newLogs(writerFunc(func(b []byte) (int, error) { return out.Write(b) }), false)
	log := slog.New(logs).With("port", 41372)
	log.Info("started")
	if !strings.Contains(text.String(), "msg=started port=41372\n") {
		t.Errorf("text: %s", text.String())
	}
	out = &asJSON
	logs.format(true)
	log.Info("started")
	var line struct {
		Msg  string
		Port int
	}
	if err := json.Unmarshal([]byte(asJSON.String()), &line); err != nil || line.Msg != "started" || line.Port != 41372 {
		t.Errorf("json: %s, %v", asJSON.String(), err)
	}
}
