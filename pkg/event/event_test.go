package event

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func full() Event {
	return Event{
		Time: noon, Kind: Moved, Device: "laptop", Service: "nas", Session: "s1", Source: "192.0.2.2", From: "192.0.2.1",
		Reason: "r", By: "operator", TTL: 90 * time.Second, Until: noon.Add(90 * time.Second), Lost: 3,
	}
}

func TestJSON(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    Event
		want string
	}{
		{"least", Event{Time: noon, Kind: Started}, `{"time":"2026-03-01T12:00:00Z","kind":"started"}`},
		{"most", full(), `{"time":"2026-03-01T12:00:00Z","kind":"moved","device":"laptop","service":"nas","session":"s1",` +
			`"source":"192.0.2.2","from":"192.0.2.1","reason":"r","by":"operator","ttl":90,"until":"2026-03-01T12:01:30Z","lost":3}`},
		{
			"part of a second",
			Event{Time: noon, Kind: Opened, TTL: 1500 * time.Millisecond},
			`{"time":"2026-03-01T12:00:00Z","kind":"opened","ttl":1.5}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := json.Marshal(tt.e)
			if err != nil || string(b) != tt.want {
				t.Fatalf("%s, %v", b, err)
			}
			var back Event
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.e, back); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJSONOfANewerDaemon(t *testing.T) {
	var e Event
	if err := json.Unmarshal([]byte(`{"time":"2026-03-01T12:00:00Z","kind":"teleported","planet":"mars"}`), &e); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Event{Time: noon, Kind: "teleported"}, e); diff != "" {
		t.Error(diff)
	}
	if json.Unmarshal([]byte(`{"time":1}`), &e) == nil {
		t.Error("a number passed for a time")
	}
}

func TestLogAttrs(t *testing.T) {
	var b strings.Builder
	e := full()
	slog.New(slog.NewTextHandler(&b, nil)).LogAttrs(t.Context(), slog.LevelInfo, e.Kind.Text(), e.LogAttrs()...)
	_, line, _ := strings.Cut(strings.TrimSpace(b.String()), " level=INFO ")
	want := `msg=moved device=laptop service=nas session=s1 source=192.0.2.2 from=192.0.2.1 reason=r by=operator ttl=1m30s until=2026-03-01T12:01:30.000Z`
	if line != want {
		t.Errorf("%s", line)
	}
	if n := len(Event{Kind: Started, Time: noon}.LogAttrs()); n != 0 {
		t.Errorf("%d attributes of an empty event", n)
	}
}

// TestKinds: a kind that is missing in Kinds could be chosen by no configuration and is in no schema.
func TestKinds(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []Kind
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			if typ, ok := v.Type.(*ast.Ident); ok && typ.Name == "Kind" {
				text, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				declared = append(declared, Kind(text))
			}
		}
		return true
	})
	if diff := cmp.Diff(declared, Kinds()); diff != "" {
		t.Error(diff)
	}
}
