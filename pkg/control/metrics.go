package control

import (
	"bytes"
	"context"
	"io"
	"net/http"
)

// metrics is an answer in the text format of Prometheus, which every collector of metrics reads.
type metrics []byte

// metricsType is the content type of that format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// metrics collects the whole text before the first byte goes out: a part would be taken for the whole.
func (h *handler) metrics(ctx context.Context) (any, error) {
	if h.Metrics == nil {
		return nil, Unknown("this daemon has no metrics")
	}
	var out bytes.Buffer
	err := h.Metrics(ctx, &out)
	return metrics(out.Bytes()), err
}

// Metrics copies the daemon's metrics to w, in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	r, err := c.send(ctx, http.MethodGet, "/v1/metrics", nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(w, io.LimitReader(r.Body, maxAnswer))
	return err
}
