package replay

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	blockSize = 64
	version   = 1
	magic     = "spad replay log\n"
)

// key is a device's public key as bytes: the journal need not know whether it is a point.
type key [32]byte

type kind byte

const (
	kindClock  kind = 1 + iota // the knock clock was saved
	kindClean                  // the router stopped in good order; the last record there is
	kindDevice                 // a device's floor, and in time its start floor
	kindFresh                  // time was spent, and opened
	kindAside                  // time was spent outside the window
)

// record is one line of the journal. Times are milliseconds since 1970, of 48 bits.
type record struct {
	kind  kind
	key   key
	time  int64
	floor int64 // the device's floor before time was spent
	now   int64 // the knock clock
	save  int64 // what a restart may start the knock clock from
}

var (
	errChecksum = errors.New("checksum does not match")
	errRecord   = errors.New("not a record")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// encode appends the record's block to dst.
func (r record) encode(dst []byte) []byte {
	var b [blockSize]byte
	b[0] = byte(r.kind)
	copy(b[4:36], r.key[:])
	for i, t := range [...]int64{r.time, r.floor, r.now, r.save} {
		put48(b[36+6*i:], t)
	}
	return append(dst, seal(&b)[:]...)
}

// decode reads a record from its block. A block has one record at most, and a record one block.
func decode(b *[blockSize]byte) (r record, err error) {
	if !sound(b) {
		return r, errChecksum
	}
	r.kind, r.key = kind(b[0]), key(b[4:36])
	for i, t := range [...]*int64{&r.time, &r.floor, &r.now, &r.save} {
		*t = get48(b[36+6*i:])
	}
	if r.kind < kindClock || r.kind > kindAside || b[1]|b[2]|b[3] != 0 {
		return record{}, errRecord
	}
	return r, nil
}

// header returns the first block of a journal.
func header(version uint32) []byte {
	var b [blockSize]byte
	copy(b[:], magic)
	binary.BigEndian.PutUint32(b[len(magic):], version)
	return seal(&b)[:]
}

// headerVersion reads the version from the first block; false if it is not a header.
func headerVersion(b *[blockSize]byte) (uint32, bool) {
	if !sound(b) || string(b[:len(magic)]) != magic {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[len(magic):]), true
}

// seal puts the checksum at the end of the block.
func seal(b *[blockSize]byte) *[blockSize]byte {
	binary.BigEndian.PutUint32(b[blockSize-4:], crc32.Checksum(b[:blockSize-4], castagnoli))
	return b
}

// sound reports whether the checksum at the end of the block is right. It is not for a
// block of zeros, as a file system may leave behind after a power cut.
func sound(b *[blockSize]byte) bool {
	return binary.BigEndian.Uint32(b[blockSize-4:]) == crc32.Checksum(b[:blockSize-4], castagnoli)
}

// put48 writes a time as six bytes, big-endian.
func put48(b []byte, t int64) {
	binary.BigEndian.PutUint16(b, uint16(t>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(t))
}

func get48(b []byte) int64 {
	return int64(binary.BigEndian.Uint16(b))<<32 | int64(binary.BigEndian.Uint32(b[2:]))
}
