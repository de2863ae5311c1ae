package wire

import (
	"encoding/hex"

	"golang.org/x/crypto/blake2b"

	"spad/keys"
)

// DeviceID names a device in a packet: the first 8 bytes of a hash of its key.
type DeviceID [8]byte

// ServiceID names a service in a packet: the first 6 bytes of a hash of its name.
type ServiceID [6]byte

// DeviceIDOf returns the id of a device.
func DeviceIDOf(k keys.DevicePublic) DeviceID {
	b := k.Bytes()
	h := blake2b.Sum256(append([]byte("knock v1 device"), b[:]...))
	return DeviceID(h[:8])
}

// ServiceIDOf returns the id of a service. The name should be a [ValidName].
func ServiceIDOf(name string) ServiceID {
	h := blake2b.Sum256([]byte("knock v1 service" + name))
	return ServiceID(h[:6])
}

// String returns the id in hex.
func (d DeviceID) String() string { return hex.EncodeToString(d[:]) }

// String returns the id in hex.
func (s ServiceID) String() string { return hex.EncodeToString(s[:]) }

// ValidName reports whether name may name a service or a device: a small letter or a
// digit, then at most 31 of these and hyphens.
func ValidName(name string) bool { return keys.ValidName(name) }
