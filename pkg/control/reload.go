package control

import (
	"context"
	"net/http"
)

// ReloadRequest says how to take a changed configuration over.
type ReloadRequest struct {
	// SSH is the SSH_CONNECTION of who asks, if that is by ssh: what would shut that session out is refused …
	SSH string `json:"ssh,omitempty"`
	// … unless AllowLockout.
	AllowLockout bool `json:"allow_lockout,omitempty"`
}

// reload may come without a body: nobody asks by ssh then.
func (h *handler) reload(ctx context.Context, r *http.Request, body []byte) (any, error) {
	if len(body) == 0 {
		return nil, h.Daemon.Reload(ctx, ReloadRequest{})
	}
	return with(func(ctx context.Context, q ReloadRequest) (any, error) { return nil, h.Daemon.Reload(ctx, q) })(ctx, r, body)
}

// Reload makes the daemon read its configuration again; a *UsageError lists what is wrong with it.
func (c *Client) Reload(ctx context.Context, r ReloadRequest) error {
	return c.do(ctx, http.MethodPost, "/v1/reload", r, nil)
}
