package capture

import (
	"testing"
	"unsafe"
)

// Control messages are read where they lie, as structures of whole words: old ARM and MIPS processors fault, or read
// something else, where such a word is not aligned.
func TestControlMessagesAreAligned(t *testing.T) {
	r := newReader(&socket{size: testSize})
	for i := range r.oobs {
		if at := uintptr(unsafe.Pointer(&r.oobs[i][0])); at%unsafe.Sizeof(at) != 0 {
			t.Fatalf("room %d is at %#x", i, at)
		}
	}
}
