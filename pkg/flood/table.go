package flood

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
)

// ways is how many places of a table an entry can be in.
const ways = 4

// entry is a source and a time that belongs to it. The zero value is a free place.
type entry[T ~int64] struct {
	id    uint64
	value T
}

// table holds sources in sets of four places. When a set is full its entry with the
// lowest value is lost.
type table[T ~int64] struct{ sets [][ways]entry[T] }

// newTable makes a table; places is a power of two.
func newTable[T ~int64](places int) table[T] {
	return table[T]{make([][ways]entry[T], places/ways)}
}

// find returns the place of id, or nil.
func (t table[T]) find(id uint64) *entry[T] {
	set := &t.sets[id%uint64(len(t.sets))]
	for i := range set {
		if set[i].id == id {
			return &set[i]
		}
	}
	return nil
}

// place returns the place of id, which it takes from the entry with the lowest value if it has none yet.
func (t table[T]) place(id uint64) *entry[T] {
	if e := t.find(id); e != nil {
		return e
	}
	set := &t.sets[id%uint64(len(t.sets))]
	low := &set[0]
	for i := range set {
		if set[i].value < low.value {
			low = &set[i]
		}
	}
	*low = entry[T]{id: id}
	return low
}

// sourceID names a source, an IPv4 address or an IPv6 /64, by a hash that only this process knows.
func sourceID(seed maphash.Seed, src netip.Addr) uint64 {
	var b [9]byte
	if src = src.Unmap(); src.Is4() {
		a := src.As4()
		b[0] = 4
		copy(b[1:], a[:])
	} else if src.Is6() {
		a := src.As16()
		b[0] = 6
		copy(b[1:], a[:8])
	}
	return nonZero(maphash.Bytes(seed, b[:]))
}

// gateID names a packet by a hash that only this process knows: who has the router's
// public key chooses the gate values.
func gateID(seed maphash.Seed, gate uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], gate)
	return nonZero(maphash.Bytes(seed, b[:]))
}

// nonZero keeps an id off the one that free places have.
func nonZero(id uint64) uint64 { return max(id, 1) }
