package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"spad/pkg/event"
)

// The types of metrics.
const (
	counter = "counter" // only grows, from 0 at each start
	gauge   = "gauge"
)

// exposition writes metrics in the text format of Prometheus, version 0.0.4.
type exposition struct{ out *bufio.Writer }

// family begins the metrics of one name.
func (x exposition) family(name, kind, help string) {
	fmt.Fprintf(x.out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one value; labels are names and values by turns.
func (x exposition) sample(name string, value uint64, labels ...string) {
	x.out.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		fmt.Fprintf(x.out, `%c%s="%s"`, "{,"[min(i, 1)], labels[i], labelEscapes.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		x.out.WriteByte('}')
	}
	fmt.Fprintf(x.out, " %d\n", value)
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// one writes a family of one metric.
func (x exposition) one(name, kind, help string, value uint64) {
	x.family(name, kind, help)
	x.sample(name, value)
}

// metrics writes all metrics. Their number is bounded by the configuration: none is named after a device or an address.
func (d *Daemon) metrics(ctx context.Context, w io.Writer) error {
	s, err := d.Status(ctx)
	if err != nil {
		return err
	}
	x := exposition{bufio.NewWriter(w)}
	x.family("spad_build_info", gauge, "Always 1.")
	x.sample("spad_build_info", 1, "version", s.Version, "firewall", s.Firewall)
	x.one("spad_start_time_seconds", gauge, "When the daemon started, since 1970.", uint64(max(s.Started.Unix(), 0)))
	x.one("spad_knock_clock_seconds", gauge, "The knock clock, since 1970.", uint64(max(s.KnockClock.Unix(), 0)))
	x.one("spad_sessions", gauge, "Open doors.", uint64(s.Sessions))
	x.one("spad_devices", gauge, "Devices, of the configuration and of the state.", uint64(s.Devices))
	x.one("spad_services", gauge, "Services.", uint64(s.Services))
	x.one("spad_invites", gauge, "Invites that nobody has used yet.", uint64(s.Invites))
	d.packetMetrics(x)
	d.eventMetrics(x)
	d.sinks.metrics(x)
	return x.out.Flush()
}

func (d *Daemon) packetMetrics(x exposition) {
	x.one("spad_knocks_total", counter, "Packets that were a device's knock.", d.counters.good.Load())
	x.one("spad_knocks_denied_total", counter, "Knocks for what the device may not open.", d.counters.denied.Load())
	x.family("spad_packets_dropped_total", counter, "Packets that were not looked at.")
	x.sample("spad_packets_dropped_total", d.counters.overrun.Load(), "where", "queue")
	x.sample("spad_packets_dropped_total", d.udp.Dropped(), "where", "socket")
	x.sample("spad_packets_dropped_total", d.udp.Ignored(), "where", "address")
	x.family("spad_packets_refused_total", counter, "Packets that were no knock to follow, by the check that they failed.")
	for i, reason := range counted {
		x.sample("spad_packets_refused_total", d.counters.reasons[i].Load(), "reason", string(reason))
	}
}

func (d *Daemon) eventMetrics(x exposition) {
	published := d.bus.Published()
	x.family("spad_events_total", counter, "Events, by kind.")
	for _, k := range event.Kinds() {
		if k != event.EventsLost {
			x.sample("spad_events_total", published[k], "kind", string(k))
		}
	}
	x.one("spad_events_unwatched_total", counter, "Events that did not fit the log's or a watcher's queue.", d.bus.Dropped())
}

// metrics writes what became of events. Each family must stand in one piece, so it goes through the sinks again for each.
func (s *sinks) metrics(x exposition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	webhooks := slices.Sorted(maps.Keys(s.webhooks))
	family := func(name, kind, help string, value func(*webhookSink) uint64) {
		if len(webhooks) > 0 {
			x.family(name, kind, help)
		}
		for _, w := range webhooks {
			x.sample(name, value(s.webhooks[w]), "webhook", w)
		}
	}
	family("spad_webhook_up", gauge, "Whether the receiver takes events, 1 or 0.", func(w *webhookSink) uint64 {
		if stats := w.hook.Stats(); stats.Down || stats.Gone {
			return 0
		}
		return 1
	})
	family("spad_webhook_waiting_events", gauge, "Events that the receiver has not taken yet.", func(w *webhookSink) uint64 {
		return uint64(w.box.Stats().Waiting)
	})
	family("spad_webhook_unstored_events", gauge, "Of those, events that are not safe on disk yet.", func(w *webhookSink) uint64 {
		return uint64(w.box.Stats().Unstored)
	})
	family("spad_webhook_outbox_bytes", gauge, "Disk that the outbox takes.", func(w *webhookSink) uint64 {
		return uint64(w.box.Stats().Disk)
	})
	family("spad_webhook_delivered_total", counter, "Events that the receiver has taken.", func(w *webhookSink) uint64 {
		return w.hook.Stats().Delivered
	})
	family("spad_webhook_failed_attempts_total", counter, "Attempts that the receiver has not taken.", func(w *webhookSink) uint64 {
		return w.hook.Stats().Failed
	})
	family("spad_webhook_lost_events_total", counter, "Events that found the outbox full.", func(w *webhookSink) uint64 {
		return w.box.Stats().Lost
	})
	s.hookMetrics(x)
}

func (s *sinks) hookMetrics(x exposition) {
	hooks := slices.Sorted(maps.Keys(s.hooks))
	family := func(name, kind, help string, value func(*hookSink) uint64) {
		if len(hooks) > 0 {
			x.family(name, kind, help)
		}
		for _, h := range hooks {
			x.sample(name, value(s.hooks[h]), "exec", h)
		}
	}
	family("spad_exec_waiting_events", gauge, "Events that wait for the program.", func(h *hookSink) uint64 {
		return uint64(h.hook.Stats().Waiting)
	})
	family("spad_exec_runs_total", counter, "Runs of the program.", func(h *hookSink) uint64 { return h.hook.Stats().Run })
	family("spad_exec_failed_total", counter, "Runs that failed.", func(h *hookSink) uint64 { return h.hook.Stats().Failed })
	family("spad_exec_lost_events_total", counter, "Events that found the queue full.", func(h *hookSink) uint64 { return h.hook.Stats().Lost })
}
