package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/crypto/nacl/box"

	"spad/keys"
)

// The golden packets. Each starts from a good one and has one thing changed; whatever
// comes after the change (signature, box, mask, gate) is made anew over it, so that only
// the rule in question can refuse it.

// plan is a packet in the making.
type plan struct {
	fields golden   // the header's message fields, of good packets
	body   []byte   // 40 bytes
	label  []byte   // of the signature, with the token secret of an enrolment
	signer [32]byte // seed
	router [32]byte // as signed and sealed to
	eph    [32]byte // secret
	ephPub []byte   // as written, nil for what belongs to eph
	signE  []byte   // as signed, nil for ephPub
	resign func(sig []byte) []byte
	seal   func(p *plan, message []byte) []byte
	finish func(packet []byte) []byte
}

var (
	goldenToken  = testBytes(0xc0)
	goldenRouter = refPublic(testBytes(0x20))
	otherRouter  = refPublic(testBytes(0x21))
)

// refBody lays out a message; the addresses are given as 16 bytes or none.
func refBody(op, flags byte, ttl uint16, service string, ms uint64, address []byte) []byte {
	device := testDevice().Public().Bytes()
	b := binary.BigEndian.AppendUint16([]byte{0x10 | op, flags}, ttl)
	b = append(b, refID(8, "knock v1 device", device[:])...)
	if service == "" {
		b = append(b, make([]byte, 6)...)
	} else {
		b = append(b, refID(6, "knock v1 service", []byte(service))...)
	}
	b = append(b, body48(ms)...)
	if address == nil {
		address = make([]byte, 16)
	}
	return append(b, address...)
}

// packetOf plans a good open, close or hello.
func packetOf(op Op, answer bool, ttl uint16, service string, ms uint64, address string) plan {
	g, flags := golden{"op": op.String(), "answer-wanted": "no", "time": strconv.FormatUint(ms, 10)}, byte(0)
	if answer {
		flags, g["answer-wanted"] = 1, "yes"
	}
	if ttl != 0 {
		g["ttl"] = strconv.Itoa(int(ttl))
	}
	if service != "" {
		g["service"] = service
	}
	var raw []byte
	if address != "" {
		a := netip.MustParseAddr(address).As16()
		raw, g["address"] = a[:], address
		flags |= 2
	}
	return plan{fields: g, body: refBody(byte(op), flags, ttl, service, ms, raw), label: []byte("knock v1")}
}

func openPlan() plan {
	return packetOf(OpOpen, true, 900, "nas", 1700000000123, "203.0.113.7")
}

func enrollPlan(answer bool) plan {
	g, flags := golden{"op": "enroll", "answer-wanted": "no"}, byte(0)
	if answer {
		flags, g["answer-wanted"] = 1, "yes"
	}
	device := testDevice().Public().Bytes()
	g["token-id"] = hex.EncodeToString(goldenToken[:6])
	body := append([]byte{0x12, flags}, goldenToken[:6]...)
	return plan{fields: g, body: append(body, device[:]...), label: append([]byte("knock v1 enroll"), goldenToken[6:22]...)}
}

// build makes the file of a plan.
func (p plan) build(name, expect, comment string) golden {
	p.defaults(name)
	signedEph := p.ephPub
	if p.signE != nil {
		signedEph = p.signE
	}
	text := append(slices.Concat(p.label, p.router[:], signedEph), p.body...)
	sig := keys.NewDeviceSecret(p.signer).Sign(text)
	message := append(slices.Clone(p.body), p.resign(sig[:])...)
	packet := p.finish(p.seal(&p, message))

	device, seed, secret := testDevice().Public().Bytes(), testBytes(0x40), testBytes(0x20)
	g := golden{
		"comment": comment, "expect": expect, "kind": "packet",
		"router-secret": hex.EncodeToString(secret[:]), "router-public": hex.EncodeToString(goldenRouter[:]),
		"device-seed": hex.EncodeToString(seed[:]), "device-public": hex.EncodeToString(device[:]),
		"ephemeral-secret": hex.EncodeToString(p.eph[:]), "token-secret": hex.EncodeToString(goldenToken[6:22]),
		"sealed": hex.EncodeToString(message), "packet": hexOrDash(packet),
	}
	if expect == "ok" {
		for k, v := range p.fields {
			g[k] = v
		}
	}
	return g
}

func (p *plan) defaults(name string) {
	p.eph = [32]byte(refHash(32, nil, []byte("golden "+name)))
	if p.router == [32]byte{} {
		p.router = goldenRouter
	}
	if p.signer == [32]byte{} {
		p.signer = testBytes(0x40)
	}
	if p.ephPub == nil {
		pub := refPublic(p.eph)
		p.ephPub = pub[:]
	}
	if p.resign == nil {
		p.resign = func(sig []byte) []byte { return sig }
	}
	if p.seal == nil {
		p.seal = func(p *plan, message []byte) []byte { return refPacketAs(goldenRouter, p.ephPub, p.eph, message) }
	}
	if p.finish == nil {
		p.finish = func(packet []byte) []byte { return packet }
	}
}

// hexOrDash keeps the line of no bytes from ending in a blank.
func hexOrDash(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return hex.EncodeToString(b)
}

// set changes bytes of the body.
func set(p plan, at int, b ...byte) plan {
	copy(p.body[at:], b)
	return p
}

// cut changes the finished packet and leaves its gate wrong, or right if mend is set.
func cut(mend bool, f func(packet []byte) []byte) plan {
	p := openPlan()
	p.finish = func(packet []byte) []byte {
		packet = f(packet)
		if mend {
			refGate(goldenRouter[:], packet)
		}
		return packet
	}
	return p
}

type goldenCase struct {
	name, expect, comment string
	plan                  plan
}

func makeGolden() map[string]golden {
	files := map[string]golden{}
	for _, c := range slices.Concat(goodPackets(), shapes(), boxes(), formats(), weakKeys(), signatures()) {
		files["packet-"+c.expect+"-"+c.name] = c.plan.build(c.name, c.expect, c.comment)
	}
	for _, c := range slices.Concat(goodAnswers(), badAnswers()) {
		g := c.build()
		files["answer-"+c.expect+"-"+c.name] = g
	}
	return files
}

func goodPackets() []goldenCase {
	const ms = 1700000000123
	return []goldenCase{
		{"open-ipv4", "ok", "open with a declared IPv4 address", openPlan()},
		{"open-ipv6", "ok", "open with a declared IPv6 address", packetOf(OpOpen, true, 900, "nas", ms, "2001:db8::7")},
		{"open-no-address", "ok", "open from wherever it comes", packetOf(OpOpen, true, 900, "nas", ms, "")},
		{"open-no-answer", "ok", "open that wants no answer", packetOf(OpOpen, false, 60, "nas", ms, "")},
		{"open-default-ttl", "ok", "open with the service's own ttl", packetOf(OpOpen, true, 0, "ssh", ms, "")},
		{"open-largest-ttl", "ok", "open with the largest ttl", packetOf(OpOpen, true, 65535, "ssh", ms, "")},
		{"open-time-zero", "ok", "the format takes any time; the clock check does not", packetOf(OpOpen, true, 0, "ssh", 0, "")},
		{"open-time-last", "ok", "the last time that 48 bits hold", packetOf(OpOpen, true, 0, "ssh", maxTime, "")},
		{"open-unspecified", "ok", "the format takes the address ::; the address check does not", packetOf(OpOpen, true, 0, "ssh", ms, "::")},
		{"open-mapped-zero", "ok", "the format takes the address 0.0.0.0; the address check does not", packetOf(OpOpen, true, 0, "ssh", ms, "0.0.0.0")},
		{"close", "ok", "close", packetOf(OpClose, true, 0, "nas", ms, "")},
		{"close-ipv6", "ok", "close with a declared address", packetOf(OpClose, false, 0, "nas", ms, "2001:db8::7")},
		{"hello", "ok", "hello", packetOf(OpHello, true, 0, "", ms, "")},
		{"hello-ipv4", "ok", "hello with a declared address", packetOf(OpHello, true, 0, "", ms, "203.0.113.7")},
		{"enroll", "ok", "enroll", enrollPlan(true)},
		{"enroll-no-answer", "ok", "enroll that wants no answer", enrollPlan(false)},
	}
}

// shapes are refused without a key: wrong length, wrong gate.
func shapes() []goldenCase {
	return []goldenCase{
		{"empty", "length", "no bytes at all", cut(false, func([]byte) []byte { return nil })},
		{"short", "length", "one byte short", cut(false, func(p []byte) []byte { return p[:159] })},
		{"long", "length", "one byte long", cut(false, func(p []byte) []byte { return append(p, 0) })},
		{"reserved", "length", "1232 bytes, reserved for a later version", cut(false, func(p []byte) []byte { return append(p, make([]byte, 1232-160)...) })},
		{"answer", "length", "as long as an answer", cut(false, func(p []byte) []byte { return p[:96] })},
		{"first-bit", "gate", "the first bit of the gate flipped", cut(false, func(p []byte) []byte { p[0] ^= 1; return p })},
		{"last-bit", "gate", "the last bit of the box flipped", cut(false, func(p []byte) []byte { p[159] ^= 0x80; return p })},
		{"zero", "gate", "all bytes zero", cut(false, func([]byte) []byte { return make([]byte, 160) })},
		{"big-endian", "gate", "the gate with its bytes reversed", cut(false, func(p []byte) []byte { slices.Reverse(p[:8]); return p })},
		{"other-router", "gate", "the gate of another router", cut(false, func(p []byte) []byte { refGate(otherRouter[:], p); return p })},
	}
}

// boxes pass the gate and don't open.
func boxes() []goldenCase {
	sealed := func(f func(p *plan, message []byte) []byte) plan {
		p := openPlan()
		p.seal = f
		return p
	}
	return []goldenCase{
		{"tag-bit", "box", "a bit of the tag flipped", cut(true, func(p []byte) []byte { p[40] ^= 1; return p })},
		{"text-bit", "box", "a bit of the ciphertext flipped", cut(true, func(p []byte) []byte { p[100] ^= 1; return p })},
		{"eph-bit", "box", "a bit of the ephemeral key flipped", cut(true, func(p []byte) []byte { p[8] ^= 1; return p })},
		{"eph-top-bit", "box", "the ephemeral key's top bit set: the same point, another nonce", cut(true, func(p []byte) []byte { p[39] ^= 0x80; return p })},
		{"other-router", "box", "sealed to another router", sealed(func(p *plan, message []byte) []byte {
			nonce := [24]byte(refHash(24, nil, p.ephPub, goldenRouter[:]))
			return refWrap(goldenRouter, p.ephPub, box.Seal(nil, message, &nonce, &otherRouter, &p.eph))
		})},
		{"zero-nonce", "box", "sealed with a nonce of zeros", sealed(func(p *plan, message []byte) []byte {
			return refWrap(goldenRouter, p.ephPub, box.Seal(nil, message, &[24]byte{}, &goldenRouter, &p.eph))
		})},
		{"nonce-order", "box", "the nonce of R.pub || E.pub", sealed(func(p *plan, message []byte) []byte {
			nonce := [24]byte(refHash(24, nil, goldenRouter[:], p.ephPub))
			return refWrap(goldenRouter, p.ephPub, box.Seal(nil, message, &nonce, &goldenRouter, &p.eph))
		})},
		{"bare-eph", "box", "the ephemeral key without its mask", sealed(func(p *plan, message []byte) []byte {
			packet := refPacket(goldenRouter, p.eph, message)
			copy(packet[8:40], p.ephPub)
			refGate(goldenRouter[:], packet)
			return packet
		})},
	}
}

// formats are signed well and laid out badly.
func formats() []goldenCase {
	closePlan := packetOf(OpClose, true, 0, "nas", 1700000000123, "")
	hello := func() plan { return packetOf(OpHello, true, 0, "", 1700000000123, "") }
	noTTL := func() plan { return packetOf(OpOpen, true, 0, "nas", 1700000000123, "") } // as any op may have it
	bare := func() plan { return packetOf(OpOpen, true, 900, "nas", 1700000000123, "") }
	cases := []goldenCase{
		{"version-0", "format", "version 0", set(openPlan(), 0, 0x00)},
		{"version-2", "format", "version 2", set(openPlan(), 0, 0x20)},
		{"version-15", "format", "version 15", set(openPlan(), 0, 0xf0)},
		{"ttl-close", "format", "a ttl in close", set(closePlan, 2, 0, 1)},
		{"ttl-hello", "format", "a ttl in hello", set(hello(), 2, 1, 0)},
		{"service-hello", "format", "a service in hello", set(hello(), 12, 0, 0, 0, 0, 0, 1)},
		{"address-first", "format", "the first byte of an address without its flag", set(bare(), 24, 0x20)},
		{"address-last", "format", "the last byte of an address without its flag", set(bare(), 39, 1)},
		{"address-mapped", "format", "an IPv4 address without its flag", set(openPlan(), 1, 1)},
		{"enroll-address", "format", "the address flag in enroll", set(enrollPlan(true), 1, 3)},
		{"enroll-flag-2", "format", "flag bit 2 in enroll", set(enrollPlan(true), 1, 5)},
		{"enroll-version-2", "format", "version 2 of enroll", set(enrollPlan(true), 0, 0x22)},
	}
	for op := byte(4); op < 16; op++ {
		cases = append(cases, goldenCase{fmt.Sprintf("op-%d", op), "format", fmt.Sprintf("op %d", op), set(noTTL(), 0, 0x10|op)})
	}
	for bit := 2; bit < 8; bit++ {
		cases = append(cases, goldenCase{fmt.Sprintf("flag-%d", bit), "format", fmt.Sprintf("flag bit %d", bit), set(openPlan(), 1, 3|1<<bit)})
	}
	return cases
}

// weakX25519 are the seven encodings of points of small order below 2^255.
var weakX25519 = map[string]string{
	"zero":    "0000000000000000000000000000000000000000000000000000000000000000",
	"one":     "0100000000000000000000000000000000000000000000000000000000000000",
	"order-8": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"order8b": "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"p-1":     "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"p":       "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"p+1":     "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// weakEd25519 are keys that no device may have.
var weakEd25519 = map[string]string{
	"identity":        "0100000000000000000000000000000000000000000000000000000000000000",
	"order-2":         "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"order-4":         "0000000000000000000000000000000000000000000000000000000000000000",
	"order-4-neg":     "0000000000000000000000000000000000000000000000000000000000000080",
	"order-8":         "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"order-8-neg":     "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"order-8b":        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"order-8b-neg":    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"identity-sign":   "0100000000000000000000000000000000000000000000000000000000000080",
	"order-2-sign":    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"identity-plus-p": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"order-4-plus-p":  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"identity-both":   "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"order-4-both":    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"no-point":        "0200000000000000000000000000000000000000000000000000000000000000",
	"three-plus-p":    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// weakKeys carry a key with which anybody could have made the packet. The box is sealed
// with the all-zero X25519 result, so it opens for who does not look.
func weakKeys() (cases []goldenCase) {
	seal := func(p *plan, message []byte) []byte {
		secret, shared := testBytes(0x20), [32]byte{}
		box.Precompute(&shared, (*[32]byte)(p.ephPub), &secret) // it does not look at the result
		nonce := [24]byte(refHash(24, nil, p.ephPub, goldenRouter[:]))
		return refWrap(goldenRouter, p.ephPub, box.SealAfterPrecomputation(nil, message, &nonce, &shared))
	}
	for name, text := range weakX25519 {
		for _, top := range []bool{false, true} {
			p := openPlan()
			p.ephPub, p.seal = must(hex.DecodeString(text)), seal
			n := "eph-" + name
			if top {
				p.ephPub[31] |= 0x80
				n += "-top"
			}
			cases = append(cases, goldenCase{n, "key", "an ephemeral key of small order", p})
		}
	}
	for name, text := range weakEd25519 {
		p := set(enrollPlan(true), 8, must(hex.DecodeString(text))...)
		p.resign = func([]byte) []byte { return append([]byte{1}, make([]byte, 63)...) } // good for the identity, whatever was signed
		cases = append(cases, goldenCase{"enroll-" + name, "key", "enrols a key of small order, not on the curve, or not in its one encoding", p})
	}
	return cases
}

// signatures are of someone or something else.
func signatures() []goldenCase {
	by := func(p plan, f func(*plan)) plan { f(&p); return p }
	otherEph := refPublic(testBytes(0x61))
	device := testDevice().Public().Bytes()
	return []goldenCase{
		{"other-device", "signature", "signed by another device", by(openPlan(), func(p *plan) { p.signer = testBytes(0x41) })},
		{"other-label", "signature", "signed under the label of the device id", by(openPlan(), func(p *plan) { p.label = []byte("knock v1 device") })},
		{"no-label", "signature", "signed without a label", by(openPlan(), func(p *plan) { p.label = nil })},
		{"other-router", "signature", "signed for another router", by(openPlan(), func(p *plan) { p.router = otherRouter })},
		{"other-eph", "signature", "the signature of another packet", by(openPlan(), func(p *plan) { p.signE = otherEph[:] })},
		{"zero", "signature", "a signature of zeros", by(openPlan(), func(p *plan) { p.resign = func([]byte) []byte { return make([]byte, 64) } })},
		{"plus-order", "signature", "S plus the group order: the same signature, another encoding", by(openPlan(), func(p *plan) { p.resign = plusOrder })},
		{"enroll-as-open", "signature", "open signed as an enrolment", by(openPlan(), func(p *plan) { p.label = enrollPlan(true).label })},
		{"enroll-other-token", "signature", "enroll with another token secret", by(enrollPlan(true), func(p *plan) { p.label[20] ^= 1 })},
		{"enroll-no-token", "signature", "enroll signed without the token secret", by(enrollPlan(true), func(p *plan) { p.label = p.label[:15] })},
		{"enroll-as-knock", "signature", "enroll signed as a knock", by(enrollPlan(true), func(p *plan) { p.label = []byte("knock v1") })},
		{"enroll-other-device", "signature", "enroll of a key by another", by(enrollPlan(true), func(p *plan) { p.signer = testBytes(0x41) })},
		{"enroll-key-as-token", "signature", "enroll with the key in the token secret's place", by(enrollPlan(true), func(p *plan) {
			p.label = append(p.label[:15:15], device[:16]...)
		})},
	}
}

// plusOrder adds the order of the group to S.
func plusOrder(sig []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := slices.Clone(sig[32:])
	slices.Reverse(s)
	s = order.Add(order, new(big.Int).SetBytes(s)).FillBytes(make([]byte, 32))
	slices.Reverse(s)
	return append(slices.Clone(sig[:32]), s...)
}
