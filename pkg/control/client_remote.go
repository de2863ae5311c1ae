package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"spad/keys"
	"spad/pkg/remote"
)

// dialTimeout is how long a router elsewhere may take until it speaks TLS.
const dialTimeout = 10 * time.Second

// NewRemoteClient returns a client of the router that this machine has joined. It does not connect yet.
func NewRemoteClient(r remote.Router) (*Client, error) {
	if !r.Joined {
		return nil, &UsageError{"this router was never joined to the end; run spad remote join with the same line again, or with a new one"}
	}
	return remoteClient(r, nil)
}

func remoteClient(r remote.Router, token *keys.TokenID) (*Client, error) {
	config, err := remote.ClientConfig(r.Secret, r.Pin, token)
	if err != nil {
		return nil, err
	}
	c := &Client{path: r.Addr, base: "https://spad", remote: true}
	c.http.Transport = &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialTLS(ctx, r.Addr, config)
	}}
	return c, nil
}

func dialTLS(ctx context.Context, addr string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; is spad running there, and remote in its configuration?", err)
	}
	c := tls.Client(plain, config)
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Join makes this machine a remote of the router that r was prepared for, and returns what the router calls it. The
// proof of the token belongs to the one connection that it is made on.
func Join(ctx context.Context, r remote.Router, token keys.Token) (name string, err error) {
	c, err := remoteClient(r, &token.ID)
	if err != nil {
		return "", err
	}
	config, err := remote.ClientConfig(r.Secret, r.Pin, &token.ID)
	if err != nil {
		return "", err
	}
	conn, err := dialTLS(ctx, r.Addr, config)
	if err != nil {
		return "", c.plain(err)
	}
	defer conn.Close()
	binding, err := remote.Binding(conn.ConnectionState())
	if err != nil {
		return "", err
	}
	c.http.Transport.(*http.Transport).DialTLSContext = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	proof := remote.Proof(token.Secret, binding, r.Pin, r.Secret.Pin())
	var joined joinedBody
	err = c.do(ctx, http.MethodPost, "/v1/join", joinBody{proof}, &joined)
	if errors.Is(err, errRefusedKey) {
		err = remote.ErrRefused
	}
	return joined.Name, err
}

// errRefusedKey is what a router does to a key that it does not know: it ends the handshake.
var errRefusedKey = errors.New("it ended the handshake")

// plainRemote words what went wrong on the way to a router elsewhere.
func (c *Client) plainRemote(err error) error {
	var alert *net.OpError
	switch {
	case errors.Is(err, remote.ErrWrongRouter):
		return fmt.Errorf("at %s: %w; join it again if its key was made anew, else somebody is in the way", c.path, remote.ErrWrongRouter)
	case errors.As(err, &alert) && alert.Op == "remote error", hungUp(err):
		return fmt.Errorf("the router at %s does not take this machine's key: %w; join again if it was removed there", c.path, errRefusedKey)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer from the router at %s: %w", c.path, err)
	}
	return fmt.Errorf("reaching the router at %s: %w", c.path, err)
}

// Services lists what can be opened.
func (c *Client) Services(ctx context.Context) (s []Service, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/services", nil, &s)
	return s, err
}

// Knock hands a packet in and returns the sealed answer, or nothing: silence.
func (c *Client) Knock(ctx context.Context, k KnockRequest) ([]byte, error) {
	var a KnockAnswer
	err := c.do(ctx, http.MethodPost, "/v1/knock", k, &a)
	return a.Answer, err
}

// Remotes lists the remotes.
func (c *Client) Remotes(ctx context.Context) (r []Remote, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/remotes", nil, &r)
	return r, err
}

// AddRemote makes the line with which a machine joins.
func (c *Client) AddRemote(ctx context.Context, r RemoteRequest) (l RemoteLine, err error) {
	ttl, err := seconds("expiry", r.TTL)
	if err != nil {
		return l, err
	}
	err = c.do(ctx, http.MethodPost, "/v1/remotes", remoteBody{r.Name, r.Allow, r.ReadOnly, r.NameAddresses, r.Manage, r.Addr, ttl}, &l)
	return l, err
}

// RemoveRemote forgets a remote and returns what it was.
func (c *Client) RemoveRemote(ctx context.Context, name string) (r Remote, err error) {
	if name == "" || name == "." || name == ".." { // would be another path
		return r, &UsageError{"no remote can have that name"}
	}
	err = c.do(ctx, http.MethodDelete, "/v1/remotes/"+url.PathEscape(name), nil, &r)
	return r, err
}
