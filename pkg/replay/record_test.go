package replay

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var sample = record{kind: kindFresh, key: key{0: 1, 31: 2}, time: maxMS, floor: 1, now: 1_700_000_000_000, save: 3}

func TestRecordLayout(t *testing.T) {
	const want = "04000000" + "01000000000000000000000000000000" + "00000000000000000000000000000002" +
		"ffffffffffff" + "000000000001" + "018bcfe56800" + "000000000003"
	got := sample.encode([]byte("before"))
	if h := hex.EncodeToString(got[6 : 6+60]); h != want {
		t.Errorf("record is\n%s, want\n%s", h, want)
	}
	if len(got) != 6+64 || string(got[:6]) != "before" {
		t.Errorf("%d bytes %q", len(got), got[:6])
	}
	back, err := decode((*[64]byte)(got[6:]))
	if diff := cmp.Diff(sample, back, cmp.AllowUnexported(record{})); diff != "" || err != nil {
		t.Errorf("decoded: %v, %s", err, diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := [64]byte(sample.encode(nil))
	for bit := range 64 * 8 {
		b := good
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := decode(&b); err != errChecksum {
			t.Fatalf("bit %d flipped: %v, want %v", bit, err, errChecksum)
		}
	}
	for name, change := range map[string]func(*[64]byte){
		"kind 0":       func(b *[64]byte) { b[0] = 0 },
		"unknown kind": func(b *[64]byte) { b[0] = 6 },
		"byte 1 set":   func(b *[64]byte) { b[1] = 1 },
		"byte 2 set":   func(b *[64]byte) { b[2] = 1 },
		"byte 3 set":   func(b *[64]byte) { b[3] = 1 },
	} {
		b := good
		change(&b)
		if _, err := decode(seal(&b)); err != errRecord {
			t.Errorf("%s: %v, want %v", name, err, errRecord)
		}
	}
	if _, err := decode(new([64]byte)); err != errChecksum {
		t.Errorf("zeros: %v, want %v", err, errChecksum)
	}
}

func TestHeader(t *testing.T) {
	h := header(7)
	if v, ok := headerVersion((*[64]byte)(h)); v != 7 || !ok {
		t.Errorf("version %d, %v; want 7", v, ok)
	}
	h[3] ^= 1
	if _, ok := headerVersion((*[64]byte)(h)); ok {
		t.Error("a header with a wrong checksum was taken")
	}
	if _, ok := headerVersion((*[64]byte)(sample.encode(nil))); ok {
		t.Error("a record was taken for a header")
	}
}

// FuzzRecord asserts that what decodes has one spelling.
func FuzzRecord(f *testing.F) {
	seeds := []record{sample, {kind: kindClock, save: 5}, {kind: kindClean}, {kind: kindDevice, time: 9}, {kind: kindAside, now: maxMS}}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s.encode(nil)[:60])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b [64]byte
		copy(b[:], raw)
		if len(raw) < 64 {
			seal(&b) // the checksum is no obstacle to the fuzzer
		}
		if r, err := decode(&b); err == nil && !bytes.Equal(r.encode(nil), b[:]) {
			t.Errorf("%x decodes to %+v, which is %x", b, r, r.encode(nil))
		}
	})
}
