package event

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema is what receivers are promised.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile("../../contrib/events.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s.Validate(v)
}

// examples are events as they are made in the house, with what each kind has always.
func examples() map[Kind]Event {
	door := Event{Service: "nas", Session: "6b5f844af7c7", Source: "2001:db8::/64", TTL: time.Hour, Until: noon.Add(time.Hour)}
	shut := Event{Service: "nas", Session: "6b5f844af7c7", Source: "192.0.2.1"}
	moved := door
	moved.From = "192.0.2.1"
	knock := Event{Device: "laptop", Service: "nas", Source: "192.0.2.1"}
	why := Event{Reason: "EPERM"}
	operator := Event{Device: "laptop", By: "operator"}
	return map[Kind]Event{
		Opened: door, Renewed: door, Restored: door, Moved: moved, Closed: shut, Expired: shut, KnockAccepted: knock,
		KnockRefused: {Device: "laptop", Source: "192.0.2.1", Reason: "replayed"},
		Started:      {}, Stopped: {}, Reloaded: {}, ReloadFailed: why, BackendFailed: why, BackendHealed: why, JournalFailed: why,
		SocketLost: {}, SocketHealed: {}, DeviceEnrolled: {Device: "laptop"}, DeviceAdded: operator, DeviceRemoved: operator,
		RemoteAdded: {Remote: "web", By: "operator", TTL: time.Minute}, RemoteJoined: {Remote: "web", Source: "192.0.2.1"},
		RemoteRemoved: {Remote: "web", By: "operator"}, KnockRelayed: {Device: "laptop", Source: "192.0.2.1", By: "remote web"},
		InviteCreated: {Device: "laptop", By: "operator", TTL: time.Minute}, EventsLost: {Lost: 7, Reason: "the outbox was full"},
	}
}

// TestSchema: an event of each kind follows the schema, and nothing of it can be left out.
func TestSchema(t *testing.T) {
	s, all := schema(t), examples()
	for _, k := range Kinds() {
		t.Run(string(k), func(t *testing.T) {
			e, ok := all[k]
			if !ok {
				t.Fatal("no example")
			}
			e.Kind, e.Time = k, noon
			text, err := json.Marshal(e)
			if err == nil {
				err = valid(t, s, text)
			}
			if err != nil {
				t.Fatal(err)
			}
			var keys map[string]any
			if err := json.Unmarshal(text, &keys); err != nil {
				t.Fatal(err)
			}
			for key, value := range keys {
				delete(keys, key)
				if less, _ := json.Marshal(keys); valid(t, s, less) == nil {
					t.Errorf("without %s it is valid too: %s", key, less)
				}
				keys[key] = value
			}
		})
	}
}

func TestSchemaRefuses(t *testing.T) {
	s := schema(t)
	for name, text := range map[string]string{
		"no object":    `[]`,
		"unknown kind": `{"time":"2026-03-01T12:00:00Z","kind":"teleported"}`,
		"no time":      `{"time":"noon","kind":"started"}`,
		"ttl as text":  `{"time":"2026-03-01T12:00:00Z","kind":"started","ttl":"1h"}`,
		"empty device": `{"time":"2026-03-01T12:00:00Z","kind":"device_enrolled","device":""}`,
		"none lost":    `{"time":"2026-03-01T12:00:00Z","kind":"events_lost","lost":0,"reason":"x"}`,
	} {
		if valid(t, s, []byte(text)) == nil {
			t.Errorf("%s is valid", name)
		}
	}
}

// TestDocument: EVENTS.md and the schema name every key and kind, and the document's examples are valid.
func TestDocument(t *testing.T) {
	doc, err := os.ReadFile("../../EVENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../contrib/events.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var in struct {
		Properties map[string]struct{ Enum []Kind }
	}
	if err := json.Unmarshal(text, &in); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(in.Properties["kind"].Enum, Kinds()) {
		t.Errorf("the schema has the kinds %v", in.Properties["kind"].Enum)
	}
	for _, k := range Kinds() {
		if !regexp.MustCompile("(?m)^\\| [a-z_`, ]*`" + string(k) + "`").Match(doc) {
			t.Errorf("EVENTS.md has no line for %s", k)
		}
	}
	all, _ := json.Marshal(full())
	var keys map[string]any
	if err := json.Unmarshal(all, &keys); err != nil {
		t.Fatal(err)
	}
	for key := range keys {
		if _, ok := in.Properties[key]; !ok || !strings.Contains(string(doc), "`"+key+"`") {
			t.Errorf("the schema or EVENTS.md lacks %s", key)
		}
	}
	found := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(doc, -1)
	for _, m := range found {
		if err := valid(t, schema(t), m[1]); err != nil {
			t.Error(err)
		}
	}
	if len(found) == 0 {
		t.Error("no example")
	}
}
