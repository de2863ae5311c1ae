package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spad/keys"
)

var equalAddr = cmpopts.EquateComparable(netip.Addr{})

// testBytes counts up from a start, 32 bytes.
func testBytes(start byte) (b [32]byte) {
	for i := range b {
		b[i] = start + byte(i)
	}
	return b
}

func testRouter() keys.RouterSecret { return must(keys.NewRouterSecret(testBytes(0x20))) }
func testDevice() keys.DeviceSecret { return keys.NewDeviceSecret(testBytes(0x40)) }

// readVector reads the hex fields of the file that a program sharing no code with this one made.
func readVector(t *testing.T) map[string][]byte {
	t.Helper()
	data, err := os.ReadFile("../../testdata/wire/vector.txt")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string][]byte{}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		if b, err := hex.DecodeString(strings.TrimSpace(value)); err == nil && len(b) > 0 {
			fields[name] = b
		}
	}
	for _, name := range []string{"router-secret", "router-public", "device-seed", "device-public", "ephemeral-secret", "packet", "answer-nonce", "answer"} {
		if len(fields[name]) == 0 {
			t.Fatalf("vector.txt has no %s", name)
		}
	}
	return fields
}

func TestVector(t *testing.T) {
	v := readVector(t)
	router := must(keys.NewRouterSecret([32]byte(v["router-secret"])))
	device := keys.NewDeviceSecret([32]byte(v["device-seed"]))
	if got := router.Public().Bytes(); !bytes.Equal(got[:], v["router-public"]) {
		t.Fatalf("router public key %x", got)
	}
	if got := device.Public().Bytes(); !bytes.Equal(got[:], v["device-public"]) {
		t.Fatalf("device public key %x", got)
	}
	m := Message{
		Op: OpOpen, WantAnswer: true, TTL: 900, Service: ServiceIDOf("nas"), TimeMS: 1700000000123, Address: netip.MustParseAddr("203.0.113.7"),
	}
	p, w, err := NewSealer(router.Public()).Seal(m, device, bytes.NewReader(v["ephemeral-secret"]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v["packet"], p[:]); diff != "" {
		t.Fatalf("packet (-want +got):\n%s", diff)
	}

	o := NewOpener(router)
	if err := o.Gate(p[:]); err != nil {
		t.Fatal(err)
	}
	opened, err := o.Open(p[:])
	if err != nil {
		t.Fatal(err)
	}
	m.Device = DeviceIDOf(device.Public())
	if diff := cmp.Diff(m, opened.Message, equalAddr); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if !opened.SignedBy(device.Public()) {
		t.Error("signature is not the device's")
	}

	want := Answer{Status: Opened, TTL: 900, Port: 7890, RouterMS: 1700000000456, PacketMS: m.TimeMS, Seen: netip.MustParseAddr("203.0.113.7")}
	a, err := opened.Answer(want, bytes.NewReader(v["answer-nonce"]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v["answer"], a[:]); diff != "" {
		t.Fatalf("answer (-want +got):\n%s", diff)
	}
	got, err := w.OpenAnswer(a[:])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equalAddr); diff != "" {
		t.Errorf("opened answer (-want +got):\n%s", diff)
	}
}
