package control

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Explainer is what the daemon remembers of knocks, to say why one opened nothing.
type Explainer interface {
	// Why tells of the last knocks of a device or from an address. A device that nobody knows is ErrUnknown.
	Why(ctx context.Context, r WhyRequest) (Why, error)
}

// WhyRequest names a device or an address, one of the two.
type WhyRequest struct {
	Device  string
	Address netip.Addr
}

// Why is what is remembered.
type Why struct {
	Since time.Time `json:"since"` // of the daemon's start: it remembers nothing from before
	// Knocks are the last ones that name an enrolled device, the latest first.
	Knocks []Knock `json:"knocks"`
	// Drops are the packets that proved nobody, from anywhere: nothing is kept of who sent them.
	Drops []Drop `json:"drops"`
}

// Knock is one knock, or several that were alike.
type Knock struct {
	Time    time.Time `json:"time"` // of the last one
	Count   int       `json:"count"`
	Device  string    `json:"device,omitempty"`
	Service string    `json:"service,omitempty"` // empty if the router has none such
	Source  string    `json:"source"`            // the address it was for
	Sender  string    `json:"sender,omitempty"`  // the address it came from, if that is another
	Outcome string    `json:"outcome"`           // "opened", "closed", "hello", or "refused"
	TTL     int       `json:"ttl,omitempty"`     // seconds that the door was opened for
	Reason  string    `json:"reason,omitempty"`  // why refused
	Detail  string    `json:"detail,omitempty"`  // what failed, in the words of the firewall, the journal …
	Remedy  string    `json:"remedy,omitempty"`  // what the reason means, and what to do
}

// Drop counts packets that failed one check.
type Drop struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
	Remedy string `json:"remedy"` // what that means, and what to do
}

// why answers GET /v1/why, the only operation with a query.
func (h *handler) why(w http.ResponseWriter, r *http.Request) {
	q, err := whyQuery(r.URL.RawQuery)
	r.URL.RawQuery = ""
	h.serve(w, r, bare(func(ctx context.Context) (any, error) {
		if err != nil {
			return nil, err
		}
		return h.Why.Why(ctx, q)
	}))
}

// query returns what whyQuery reads.
func (r WhyRequest) query() string {
	v := url.Values{}
	if r.Device != "" {
		v.Set("device", r.Device)
	}
	if r.Address.IsValid() {
		v.Set("address", r.Address.String())
	}
	return v.Encode()
}

func whyQuery(text string) (r WhyRequest, err error) {
	wrong := &UsageError{"why wants exactly one of: a device, an address"}
	v, err := url.ParseQuery(text)
	if err != nil || len(v) != 1 || len(v["device"])+len(v["address"]) != 1 {
		return r, wrong
	}
	if r.Device = v.Get("device"); r.Device != "" {
		return r, nil
	}
	if r.Address, err = netip.ParseAddr(v.Get("address")); err != nil {
		return r, wrong
	}
	r.Address = r.Address.Unmap().WithZone("")
	return r, nil
}

// Why tells of the last knocks of a device or from an address.
func (c *Client) Why(ctx context.Context, r WhyRequest) (w Why, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/why?"+r.query(), nil, &w)
	return w, err
}
