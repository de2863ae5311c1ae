package remote

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spad/keys"
)

func newSecret(t *testing.T) keys.RemoteSecret {
	t.Helper()
	s, err := keys.GenerateRemote(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openStore(t *testing.T, dir string, now *int64) *Store {
	t.Helper()
	s, err := Open(dir, func() int64 { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// handshake connects two sides and returns what each says of it after a byte went both ways.
func handshake(t *testing.T, server, client *tls.Config) (s, c *tls.Conn, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	s, c = tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	if clientErr != nil {
		b.Close()
	}
	return s, c, <-done, clientErr
}

func TestHandshakes(t *testing.T) {
	router, known, stranger := newSecret(t), newSecret(t), newSecret(t)
	token := keys.TokenID{1, 2, 3}
	server, err := ServerConfig(router,
		func(p keys.RemotePin) bool { return p == known.Pin() }, func(id keys.TokenID) bool { return id.Equal(token) })
	if err != nil {
		t.Fatal(err)
	}
	client := func(secret keys.RemoteSecret, pin keys.RemotePin, token *keys.TokenID, change func(*tls.Config)) *tls.Config {
		c, err := ClientConfig(secret, pin, token)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(c)
		}
		return c
	}
	for name, tt := range map[string]struct {
		client *tls.Config
		good   bool
	}{
		"pinned both ways":       {client(known, router.Pin(), nil, nil), true},
		"a stranger":             {client(stranger, router.Pin(), nil, nil), false},
		"another router":         {client(known, stranger.Pin(), nil, nil), false},
		"no certificate":         {client(known, router.Pin(), nil, func(c *tls.Config) { c.Certificates = nil }), false},
		"TLS 1.2":                {client(known, router.Pin(), nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), false},
		"a stranger's token":     {client(stranger, router.Pin(), &keys.TokenID{9}, nil), false},
		"a stranger with a line": {client(stranger, router.Pin(), &token, nil), true},
		"a line, no certificate": {client(stranger, router.Pin(), &token, func(c *tls.Config) { c.Certificates = nil }), false},
	} {
		t.Run(name, func(t *testing.T) {
			s, c, serverErr, clientErr := handshake(t, server, tt.client)
			if (serverErr == nil && clientErr == nil) != tt.good {
				t.Fatalf("server %v, client %v", serverErr, clientErr)
			}
			if !tt.good {
				return
			}
			atServer, err1 := Binding(s.ConnectionState())
			atClient, err2 := Binding(c.ConnectionState())
			if err1 != nil || err2 != nil || string(atServer) != string(atClient) || len(atServer) != 32 {
				t.Errorf("bindings %x %x %v %v", atServer, atClient, err1, err2)
			}
		})
	}
}

func TestJoinUsesALineOnce(t *testing.T) {
	now, dir := int64(1_000), t.TempDir()
	s := openStore(t, dir, &now)
	router, web, other := newSecret(t).Pin(), newSecret(t).Pin(), newSecret(t).Pin()
	rights := Rights{Allow: []string{"ssh", "group:family"}, NameAddresses: true}
	token, err := s.Add("web", rights, 2_000)
	if err != nil {
		t.Fatal(err)
	}
	join := func(pin keys.RemotePin, binding string, proof []byte) error {
		_, err := s.Join(pin, router, []byte(binding), proof)
		return err
	}
	good := func(pin keys.RemotePin, binding string) []byte {
		return Proof(token.Secret, []byte(binding), router, pin)
	}
	for name, err := range map[string]error{
		"no proof":                join(web, "b", nil),
		"another connection's":    join(web, "b", good(web, "c")),
		"another machine's proof": join(web, "b", good(other, "b")),
		"no key":                  join(keys.RemotePin{}, "b", good(keys.RemotePin{}, "b")),
	} {
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !s.Open(token.ID) || len(s.All()) != 1 {
		t.Error("the line is gone before it was used")
	}
	if err := join(web, "b", good(web, "b")); err != nil {
		t.Fatal(err)
	}
	if err := join(web, "again", good(web, "again")); err != nil {
		t.Errorf("the same machine, whose answer was lost: %v", err)
	}
	if err := join(other, "b", good(other, "b")); !errors.Is(err, ErrRefused) {
		t.Errorf("another machine: %v", err)
	}
	if s.Open(token.ID) {
		t.Error("the used line still lets strangers through the handshake")
	}
	if _, err := s.Add("web", rights, 9_000); !errors.Is(err, ErrExists) {
		t.Errorf("the name again: %v", err)
	}
	second, err := s.Add("second", rights, 9_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := join(web, "b", Proof(second.Secret, []byte("b"), router, web)); !errors.Is(err, ErrRefused) {
		t.Errorf("one key as two remotes: %v", err)
	}

	s = openStore(t, dir, &now)
	r, ok := s.ByPin(web)
	if diff := cmp.Diff(rights, r.Rights); !ok || diff != "" || r.Name != "web" {
		t.Errorf("after a restart %v (-want +got):\n%s", ok, diff)
	}
	if _, err := s.Remove("web"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Gone():
	default:
		t.Error("its streams do not hear of the removal")
	}
	if _, ok := s.ByPin(web); ok {
		t.Error("it is still there")
	}
	if err := join(web, "b", good(web, "b")); !errors.Is(err, ErrRefused) {
		t.Errorf("the line of a removed remote: %v", err)
	}
	if _, err := s.Remove("web"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestLinesExpire(t *testing.T) {
	now := int64(1_000)
	s := openStore(t, t.TempDir(), &now)
	token, err := s.Add("web", Rights{Allow: []string{"ssh"}}, 2_000)
	if err != nil {
		t.Fatal(err)
	}
	now = 2_000
	pin := newSecret(t).Pin()
	if _, err := s.Join(pin, pin, nil, Proof(token.Secret, nil, pin, pin)); !errors.Is(err, ErrRefused) {
		t.Errorf("an expired line: %v", err)
	}
	if s.Open(token.ID) || len(s.All()) != 0 {
		t.Error("it is still shown")
	}
	for i := range MaxRemotes {
		if _, err := s.Add("web-"+strings.Repeat("x", i/26)+string(rune('a'+i%26)), Rights{}, 3_000); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Add("more", Rights{}, 3_000); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
}

func TestDamagedState(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "remotes.json")
	for name, tt := range map[string]struct {
		text string
		mode fs.FileMode
	}{
		"cut":         {`{"version":1,`, 0o600},
		"newer":       {`{"version":2,"remotes":[]}`, 0o600},
		"unknown key": {`{"version":1,"remotes":[],"x":1}`, 0o600},
		"goes on":     {`{"version":1,"remotes":[]}{}`, 0o600},
		"no name":     {`{"version":1,"remotes":[{"name":"","token_id":"AAAAAAAA","token_secret":"AAAAAAAAAAAAAAAAAAAAAA=="}]}`, 0o600},
		"no token":    {`{"version":1,"remotes":[{"name":"web"}]}`, 0o600},
		"readable":    {`{"version":1,"remotes":[]}`, 0o644},
	} {
		if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, func() int64 { return 0 }); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

func TestRouterFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "router.pem")
	line := keys.RemoteLine{Router: newSecret(t).Pin(), Addr: "[2001:db8::1]:41373", Name: "web"}
	made, err := Prepare(path, line)
	if err != nil {
		t.Fatal(err)
	}
	line.Addr = "home.example.net:1"
	again, err := Prepare(path, line)
	if err != nil || !again.Secret.Equal(made.Secret) || again.Addr != line.Addr {
		t.Fatalf("the same line again: %v", err)
	}
	again.Joined = true
	if err := again.Write(path); err != nil {
		t.Fatal(err)
	}
	back, err := ReadRouter(path)
	if err != nil || !back.Secret.Equal(made.Secret) || back.Addr != line.Addr || back.Pin != line.Router || !back.Joined {
		t.Errorf("read back %+v: %v", back, err)
	}
	if _, err := Prepare(path, line); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a joined router: %v", err)
	}
	if cert, err := tls.LoadX509KeyPair(path, path); err != nil || len(cert.Certificate) != 1 {
		t.Errorf("another program reads it: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRouter(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read: %v", err)
	}
	for _, name := range []string{"", "My Router", "-x"} {
		if _, err := RouterFile(name); err == nil {
			t.Errorf("a router is called %q", name)
		}
	}
}
