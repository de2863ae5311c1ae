package wire

import (
	"encoding/binary"
	"testing"

	"github.com/dchest/siphash"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/curve25519"
	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"
)

// The format once more, written from PROTOCOL.md by the other route (box.Seal and its
// Precompute), able to make what package wire refuses to. Golden packets and fuzzed ones
// come from here, so that wire is never measured by itself.

// must returns v, or stops the test binary: none of its errors can happen with good arguments.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func refHash(size int, key []byte, parts ...[]byte) []byte {
	h := must(blake2b.New(size, key))
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// refGate sets the first 8 bytes.
func refGate(router, p []byte) {
	h := siphash.New(refHash(16, nil, []byte("knock v1 gate"), router))
	h.Write(p[8:])
	copy(p, h.Sum(nil)) // dchest/siphash sums in little-endian order
}

func refPublic(secret [32]byte) [32]byte {
	return [32]byte(must(curve25519.X25519(secret[:], curve25519.Basepoint)))
}

// refPacket seals 104 bytes of message from E to R.
func refPacket(router, eph [32]byte, message []byte) []byte {
	ephPub := refPublic(eph)
	return refPacketAs(router, ephPub[:], eph, message)
}

// refPacketAs says that E.pub is something else.
func refPacketAs(router [32]byte, ephPub []byte, eph [32]byte, message []byte) []byte {
	nonce := [24]byte(refHash(24, nil, ephPub, router[:]))
	return refWrap(router, ephPub, box.Seal(nil, message, &nonce, &router, &eph))
}

// refWrap masks E.pub and sets the gate.
func refWrap(router [32]byte, ephPub, sealed []byte) []byte {
	mask := refHash(32, refHash(32, nil, []byte("knock v1 mask"), router[:]), sealed[len(sealed)-16:])
	p := make([]byte, 8, PacketSize)
	for i := range mask {
		p = append(p, ephPub[i]^mask[i])
	}
	p = append(p, sealed...)
	refGate(router[:], p)
	return p
}

// refSigned is what a signature covers; label holds the token secret of an enrolment too.
func refSigned(label []byte, router, eph [32]byte, body []byte) []byte {
	ephPub := refPublic(eph)
	text := append([]byte(nil), label...)
	text = append(append(text, router[:]...), ephPub[:]...)
	return append(text, body...)
}

// refAnswer seals 48 bytes of answer.
func refAnswer(router, eph [32]byte, nonce [24]byte, body []byte) []byte {
	var shared [32]byte
	box.Precompute(&shared, &router, &eph)
	key := [32]byte(refHash(32, nil, []byte("knock v1 ack"), shared[:]))
	p := secretbox.Seal(append(make([]byte, 8), nonce[:]...), body, &nonce, &key)
	refGate(router[:], p)
	return p
}

// refID is an id of n bytes.
func refID(n int, label string, of []byte) []byte { return refHash(32, nil, []byte(label), of)[:n] }

// body48 is the last 6 bytes of a number in 8.
func body48(ms uint64) []byte { return binary.BigEndian.AppendUint64(nil, ms)[2:] }

func TestIDs(t *testing.T) {
	d := testDevice().Public()
	b := d.Bytes()
	if got, want := DeviceIDOf(d), refID(8, "knock v1 device", b[:]); string(got[:]) != string(want) {
		t.Errorf("device id %s, want %x", got, want)
	}
	if got, want := DeviceIDOf(d).String()+" "+ServiceIDOf("nas").String(), "44fc52eced371e94 11f12a01e116"; got != want {
		t.Errorf("ids %s, want %s", got, want)
	}
	if got, want := ServiceIDOf("nas"), refID(6, "knock v1 service", []byte("nas")); string(got[:]) != string(want) {
		t.Errorf("service id %s, want %x", got, want)
	}
}

func TestNames(t *testing.T) {
	for o, want := range map[Op]string{OpOpen: "open", OpClose: "close", OpEnroll: "enroll", OpHello: "hello", 4: "unknown op"} {
		if got := o.String(); got != want {
			t.Errorf("Op(%d) is %q, want %q", o, got, want)
		}
	}
	want := []string{
		"opened", "closed", "enrolled", "hello", "denied", "unknown status", "clock off", "address mismatch", "busy", "failed", "unknown status",
	}
	for i, w := range want {
		if got := Status(i).String(); got != w {
			t.Errorf("Status(%d) is %q, want %q", i, got, w)
		}
		if known := w != "unknown status"; Status(i).known() != known {
			t.Errorf("Status(%d).known() is %t", i, !known)
		}
	}
	if !ValidName("nas") || ValidName("-nas") {
		t.Error("ValidName does not follow keys.ValidName")
	}
}
