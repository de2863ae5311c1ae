package control

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestMetrics(t *testing.T) {
	s, c := startFake(t)
	var b strings.Builder
	if err := c.Metrics(t.Context(), &b); err != nil || b.String() != "spad_sessions 3\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	r, err := c.send(t.Context(), http.MethodGet, "/v1/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if kind := r.Header.Get("Content-Type"); kind != metricsType {
		t.Error(kind)
	}
	s.fake.err = errors.New("no table")
	b.Reset()
	if err := c.Metrics(t.Context(), &b); err == nil || err.Error() != "no table" || b.Len() > 0 {
		t.Errorf("%q, %v", b.String(), err)
	}
}
