// Package hook runs a program for each event.
//
// The program gets the event as one line of JSON on its standard input and its fields as environment variables. Events wait in a
// bounded queue in memory and are run one after the other, in order, each once: what a program could not do is not tried again,
// and what waits when spad stops is lost. Whoever needs every event uses a webhook.
//
// A program is started without a shell, in a process group of its own, in "/", with no environment but PATH and SPAD_*, as the user
// that spad runs as. After its time the whole group is killed.
package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"spad/pkg/event"
)

// maxQueue is how many events may wait for the program.
const maxQueue = 1024

// path is what programs find others by.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Options say what to run.
type Options struct {
	Name    string        // for the log
	Command []string      // the absolute path of the program, and its arguments
	Kinds   []event.Kind  // events it is run for
	Timeout time.Duration // of one run
	Log     *slog.Logger  // it must not block; nil for nothing
}

// Hook runs a program. It is an event.Sink.
type Hook struct {
	o     Options
	kinds map[event.Kind]bool
	kick  chan struct{}

	mu    sync.Mutex
	queue []event.Event
	lost  uint64 // since the last event that fitted
	stats Stats
	told  time.Time // when the log was told of a failure
	quiet int       // failures since
}

// Stats say what a hook has done since it was made.
type Stats struct {
	Run     uint64
	Failed  uint64 // of those
	Lost    uint64 // events that found the queue full
	Waiting int
}

// New returns a hook that Run starts.
func New(o Options) *Hook {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hook{o: o, kinds: map[event.Kind]bool{}, kick: make(chan struct{}, 1)}
	for _, k := range o.Kinds {
		h.kinds[k] = true
	}
	return h
}

// Take implements event.Sink.
func (h *Hook) Take(e event.Event) {
	if !h.kinds[e.Kind] {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) >= maxQueue {
		h.lost++
		h.stats.Lost++
		return
	}
	e.Lost, h.lost = h.lost, 0
	h.queue = append(h.queue, e)
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// Stats says what was done.
func (h *Hook) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Waiting = len(h.queue)
	return s
}

// Run runs the program for each event until ctx is done, and for those that wait then as long as grace is not.
func (h *Hook) Run(ctx, grace context.Context) error {
	for {
		e, ok := h.first()
		switch {
		case ok && grace.Err() == nil:
			h.settle(h.run(grace, e), e)
			continue
		case ctx.Err() != nil:
			return nil
		}
		select {
		case <-h.kick:
		case <-ctx.Done():
		}
	}
}

// first takes the first event that waits.
func (h *Hook) first() (e event.Event, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		return e, false
	}
	e, h.queue = h.queue[0], h.queue[1:]
	return e, true
}

// errTime means that a program did not end in time.
var errTime = errors.New("it did not end in time and was killed")

// run runs the program once.
func (h *Hook) run(ctx context.Context, e event.Event) error {
	ctx, cancel := context.WithTimeoutCause(ctx, h.o.Timeout, errTime)
	defer cancel()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	var said head
	cmd := exec.CommandContext(ctx, h.o.Command[0], h.o.Command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = "/", append([]string{path}, environment(e)...), bytes.NewReader(append(line, '\n'))
	cmd.Stdout, cmd.Stderr = nil, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for what a grandchild in another group holds open
	err = cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil && said.text != "" {
		err = fmt.Errorf("%w: %s", err, said.text)
	}
	return err
}

// head keeps the beginning of what is written to it.
type head struct{ text string }

func (h *head) Write(p []byte) (int, error) {
	const longest = 200
	h.text += string(p[:min(len(p), longest-len(h.text))])
	return len(p), nil
}

// maxVariable bounds a variable: the kernel takes none beyond 128 KiB. The JSON has the whole text.
const maxVariable = 8 << 10

// environment returns the fields of an event that are set, as variables.
func environment(e event.Event) []string {
	vars := []string{"SPAD_KIND=" + string(e.Kind), "SPAD_TIME=" + e.Time.Format(time.RFC3339Nano)}
	add := func(name, value string) {
		if value != "" {
			value = strings.ToValidUTF8(value[:min(len(value), maxVariable)], "")
			vars = append(vars, "SPAD_"+name+"="+strings.ReplaceAll(value, "\x00", " "))
		}
	}
	add("DEVICE", e.Device)
	add("SERVICE", e.Service)
	add("SESSION", e.Session)
	add("SOURCE", e.Source)
	add("FROM", e.From)
	add("REASON", e.Reason)
	add("BY", e.By)
	add("REMOTE", e.Remote)
	if e.TTL != 0 {
		add("TTL", strconv.FormatFloat(e.TTL.Seconds(), 'f', -1, 64))
	}
	if !e.Until.IsZero() {
		add("UNTIL", e.Until.Format(time.RFC3339Nano))
	}
	if e.Lost != 0 {
		add("LOST", strconv.FormatUint(e.Lost, 10))
	}
	return vars
}

// tellEvery is the time between two log lines about failures.
const tellEvery = time.Minute

// settle counts a run, and tells of one that failed, once in a while.
func (h *Hook) settle(err error, e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Run++
	if err == nil {
		return
	}
	h.stats.Failed++
	if now := time.Now(); h.told.IsZero() || now.Sub(h.told) >= tellEvery {
		h.o.Log.Warn("exec hook failed", "exec", h.o.Name, "kind", e.Kind, "why", err, "failures_not_logged", h.quiet)
		h.told, h.quiet = now, 0
		return
	}
	h.quiet++
}
