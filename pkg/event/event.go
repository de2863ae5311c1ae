// Package event carries what happened from the rooms where it happens to those who want to know: the log, watchers of
// the control socket, and the sinks of other packages: webhooks, programs.
//
// An [Event] is typed and holds no secret: names, addresses and times only. A [Bus] hands each one to its sinks and
// never blocks the publisher, which is often the goroutine that opens doors: every sink has a bounded queue, and what
// does not fit is dropped and counted. A refusal that names no device is a stranger's packet; the bus counts it and
// hands it to nobody, so that junk can fill neither a disk nor a watcher's queue.
package event

import (
	"encoding/json"
	"log/slog"
	"strings"
	"time"
)

// Kind says what happened. Its text is part of the control protocol and of logs.
type Kind string

// The kinds. A knock that opens a door is one KnockAccepted and one of Opened, Renewed, Moved.
const (
	Started        Kind = "started"
	Stopped        Kind = "stopped"
	Reloaded       Kind = "reloaded"
	ReloadFailed   Kind = "reload_failed" // Reason says why; the old configuration stays
	KnockAccepted  Kind = "knock_accepted"
	KnockRefused   Kind = "knock_refused" // Reason says why; without a Device it is a stranger's and only counted
	Opened         Kind = "opened"
	Renewed        Kind = "renewed"
	Moved          Kind = "moved" // the device came from another address: From is the old one
	Closed         Kind = "closed"
	Expired        Kind = "expired"
	Restored       Kind = "restored" // a door of an earlier run was taken over, or came back with a reverted trial
	DeviceEnrolled Kind = "device_enrolled"
	DeviceAdded    Kind = "device_added"
	DeviceRemoved  Kind = "device_removed"
	InviteCreated  Kind = "invite_created"
	RemoteAdded    Kind = "remote_added" // somebody may join as one, once
	RemoteJoined   Kind = "remote_joined"
	RemoteRemoved  Kind = "remote_removed"
	KnockRelayed   Kind = "knock_relayed" // By handed in a knock of the Device, which was verified; what came of it follows
	BackendFailed  Kind = "backend_failed"
	BackendHealed  Kind = "backend_healed"
	JournalFailed  Kind = "journal_failed" // the replay journal can't be written: nothing opens
	SocketLost     Kind = "socket_lost"
	SocketHealed   Kind = "socket_healed"
	EventsLost     Kind = "events_lost" // a sink's own: Lost says how many events it had no room for
)

// Kinds returns every kind there is, in the order above.
func Kinds() []Kind {
	return []Kind{
		Started, Stopped, Reloaded, ReloadFailed, KnockAccepted, KnockRefused, Opened, Renewed, Moved, Closed, Expired, Restored,
		DeviceEnrolled, DeviceAdded, DeviceRemoved, InviteCreated, RemoteAdded, RemoteJoined, RemoteRemoved, KnockRelayed,
		BackendFailed, BackendHealed, JournalFailed, SocketLost, SocketHealed, EventsLost,
	}
}

// Text returns the kind as words, for a log line.
func (k Kind) Text() string { return strings.ReplaceAll(string(k), "_", " ") }

// level returns how loud the log is about events of this kind. An accepted knock is quiet because the door it opens
// has a line of its own.
func (k Kind) level() slog.Level {
	switch k {
	case KnockAccepted:
		return slog.LevelDebug
	case KnockRefused:
		return slog.LevelWarn
	case ReloadFailed, BackendFailed, JournalFailed, SocketLost:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// Event is one thing that happened. Fields that do not apply are zero.
type Event struct {
	Time    time.Time     // filled by Publish if zero
	Kind    Kind          //
	Device  string        // name of the enrolled device
	Remote  string        // name of the remote that it happened to
	Service string        // name of the service
	Session string        // id of the opening
	Source  string        // address or prefix the door is open for
	From    string        // the source before, if Moved
	Reason  string        // why refused or failed
	By      string        // who asked, if not the device: "operator", "remote NAME", "restart"
	TTL     time.Duration // how long the door stays open
	Until   time.Time     // when it shuts
	Lost    uint64        // events that this subscriber was too slow for, just before this one
}

// wireEvent is the JSON form of an Event: ttl in seconds, what is empty left out.
type wireEvent struct {
	Time    time.Time `json:"time"`
	Kind    Kind      `json:"kind"`
	Device  string    `json:"device,omitempty"`
	Remote  string    `json:"remote,omitempty"`
	Service string    `json:"service,omitempty"`
	Session string    `json:"session,omitempty"`
	Source  string    `json:"source,omitempty"`
	From    string    `json:"from,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"`
	TTL     float64   `json:"ttl,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Lost    uint64    `json:"lost,omitempty"`
}

// MarshalJSON writes lower-case keys and the time to live in seconds; empty fields are left out.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireEvent{
		Time: e.Time, Kind: e.Kind, Device: e.Device, Remote: e.Remote, Service: e.Service, Session: e.Session, Source: e.Source, From: e.From,
		Reason: e.Reason, By: e.By, TTL: e.TTL.Seconds(), Until: e.Until, Lost: e.Lost,
	})
}

// UnmarshalJSON reads what MarshalJSON writes and ignores keys it does not know, so that an older command can watch a
// newer daemon.
func (e *Event) UnmarshalJSON(b []byte) error {
	var w wireEvent
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*e = Event{
		Time: w.Time, Kind: w.Kind, Device: w.Device, Remote: w.Remote, Service: w.Service, Session: w.Session, Source: w.Source, From: w.From,
		Reason: w.Reason, By: w.By, TTL: time.Duration(w.TTL * float64(time.Second)), Until: w.Until, Lost: w.Lost,
	}
	return nil
}

// LogAttrs returns the fields that are set, for a log line whose message is the kind. The time is not among them: the
// log has its own.
func (e Event) LogAttrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, 10)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("device", e.Device)
	text("remote", e.Remote)
	text("service", e.Service)
	text("session", e.Session)
	text("source", e.Source)
	text("from", e.From)
	text("reason", e.Reason)
	text("by", e.By)
	if e.TTL != 0 {
		attrs = append(attrs, slog.Duration("ttl", e.TTL))
	}
	if !e.Until.IsZero() {
		attrs = append(attrs, slog.Time("until", e.Until))
	}
	return attrs
}
