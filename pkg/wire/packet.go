package wire

import (
	"fmt"
	"io"

	"spad/keys"
)

// Packet is an opened packet: what it says, and what is needed to check its
// signature and to answer it.
type Packet struct {
	Message Message

	version *version
	gate    gateKey
	shared  [32]byte // the box's shared key
	signed  []byte   // what the signature covers after its label: keys and message
	sig     [64]byte
}

// signedMax is the room that the longest signed text of version 1 needs: label, token secret, keys, body.
const signedMax = 15 + 16 + 32 + 32 + bodySize

// SignedBy reports whether the device with this key made the packet. It is false for
// an enrolment, which is signed otherwise.
func (p *Packet) SignedBy(k keys.DevicePublic) bool {
	if p.Message.Op == OpEnroll {
		return false
	}
	text := append(make([]byte, 0, signedMax), p.version.knock...)
	return k.Verify(append(text, p.signed...), p.sig[:])
}

// SignedWith reports whether the packet is an enrolment made by the holder of both the
// key in it and the token secret.
func (p *Packet) SignedWith(t keys.TokenSecret) bool {
	if p.Message.Op != OpEnroll {
		return false
	}
	text := append(make([]byte, 0, signedMax), p.version.enroll...)
	text = append(text, t[:]...)
	return p.Message.Key.Verify(append(text, p.signed...), p.sig[:])
}

// Format writes what the packet asks for, whatever the verb, and no more.
func (p *Packet) Format(f fmt.State, _ rune) {
	if p == nil {
		_, _ = io.WriteString(f, "[no packet]")
		return
	}
	_, _ = io.WriteString(f, "["+p.Message.Op.String()+" packet]")
}
