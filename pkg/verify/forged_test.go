package verify

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"testing"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/nacl/box"

	"spad/keys"
	"spad/pkg/flood"
	"spad/pkg/wire"
)

// forgery is a packet written from PROTOCOL.md by one who has the router's public key, and who need not keep to it as
// wire.Sealer does.
type forgery struct {
	id      keys.DevicePublic // whose device id it bears
	by      keys.DeviceSecret // who signs it
	version byte              // 1 is right
	weak    bool              // E.pub is of small order
}

func (f forgery) packet(t *testing.T, r keys.RouterPublic) []byte {
	t.Helper()
	router := r.Bytes()
	e := must(ecdh.X25519().GenerateKey(rand.Reader))
	eph := [32]byte(e.PublicKey().Bytes())
	if f.weak {
		eph = [32]byte{}
	}
	var body [40]byte
	body[0] = f.version<<4 | byte(wire.OpOpen)
	id := blake2b.Sum256(concat("knock v1 device", f.id.Bytes()))
	copy(body[4:12], id[:])
	service := blake2b.Sum256([]byte("knock v1 servicenas"))
	copy(body[12:18], service[:])
	for i := range 6 {
		body[18+i] = byte(int64(nowMS) >> (8 * (5 - i)))
	}
	sig := f.by.Sign(append(concat("knock v1", router, eph), body[:]...))

	scalar := [32]byte(e.Bytes())
	digest := must(blake2b.New(24, nil))
	digest.Write(concat("", eph, router))
	p := make([]byte, 40, wire.PacketSize) // the gate is left out: Verify does not look at it again
	p = box.Seal(p, append(body[:], sig[:]...), (*[24]byte)(digest.Sum(nil)), &router, &scalar)
	maskKey := blake2b.Sum256(concat("knock v1 mask", router))
	mask := must(blake2b.New256(maskKey[:]))
	mask.Write(p[len(p)-16:])
	for i, m := range mask.Sum(nil) {
		p[8+i] = eph[i] ^ m
	}
	return p
}

func concat(label string, parts ...[32]byte) []byte {
	all := []byte(label)
	for _, p := range parts {
		all = append(all, p[:]...)
	}
	return all
}

// What the router's public key alone can make passes the gate, and then fails, silently, at the step that it lies to.
func TestForged(t *testing.T) {
	for _, test := range []struct {
		name string
		forgery
		want Reason
	}{
		{"nothing is wrong", forgery{id: laptop.Public(), by: laptop, version: 1}, Accepted},
		{"another's device id", forgery{id: laptop.Public(), by: stranger, version: 1}, Signature},
		{"another device's id, by one that is enrolled", forgery{id: laptop.Public(), by: backend, version: 1}, Signature},
		{"key of small order", forgery{id: laptop.Public(), by: laptop, version: 1, weak: true}, Key},
		{"another version", forgery{id: laptop.Public(), by: laptop, version: 2}, Format},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRouter(t, flood.DefaultLimits())
			k, err := r.Verify(test.packet(t, r.secret.Public()), from, 0)
			if test.want == Accepted {
				if err != nil || k.Device.Name != "laptop" {
					t.Errorf("%q, %v", k.Device.Name, err)
				}
				return
			}
			var got *Rejection
			if !errors.As(err, &got) || got.Reason != test.want || got.Answer || got.Packet != nil {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
