package nftables

import (
	"bytes"
	"math/bits"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
)

// What the kernel and nft read in the machine's own order. make cross runs these on a big-endian machine, where a wrong
// order shows.

func TestLabelIsTheHighest(t *testing.T) {
	const size = bits.UintSize / 8
	var words []uint64
	for b := label(); len(b) > 0; b = b[size:] {
		if size == 4 {
			words = append(words, uint64(native.Uint32(b)))
		} else {
			words = append(words, native.Uint64(b))
		}
	}
	for i, w := range words {
		want := uint64(0)
		if i == len(words)-1 {
			want = 1 << (bits.UintSize - 1)
		}
		if w != want {
			t.Errorf("word %d of %d is %#x, want %#x", i, len(words), w, want)
		}
	}
	if len(words)*bits.UintSize != 128 {
		t.Errorf("%d words of %d bits, want 128 bits", len(words), bits.UintSize)
	}
}

func TestSetNamesItsKeyOrder(t *testing.T) {
	b := &batch{}
	b.addSet(set{name: "a", key: nftables.TypeInetService})
	if _, err := b.sealed(); err != nil {
		t.Fatal(err)
	}
	const bigEndian = 2 // enum byteorder of nft
	want := append([]byte{byte(userdata.NFTNL_UDATA_SET_KEYBYTEORDER), 4}, native.PutUint32(bigEndian)...)
	if !bytes.Contains(b.messages[0].Data, want) {
		t.Errorf("no % x in % x", want, b.messages[0].Data)
	}
}
