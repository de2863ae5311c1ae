package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spad/keys"
)

var update = flag.Bool("update", false, "write the golden packets anew")

const (
	goldenDir = "../../testdata/wire"
	goldenExt = ".vector"
)

// golden is one file: what is expected, the keys, what was sealed, the bytes.
type golden map[string]string

// goldenFields is every field there is, in the order in which a file has them.
var goldenFields = []string{
	"comment", "expect", "kind",
	"router-secret", "router-public", "device-seed", "device-public", "ephemeral-secret",
	"op", "answer-wanted", "ttl", "service", "time", "address", "token-id", "token-secret",
	"status", "port", "router-time", "seen", "nonce",
	"sealed", "packet", "answer",
}

func (g golden) text() []byte {
	var b bytes.Buffer
	for _, f := range goldenFields {
		if v, ok := g[f]; ok {
			fmt.Fprintf(&b, "%s: %s\n", f, v)
		}
	}
	return b.Bytes()
}

func readGolden(data []byte) (golden, error) {
	g := golden{}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok || !slices.Contains(goldenFields, name) || g[name] != "" {
			return nil, fmt.Errorf("bad line %q", line)
		}
		g[name] = value
	}
	if !bytes.Equal(g.text(), data) {
		return nil, errors.New("fields missing or out of order")
	}
	return g, nil
}

// bytes reads a field of hex; a field that is missing or empty is no bytes.
func (g golden) bytes(name string) []byte {
	return must(hex.DecodeString(strings.TrimSuffix(g[name], "-")))
}

func (g golden) number(name string) int64 {
	if g[name] == "" {
		return 0
	}
	return must(strconv.ParseInt(g[name], 10, 64))
}

func (g golden) addr(name string) netip.Addr {
	if g[name] == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(g[name])
}

func (g golden) op() Op {
	for o := range OpHello + 1 {
		if o.String() == g["op"] {
			return o
		}
	}
	panic("golden file without an op")
}

// message is what a good packet must say.
func (g golden) message() Message {
	m := Message{
		Op: g.op(), WantAnswer: g["answer-wanted"] == "yes", TTL: uint16(g.number("ttl")), TimeMS: g.number("time"), Address: g.addr("address"),
	}
	device := must(keys.NewDevicePublic([32]byte(g.bytes("device-public"))))
	if m.Op == OpEnroll {
		m.Token, m.Key = keys.TokenID(g.bytes("token-id")), device
		return m
	}
	m.Device = DeviceIDOf(device)
	if g["service"] != "" {
		m.Service = ServiceIDOf(g["service"])
	}
	return m
}

// class names an error the way the golden files do.
func class(err error) string {
	for want, name := range map[error]string{
		nil: "ok", ErrLength: "length", ErrGate: "gate", ErrKey: "key", ErrBox: "box", ErrFormat: "format", errSignature: "signature",
	} {
		if errors.Is(err, want) {
			return name
		}
	}
	return "unclassed: " + err.Error()
}

// openGolden does what a router does with the packet.
func openGolden(g golden) (*Packet, error) {
	o, p := NewOpener(must(keys.NewRouterSecret([32]byte(g.bytes("router-secret"))))), g.bytes("packet")
	if err := o.Gate(p); err != nil {
		return nil, err
	}
	opened, err := o.Open(p)
	if err != nil {
		return nil, err
	}
	device := must(keys.NewDevicePublic([32]byte(g.bytes("device-public"))))
	good := opened.SignedBy(device)
	if opened.Message.Op == OpEnroll {
		good = opened.SignedWith(keys.TokenSecret(g.bytes("token-secret")))
	}
	if !good {
		return opened, errSignature
	}
	return opened, nil
}

func testGoldenPacket(t *testing.T, g golden) {
	opened, err := openGolden(g)
	if got := class(err); got != g["expect"] {
		t.Fatalf("%s: got %s (%v), want %s", g["comment"], got, err, g["expect"])
	}
	if err != nil {
		return
	}
	if diff := cmp.Diff(g.message(), opened.Message, equalAddr); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(g.bytes("packet"), sealGolden(t, g)); diff != "" {
		t.Errorf("sealed again (-want +got):\n%s", diff)
	}
}

// sealGolden makes a good packet of its fields with package wire.
func sealGolden(t *testing.T, g golden) []byte {
	t.Helper()
	s := NewSealer(must(keys.NewRouterPublic([32]byte(g.bytes("router-public")))))
	device, rand, m := keys.NewDeviceSecret([32]byte(g.bytes("device-seed"))), bytes.NewReader(g.bytes("ephemeral-secret")), g.message()
	if m.Op == OpEnroll {
		token := keys.Token{ID: m.Token, Secret: keys.TokenSecret(g.bytes("token-secret"))}
		p, _, err := s.SealEnroll(device, token, m.WantAnswer, rand)
		if err != nil {
			t.Fatal(err)
		}
		return p[:]
	}
	p, _, err := s.Seal(m, device, rand)
	if err != nil {
		t.Fatal(err)
	}
	return p[:]
}

func testGoldenAnswer(t *testing.T, g golden) {
	s := NewSealer(must(keys.NewRouterPublic([32]byte(g.bytes("router-public")))))
	device, rand := testDevice(), bytes.NewReader(g.bytes("ephemeral-secret"))
	m := Message{Op: g.op(), WantAnswer: true, TimeMS: g.number("time")}
	p, w, err := s.Seal(m, device, rand)
	if m.Op == OpEnroll {
		p, w, err = s.SealEnroll(device, keys.Token{}, true, rand)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.OpenAnswer(g.bytes("answer"))
	if c := class(err); c != g["expect"] {
		t.Fatalf("%s: got %s (%v), want %s", g["comment"], c, err, g["expect"])
	}
	if err != nil {
		return
	}
	want := Answer{
		Status: got.Status, TTL: uint16(g.number("ttl")), Port: uint16(g.number("port")), RouterMS: g.number("router-time"), PacketMS: m.TimeMS, Seen: g.addr("seen"),
	}
	if diff := cmp.Diff(want, got, equalAddr); diff != "" || got.Status.String() != g["status"] {
		t.Errorf("status %q, want %q; answer (-want +got):\n%s", got.Status, g["status"], diff)
	}
	opened := must(NewOpener(must(keys.NewRouterSecret([32]byte(g.bytes("router-secret"))))).Open(p[:]))
	again := must(opened.Answer(got, bytes.NewReader(g.bytes("nonce"))))
	if diff := cmp.Diff(g.bytes("answer"), again[:]); diff != "" {
		t.Errorf("sealed again (-want +got):\n%s", diff)
	}
}

func goldenFiles(t testing.TB) map[string]golden {
	t.Helper()
	paths := must(filepath.Glob(filepath.Join(goldenDir, "*"+goldenExt)))
	if len(paths) == 0 {
		t.Fatalf("no golden packets in %s", goldenDir)
	}
	files := map[string]golden{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		g, err := readGolden(data)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		files[strings.TrimSuffix(filepath.Base(path), goldenExt)] = g
	}
	return files
}

// TestGoldenFilesAreCurrent holds the files against the program that makes them; with
// -update it writes them.
func TestGoldenFilesAreCurrent(t *testing.T) {
	want := map[string][]byte{}
	for name, g := range makeGolden() {
		want[name] = g.text()
	}
	if *update {
		for _, path := range must(filepath.Glob(filepath.Join(goldenDir, "*"+goldenExt))) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		for name, data := range want {
			if err := os.WriteFile(filepath.Join(goldenDir, name+goldenExt), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := map[string][]byte{}
	for name, g := range goldenFiles(t) {
		got[name] = g.text()
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Fatalf("files (-made +there), go test -update writes them:\n%s", diff)
	}
	for name := range want {
		if diff := cmp.Diff(string(want[name]), string(got[name])); diff != "" {
			t.Errorf("%s (-made +there):\n%s", name, diff)
		}
	}
}

// TestGolden reads every golden file and nothing else.
func TestGolden(t *testing.T) {
	seen := map[string]int{}
	for name, g := range goldenFiles(t) {
		seen[g["kind"]+" "+g["expect"]]++
		t.Run(name, func(t *testing.T) {
			switch g["kind"] {
			case "packet":
				testGoldenPacket(t, g)
			case "answer":
				testGoldenAnswer(t, g)
			default:
				t.Fatalf("unknown kind %q", g["kind"])
			}
		})
	}
	for _, want := range []string{
		"packet ok", "packet length", "packet gate", "packet key", "packet box", "packet format", "packet signature",
		"answer ok", "answer length", "answer gate", "answer box", "answer format",
	} {
		if seen[want] == 0 {
			t.Errorf("no golden file for %s", want)
		}
	}
}
