package remote

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"time"

	"spad/keys"
)

// joinProtocol stands before the hex digits of a token's id in the ClientHello's list of protocols.
const joinProtocol = "spad-join-"

// web is the protocol that is spoken; there is no HTTP/2, whose many streams would need limits of their own.
const web = "http/1.1"

// Errors of handshakes.
var (
	errStranger = errors.New("this key is not pinned")
	// ErrWrongRouter means that somebody else answers at the router's address.
	ErrWrongRouter = errors.New("who answers there is not the router that was joined")
)

// Certificate returns what TLS shows a key in. It says nothing else: no name, no age, the same for the same key.
func Certificate(secret keys.RemoteSecret) (tls.Certificate, error) {
	shell := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	key := secret.Signer()
	der, err := x509.CreateCertificate(rand.Reader, shell, shell, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// PinOf returns the pin of the other end of a connection; the zero value if it showed no certificate.
func PinOf(cs tls.ConnectionState) keys.RemotePin {
	if len(cs.PeerCertificates) == 0 {
		return keys.RemotePin{}
	}
	return keys.PinOf(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)
}

// ServerConfig returns the router's side: it speaks to who is known, and to anybody whose ClientHello has the id of a
// token that is open. There are no session tickets: whoever was removed must not come back with one.
func ServerConfig(secret keys.RemoteSecret, known func(keys.RemotePin) bool, open func(keys.TokenID) bool) (*tls.Config, error) {
	cert, err := Certificate(secret)
	if err != nil {
		return nil, err
	}
	joining := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{web},
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
	}
	normal := joining.Clone()
	normal.VerifyConnection = func(cs tls.ConnectionState) error {
		if !known(PinOf(cs)) {
			return errStranger
		}
		return nil
	}
	normal.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if id, ok := tokenOf(hello.SupportedProtos); ok && open(id) {
			return joining, nil
		}
		return nil, nil
	}
	return normal, nil
}

// ClientConfig returns the other machine's side, which speaks to the router with that pin alone. The token's id is given
// for the one connection that joins.
func ClientConfig(secret keys.RemoteSecret, router keys.RemotePin, token *keys.TokenID) (*tls.Config, error) {
	cert, err := Certificate(secret)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{web},
		InsecureSkipVerify: true, // no authority: VerifyConnection compares the key itself
		VerifyConnection: func(cs tls.ConnectionState) error {
			if PinOf(cs) != router {
				return ErrWrongRouter
			}
			return nil
		},
	}
	if token != nil {
		c.NextProtos = []string{joinProtocol + hex.EncodeToString(token[:]), web}
	}
	return c, nil
}

// tokenOf finds the id of a token in a ClientHello.
func tokenOf(protocols []string) (id keys.TokenID, ok bool) {
	for _, p := range protocols {
		digits, found := strings.CutPrefix(p, joinProtocol)
		if !found || len(digits) != 2*len(id) {
			continue
		}
		if _, err := hex.Decode(id[:], []byte(digits)); err == nil {
			return id, true
		}
	}
	return id, false
}

// Binding returns what only the two ends of a connection know (RFC 9266 section 2).
func Binding(cs tls.ConnectionState) ([]byte, error) {
	return cs.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
}

// Proof returns what shows that its maker has a token's secret, on the connection with this binding alone. The client's
// pin is in it because the exporter of TLS 1.3 does not cover the client's certificate (RFC 8446 section 7.1).
func Proof(secret keys.TokenSecret, binding []byte, router, client keys.RemotePin) []byte {
	m := hmac.New(sha256.New, secret[:])
	for _, part := range [][]byte{[]byte("spad remote join 1"), binding, router[:], client[:]} {
		m.Write(part)
	}
	return m.Sum(nil)
}
