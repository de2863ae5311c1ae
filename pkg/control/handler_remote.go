package control

import (
	"context"
	"io"
	"net/http"
)

// addRemoteCalls adds the operations of the parts that a server need not have.
func (h *handler) addRemoteCalls(calls map[string]call) {
	calls["GET /v1/openapi.json"] = bare(func(context.Context) (any, error) { return description, nil })
	if h.Services != nil {
		calls["GET /v1/services"] = bare(func(ctx context.Context) (any, error) { return list(h.Services.Services(ctx)) })
	}
	if h.Knocks != nil {
		calls["POST /v1/knock"] = with(h.knock)
	}
	if h.Remotes != nil {
		calls["GET /v1/remotes"] = bare(func(ctx context.Context) (any, error) { return list(h.Remotes.Remotes(ctx)) })
		calls["POST /v1/remotes"] = with(h.addRemote)
		calls["DELETE /v1/remotes/{name}"] = h.removeRemote
	}
	if h.Access != nil {
		calls["POST /v1/join"] = with(h.join)
	}
}

// description is the answer of GET /v1/openapi.json.
var description body = func(w io.Writer) error {
	_, err := w.Write(openAPI)
	return err
}

func (h *handler) knock(ctx context.Context, k KnockRequest) (any, error) {
	if !k.From.IsValid() {
		_, k.From = CallerOf(ctx) // root has no address
	}
	switch {
	case len(k.Packet) == 0:
		return nil, &UsageError{"a knock wants a packet"}
	case !k.From.IsValid():
		return nil, &UsageError{"a knock wants the address that it was seen from"}
	}
	k.From = k.From.Unmap().WithZone("")
	sealed, err := h.Knocks.Knock(ctx, k)
	return KnockAnswer{Answer: sealed}, err
}

func (h *handler) addRemote(ctx context.Context, b remoteBody) (any, error) {
	ttl, err := duration("expiry", b.TTL)
	switch {
	case err != nil:
		return nil, err
	case b.Name == "":
		return nil, &UsageError{"a remote wants a name"}
	}
	return h.Remotes.AddRemote(ctx, RemoteRequest{
		Name: b.Name, Allow: b.Allow, ReadOnly: b.ReadOnly, NameAddresses: b.NameAddresses, Manage: b.Manage, Addr: b.Addr, TTL: ttl,
	})
}

func (h *handler) removeRemote(ctx context.Context, r *http.Request, body []byte) (any, error) {
	if len(body) > 0 {
		return nil, errBody
	}
	return h.Remotes.RemoveRemote(ctx, r.PathValue("name"))
}

func (h *handler) join(ctx context.Context, b joinBody) (any, error) {
	name, err := h.Access.Join(ctx, entryOf(ctx).peer, b.Proof)
	return joinedBody{name}, err
}
