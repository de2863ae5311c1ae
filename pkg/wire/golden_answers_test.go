package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
)

// answerCase is an answer to a packet of this op and time; body and finish change what
// is sealed, and what is sent.
type answerCase struct {
	name, expect, comment string
	op                    Op
	status                byte
	ttl, port             uint16
	seen                  string
	body                  func(b []byte)
	finish                func(c *answerCase, a []byte) []byte

	eph [32]byte
}

const answerTime = 1700000000123

func (c *answerCase) time() uint64 {
	if c.op == OpEnroll {
		return 0
	}
	return answerTime
}

// refBody lays out 48 bytes.
func (c *answerCase) refBody() []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x10 | c.status, 0}, c.ttl)
	b = binary.BigEndian.AppendUint16(b, c.port)
	b = append(append(b, body48(1700000000456)...), body48(c.time())...)
	seen := netip.MustParseAddr(c.seen).As16()
	return append(append(b, seen[:]...), make([]byte, 14)...)
}

func (c *answerCase) build() golden {
	if c.seen == "" {
		c.seen = "203.0.113.7"
	}
	if c.expect == "" {
		c.expect = "ok"
	}
	c.eph = [32]byte(refHash(32, nil, []byte("golden answer "+c.name)))
	nonce := [24]byte(refHash(24, nil, []byte("golden nonce "+c.name)))
	body := c.refBody()
	if c.body != nil {
		c.body(body)
	}
	a := refAnswer(goldenRouter, c.eph, nonce, body)
	if c.finish != nil {
		a = c.finish(c, a)
	}
	secret := testBytes(0x20)
	g := golden{
		"comment": c.comment, "expect": c.expect, "kind": "answer",
		"router-secret": hex.EncodeToString(secret[:]), "router-public": hex.EncodeToString(goldenRouter[:]),
		"ephemeral-secret": hex.EncodeToString(c.eph[:]), "nonce": hex.EncodeToString(nonce[:]),
		"op": c.op.String(), "time": strconv.FormatUint(c.time(), 10),
		"sealed": hex.EncodeToString(body), "answer": hexOrDash(a),
	}
	if c.expect == "ok" {
		g["status"], g["seen"], g["router-time"] = Status(c.status).String(), c.seen, "1700000000456"
		g["ttl"], g["port"] = strconv.Itoa(int(c.ttl)), strconv.Itoa(int(c.port))
	}
	return g
}

func goodAnswers() []*answerCase {
	return []*answerCase{
		{name: "opened", comment: "opened, with the port", status: 0, ttl: 900, port: 7890},
		{name: "opened-no-port", comment: "opened, the service has more than one port", status: 0, ttl: 900},
		{name: "opened-ipv6", comment: "opened, over IPv6", status: 0, ttl: 1, port: 65535, seen: "2001:db8::7"},
		{name: "opened-largest-ttl", comment: "opened for the longest time", status: 0, ttl: 65535, port: 1},
		{name: "closed", comment: "closed", status: 1, op: OpClose},
		{name: "enrolled", comment: "enrolled; the packet had no time", status: 2, op: OpEnroll},
		{name: "hello", comment: "hello", status: 3, op: OpHello},
		{name: "denied", comment: "denied", status: 4},
		{name: "clock-off", comment: "clock off", status: 6},
		{name: "clock-off-hello", comment: "clock off, to hello", status: 6, op: OpHello},
		{name: "mismatch", comment: "address mismatch", status: 7},
		{name: "busy", comment: "busy", status: 8},
		{name: "failed", comment: "failed", status: 9},
		{name: "failed-close", comment: "failed, to close", status: 9, op: OpClose},
		{name: "failed-enroll", comment: "failed, to enroll", status: 9, op: OpEnroll},
	}
}

func badAnswers() []*answerCase {
	mend := func(f func(a []byte)) func(*answerCase, []byte) []byte {
		return func(_ *answerCase, a []byte) []byte {
			f(a)
			refGate(goldenRouter[:], a)
			return a
		}
	}
	at := func(i int, v byte) func([]byte) { return func(b []byte) { b[i] = v } }
	cases := []*answerCase{
		{name: "empty", expect: "length", comment: "no bytes at all", finish: func(*answerCase, []byte) []byte { return nil }},
		{name: "short", expect: "length", comment: "one byte short", finish: func(_ *answerCase, a []byte) []byte { return a[:95] }},
		{name: "long", expect: "length", comment: "one byte long", finish: func(_ *answerCase, a []byte) []byte { return append(a, 0) }},
		{name: "packet", expect: "length", comment: "as long as a packet", finish: func(_ *answerCase, a []byte) []byte { return append(a, make([]byte, 64)...) }},
		{name: "first-bit", expect: "gate", comment: "the first bit of the gate flipped", finish: func(_ *answerCase, a []byte) []byte { a[0] ^= 1; return a }},
		{name: "last-bit", expect: "gate", comment: "the last bit flipped", finish: func(_ *answerCase, a []byte) []byte { a[95] ^= 0x80; return a }},
		{name: "zero", expect: "gate", comment: "all bytes zero", finish: func(*answerCase, []byte) []byte { return make([]byte, 96) }},
		{name: "nonce-bit", expect: "box", comment: "a bit of the nonce flipped", finish: mend(func(a []byte) { a[8] ^= 1 })},
		{name: "tag-bit", expect: "box", comment: "a bit of the tag flipped", finish: mend(func(a []byte) { a[32] ^= 1 })},
		{name: "text-bit", expect: "box", comment: "a bit of the ciphertext flipped", finish: mend(func(a []byte) { a[95] ^= 1 })},
		{name: "other-packet", expect: "box", comment: "the answer to another packet", finish: func(c *answerCase, _ []byte) []byte {
			return refAnswer(goldenRouter, testBytes(0x61), [24]byte{}, c.refBody())
		}},
		{name: "version-0", expect: "format", comment: "version 0", body: at(0, 0x00)},
		{name: "version-2", expect: "format", comment: "version 2", body: at(0, 0x20)},
		{name: "reserved-1", expect: "format", comment: "byte 1 not zero", body: at(1, 1)},
		{name: "ttl-closed", expect: "format", comment: "a ttl where nothing opened", op: OpClose, status: 1, ttl: 1},
		{name: "ttl-denied", expect: "format", comment: "a ttl where nothing opened", status: 4, ttl: 256},
		{name: "port-hello", expect: "format", comment: "a port where nothing opened", op: OpHello, status: 3, port: 1},
		{name: "port-clock-off", expect: "format", comment: "a port where nothing opened", status: 6, port: 256},
		{name: "closed-to-open", expect: "format", comment: "closed, to open", status: 1},
		{name: "opened-to-hello", expect: "format", comment: "opened, to hello", op: OpHello, status: 0},
		{name: "enrolled-to-open", expect: "format", comment: "enrolled, to open", status: 2},
		{name: "hello-to-close", expect: "format", comment: "hello, to close", op: OpClose, status: 3},
		{name: "other-time", expect: "format", comment: "the time of another packet", body: at(17, 0)},
		{name: "time-enroll", expect: "format", comment: "a packet time in the answer to enroll", op: OpEnroll, status: 2, body: at(17, 1)},
	}
	for _, i := range []int{34, 40, 47} {
		cases = append(cases, &answerCase{name: fmt.Sprintf("reserved-%d", i), expect: "format", comment: fmt.Sprintf("byte %d not zero", i), body: at(i, 1)})
	}
	for _, s := range []byte{5, 10, 11, 12, 13, 14, 15} {
		cases = append(cases, &answerCase{name: fmt.Sprintf("status-%d", s), expect: "format", comment: fmt.Sprintf("status %d", s), status: s})
	}
	return cases
}
