package foreign

import (
	"bytes"
	"encoding/binary"

	"github.com/google/nftables/expr"
)

// certainty is what is known of a byte.
type certainty uint8

const (
	obscure  certainty = iota // it may be anything
	known                     // it is that
	stranger                  // the sender's choice, and never the one that a rule has in mind
)

// value is bytes of a packet, or of what a rule looks up about it.
type value struct {
	data []byte
	sure []certainty
}

func blank(n int) value { return value{make([]byte, n), make([]certainty, n)} }

func exactly(b ...byte) value {
	v := blank(len(b))
	v.put(0, b, known)
	return v
}

func (v value) put(at int, b []byte, c certainty) {
	copy(v.data[at:], b)
	for i := range b {
		v.sure[at+i] = c
	}
}

func (v value) cut(at, n int) value {
	if at < 0 || n < 0 || at+n > len(v.data) {
		return blank(max(n, 0))
	}
	return value{v.data[at : at+n], v.sure[at : at+n]}
}

// certain reports whether every byte is known.
func (v value) certain() bool {
	for _, s := range v.sure {
		if s != known {
			return false
		}
	}
	return true
}

func (v value) isStranger() bool { return bytes.Contains(asBytes(v.sure), []byte{byte(stranger)}) }

func asBytes(sure []certainty) []byte {
	b := make([]byte, len(sure))
	for i, s := range sure {
		b[i] = byte(s)
	}
	return b
}

// equals compares with bytes, which may be fewer: then it is the beginning that counts, as in names with a star.
func (v value) equals(want []byte) tri {
	result := yes
	for i, b := range want {
		if i >= len(v.data) {
			return unknown
		}
		switch v.sure[i] {
		case stranger:
			return no
		case obscure:
			result = unknown
		case known:
			if v.data[i] != b {
				return no
			}
		}
	}
	return result
}

func (v value) compare(op expr.CmpOp, with []byte) tri {
	switch op {
	case expr.CmpOpEq:
		return v.equals(with)
	case expr.CmpOpNeq:
		return v.equals(with).not(true)
	}
	v = v.cut(0, len(with))
	if !v.certain() {
		return unknown
	}
	c := bytes.Compare(v.data, with)
	return is(op == expr.CmpOpLt && c < 0 || op == expr.CmpOpLte && c <= 0 || op == expr.CmpOpGt && c > 0 || op == expr.CmpOpGte && c >= 0)
}

// within reports whether it is from one value to another, both included.
func (v value) within(from, to []byte) tri {
	v = v.cut(0, len(from))
	switch {
	case v.isStranger():
		return no
	case !v.certain():
		return unknown
	}
	return is(bytes.Compare(v.data, from) >= 0 && bytes.Compare(v.data, to) <= 0)
}

// masked is (v & mask) ^ xor.
func (v value) masked(mask, xor []byte) value {
	out := blank(len(mask))
	for i := range mask {
		switch {
		case mask[i] == 0:
			out.put(i, []byte{xor[i]}, known)
		case i < len(v.data):
			out.put(i, []byte{v.data[i]&mask[i] ^ xor[i]}, v.sure[i])
		}
	}
	return out
}

// registers are the 64 bytes that a rule's expressions pass values in: 1 to 4 are 16 bytes long, 8 to 23 are four.
type registers struct{ value }

func newRegisters() registers { return registers{blank(64)} }

func offset(register uint32) int {
	switch {
	case register >= 1 && register <= 4:
		return int(register-1) * 16
	case register >= 8 && register <= 23:
		return int(register-8) * 4
	}
	return -1
}

// set puts a value into a register, with zeros up to the next word, as the kernel does.
func (r registers) set(register uint32, v value) {
	at := offset(register)
	if at < 0 || at+len(v.data) > len(r.data) {
		return
	}
	for i := range v.data {
		r.put(at+i, v.data[i:i+1], v.sure[i])
	}
	for i := at + len(v.data); i%4 != 0; i++ {
		r.put(i, []byte{0}, known)
	}
}

func (r registers) get(register uint32, n int) value { return r.cut(offset(register), n) }

func (r registers) port(register uint32) uint16 {
	if v := r.get(register, 2); register != 0 && v.certain() {
		return binary.BigEndian.Uint16(v.data)
	}
	return 0
}
