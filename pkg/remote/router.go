package remote

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"spad/keys"
)

// Router is what another machine knows of a router that it has joined, or is about to.
type Router struct {
	Addr   string         // host:port
	Pin    keys.RemotePin // of the router
	Secret keys.RemoteSecret
	Joined bool // false: the router's answer never came
}

// DefaultDir returns where the files of routers are kept: remotes in the folder spad of the user's configuration.
func DefaultDir() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("finding the configuration folder: %w; name the file itself, with a / in it", err)
	}
	return filepath.Join(dir, "spad", "remotes"), nil
}

// RouterFile returns the file of a router: name is a path if there is a / in it, else a file's in [DefaultDir].
func RouterFile(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if !keys.ValidName(name) {
		return "", fmt.Errorf("a router can't be called %q; use a-z, 0-9 and -, or a path with a / in it", name)
	}
	dir, err := DefaultDir()
	return filepath.Join(dir, name+".pem"), err
}

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
	curlPin   = "sha256//" // how the option --pinnedpubkey of curl wants it
)

// parsePin reads what Write writes; the zero pin is none.
func parsePin(text string) (pin keys.RemotePin) {
	digits, _ := strings.CutPrefix(text, curlPin)
	if b, err := base64.StdEncoding.DecodeString(digits); err == nil && len(b) == len(pin) {
		pin = keys.RemotePin(b)
	}
	return pin
}

// Prepare writes the file of the router that a line names, with a new key, before the router hears of it: what the
// router then has pinned must not be lost. A file that is there is kept. If it is of this router and not joined yet it is
// used again, since an answer may have been lost; any other is fs.ErrExist.
func Prepare(path string, line keys.RemoteLine) (Router, error) {
	old, err := ReadRouter(path)
	switch {
	case err == nil && !old.Joined && old.Pin == line.Router:
		old.Addr = line.Addr
		return old, nil
	case err == nil:
		return Router{}, fmt.Errorf("%q: %w; choose another name with --as, or remove it", path, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return Router{}, err
	}
	secret, err := keys.GenerateRemote(rand.Reader)
	if err != nil {
		return Router{}, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Router{}, err
	}
	r := Router{Addr: line.Addr, Pin: line.Router, Secret: secret}
	return r, r.Write(path)
}

// Write writes the file, which other programs can use as well: it has the certificate and the key in PEM.
func (r Router) Write(path string) error {
	cert, err := Certificate(r.Secret)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(r.Secret.Signer())
	if err != nil {
		return err
	}
	state := "pending"
	if r.Joined {
		state = "joined"
	}
	text := "# key to a router's remote control; show it to nobody\n" +
		"Address: " + r.Addr + "\nPin: " + curlPin + base64.StdEncoding.EncodeToString(r.Pin[:]) + "\nState: " + state + "\n" +
		string(pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Certificate[0]})) +
		string(pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: key}))
	if err := replace(path, []byte(text)); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return nil
}

// ReadRouter reads the file of a router. Its errors repeat nothing of the key.
func ReadRouter(path string) (Router, error) {
	data, err := readPrivate(path)
	if err != nil {
		return Router{}, fmt.Errorf("reading %q: %w", path, err)
	}
	var r Router
	head, _, _ := strings.Cut(string(data), "-----")
	for line := range strings.Lines(head) { // which every reader of PEM skips
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key {
		case "Address":
			r.Addr = value
		case "Pin":
			r.Pin = parsePin(value)
		case "State":
			r.Joined = value == "joined"
		}
	}
	r.Secret = parseKey(data)
	if r.Secret.IsZero() || r.Pin.IsZero() || !keys.ValidAddr(r.Addr) {
		return Router{}, fmt.Errorf("reading %q: it is not what spad remote join writes; join the router again", path)
	}
	return r, nil
}

// parseKey finds the private key among the blocks of a PEM file; the zero key is none.
func parseKey(data []byte) keys.RemoteSecret {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != keyBlock {
			continue
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := key.(ed25519.PrivateKey); ok {
				return keys.NewRemoteSecret([32]byte(key.Seed()))
			}
		}
	}
	return keys.RemoteSecret{}
}
