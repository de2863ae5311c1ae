package main

import (
	"testing"

	"spad/pkg/client"
	"spad/pkg/wire"
)

// A pinhole over IPv6 has no port of the router; what IPv4 leads to has.
func TestPortOfAnAnswer(t *testing.T) {
	result := func(port uint16) client.Result {
		return client.Result{Answered: true, Status: wire.Opened, Port: port}
	}
	for name, c := range map[string]struct {
		families []client.Result
		want     uint16
	}{
		"none":         {nil, 0},
		"no port":      {[]client.Result{result(0)}, 0},
		"one family":   {[]client.Result{result(443)}, 443},
		"pinhole":      {[]client.Result{result(443), result(0)}, 443},
		"other way":    {[]client.Result{result(0), result(443)}, 443},
		"not answered": {[]client.Result{{Port: 443, Err: client.ErrNoAnswer}}, 0},
	} {
		if got := (answer{Outcome: client.Outcome{Families: c.families}}).port(); got != c.want {
			t.Errorf("%s: port %d, want %d", name, got, c.want)
		}
	}
}
