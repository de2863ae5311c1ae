package control

import (
	"context"
	"net/http"
	"time"
)

// ReloadRequest says how to take a changed configuration over.
type ReloadRequest struct {
	// SSH is the SSH_CONNECTION of who asks, if that is by ssh: what would shut that session out is refused …
	SSH string
	// … unless AllowLockout.
	AllowLockout bool
	// Trial is after how long the old configuration comes back unless confirmed; 0: never. It is whole seconds.
	Trial time.Duration
}

type reloadBody struct {
	SSH          string `json:"ssh,omitempty"`
	AllowLockout bool   `json:"allow_lockout,omitempty"`
	Trial        int64  `json:"trial,omitempty"`
}

// reload may come without a body: nobody asks by ssh then, nor for a trial.
func (h *handler) reload(ctx context.Context, r *http.Request, body []byte) (any, error) {
	if len(body) == 0 {
		return nil, h.Daemon.Reload(ctx, ReloadRequest{})
	}
	return with(func(ctx context.Context, b reloadBody) (any, error) {
		trial, err := duration("trial", b.Trial)
		if err != nil {
			return nil, err
		}
		return nil, h.Daemon.Reload(ctx, ReloadRequest{SSH: b.SSH, AllowLockout: b.AllowLockout, Trial: trial})
	})(ctx, r, body)
}

// Reload makes the daemon read its configuration again; a *UsageError lists what is wrong with it.
func (c *Client) Reload(ctx context.Context, r ReloadRequest) error {
	trial, err := seconds("trial", r.Trial)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, "/v1/reload", reloadBody{SSH: r.SSH, AllowLockout: r.AllowLockout, Trial: trial}, nil)
}

// Confirm keeps what is on trial.
func (c *Client) Confirm(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/confirm", nil, nil)
}
