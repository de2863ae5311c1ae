package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// version is the first byte of a header; a segment with another one is not touched.
const version = 1

// The kinds of records.
const (
	header byte = 'H' // version, name, next seq, lost
	event_ byte = 'E' // seq, length of the session, session, body
	marker byte = 'M' // an event that tells of the lost ones so far: none are untold then
	done   byte = 'D' // seq
	lost   byte = 'L' // how many were refused and not told of yet
)

const (
	frame     = 8       // length and checksum before each record
	maxRecord = 1 << 20 // a longer one is damage
)

// castagnoli is the polynomial that processors compute by themselves.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one change to the outbox.
type record struct {
	kind    byte
	name    [8]byte // of the outbox; header
	seq     uint64  // of the event; the next one's in a header
	lost    uint64
	session string
	body    []byte
}

// appendTo adds the record's bytes: its length, its checksum, its content.
func (r record) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, frame)...)
	b = append(b, r.kind)
	switch r.kind {
	case header:
		b = append(b, version)
		b = append(b, r.name[:]...)
		b = binary.BigEndian.AppendUint64(b, r.seq)
		b = binary.BigEndian.AppendUint64(b, r.lost)
	case event_, marker:
		b = binary.BigEndian.AppendUint64(b, r.seq)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.session)))
		b = append(b, r.session...)
		b = append(b, r.body...)
	case done:
		b = binary.BigEndian.AppendUint64(b, r.seq)
	case lost:
		b = binary.BigEndian.AppendUint64(b, r.lost)
	}
	content := b[start+frame:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(content)))
	binary.BigEndian.PutUint32(b[start+4:], crc32.Checksum(content, castagnoli))
	return b
}

// errTorn means that a segment has no whole record here: a crash cut it short, or the disk damaged it.
var errTorn = errors.New("not a whole record")

// errVersion is the version of a segment that this program can't read.
type errVersion byte

func (v errVersion) Error() string {
	return fmt.Sprintf("it has version %d, this spad reads version %d: run the spad that wrote it until all is delivered, or move it away",
		byte(v), version)
}

// next reads one record and says how many bytes it has. At the end it is io.EOF, behind the last whole record errTorn.
func next(in io.Reader) (r record, size int64, err error) {
	var f [frame]byte
	if _, err := io.ReadFull(in, f[:]); err != nil {
		return r, 0, torn(err, io.EOF)
	}
	n := binary.BigEndian.Uint32(f[:])
	if n == 0 || n > maxRecord {
		return r, 0, errTorn
	}
	content := make([]byte, n)
	if _, err := io.ReadFull(in, content); err != nil {
		return r, 0, torn(err, nil)
	}
	if crc32.Checksum(content, castagnoli) != binary.BigEndian.Uint32(f[4:]) {
		return r, 0, errTorn
	}
	r, err = decode(content)
	return r, frame + int64(n), err
}

// torn tells the end of a file from a disk that can't be read.
func torn(err, end error) error {
	switch {
	case errors.Is(err, io.EOF) && end != nil:
		return end
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errTorn
	}
	return err
}

// decode reads what stands in a frame.
func decode(b []byte) (r record, err error) {
	r.kind, b = b[0], b[1:]
	switch {
	case r.kind == header && len(b) > 0 && b[0] != version:
		return r, errVersion(b[0])
	case r.kind == header && len(b) == 25:
		copy(r.name[:], b[1:])
		r.seq, r.lost = binary.BigEndian.Uint64(b[9:]), binary.BigEndian.Uint64(b[17:])
	case (r.kind == event_ || r.kind == marker) && len(b) >= 10:
		n := int(binary.BigEndian.Uint16(b[8:]))
		if len(b) < 10+n {
			return r, errTorn
		}
		r.seq, r.session, r.body = binary.BigEndian.Uint64(b), string(b[10:10+n]), b[10+n:]
	case r.kind == done && len(b) == 8:
		r.seq = binary.BigEndian.Uint64(b)
	case r.kind == lost && len(b) == 8:
		r.lost = binary.BigEndian.Uint64(b)
	default:
		return r, errTorn
	}
	return r, nil
}
