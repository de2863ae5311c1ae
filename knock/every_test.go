package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestKeeper(t *testing.T) {
	type round struct {
		ttl time.Duration
		err error
	}
	bad := errors.New("no answer")
	tests := map[string]struct {
		every  time.Duration
		rounds []round
		want   []time.Duration // when the knocks are made
		warned int
	}{
		"all well": {
			10 * time.Minute,
			[]round{{15 * time.Minute, nil}, {15 * time.Minute, nil}, {15 * time.Minute, nil}},
			[]time.Duration{0, 10 * time.Minute, 20 * time.Minute},
			0,
		},
		"unknown ttl": {10 * time.Minute, []round{{0, nil}, {0, nil}}, []time.Duration{0, 10 * time.Minute}, 0},
		"sooner after failures, and as before once it works": {
			10 * time.Minute,
			[]round{{0, bad}, {0, bad}, {0, bad}, {15 * time.Minute, nil}, {0, bad}, {0, bad}},
			[]time.Duration{
				0, 5 * time.Second, 15 * time.Second, 35 * time.Second, 10*time.Minute + 35*time.Second, 10*time.Minute + 40*time.Second,
			},
			0,
		},
		"never later than asked for": {
			8 * time.Second,
			[]round{{0, bad}, {0, bad}, {0, bad}},
			[]time.Duration{0, 5 * time.Second, 13 * time.Second},
			0,
		},
		"before the door shuts": {
			10 * time.Minute,
			[]round{{time.Minute, nil}, {time.Minute, nil}, {time.Minute, nil}},
			[]time.Duration{0, 30 * time.Second, time.Minute},
			1,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, warned := time.Now(), 0
				var got []time.Duration
				ctx, cancel := context.WithCancel(context.Background())
				err := keeper{
					every: tt.every,
					round: func(context.Context) (time.Duration, error) {
						got = append(got, time.Since(start))
						if len(got) == len(tt.want) {
							cancel()
						}
						r := tt.rounds[len(got)-1]
						return r.ttl, r.err
					},
					addresses: func() string { return "" },
					warn:      func(string) { warned++ },
				}.run(ctx)
				if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
					t.Error(diff, err)
				}
				if warned != tt.warned {
					t.Errorf("warned %d times, want %d", warned, tt.warned)
				}
			})
		})
	}
}

func TestKeeperFailsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
		defer cancel()
		n := 0
		round := func(context.Context) (time.Duration, error) { n++; return 0, errors.New("down") }
		err := keeper{every: time.Hour, round: round, addresses: func() string { return "" }}.run(ctx)
		if err != nil {
			t.Error(err)
		}
		if want := int(24 * time.Hour / lastTry); n < want || n > want+10 {
			t.Errorf("%d tries in a day, want about %d", n, want)
		}
	})
}

func TestKeeperFollowsTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var got []time.Duration
		ctx, cancel := context.WithCancel(context.Background())
		err := keeper{
			every: time.Hour,
			round: func(context.Context) (time.Duration, error) {
				if got = append(got, time.Since(start)); len(got) == 2 {
					cancel()
				}
				return 2 * time.Hour, nil
			},
			addresses: func() string {
				if time.Since(start) > time.Minute {
					return "another"
				}
				return "one"
			},
		}.run(ctx)
		if d := got[1]; err != nil || d < time.Minute || d > time.Minute+slice {
			t.Errorf("knocked again after %v, the network changed after a minute; %v", d, err)
		}
	})
}

func TestKeeperStopsAtWhatMustBeMended(t *testing.T) {
	round := func(context.Context) (time.Duration, error) { return 0, exitError(codeUsage) }
	k := keeper{every: time.Hour, round: round, addresses: func() string { return "" }}
	if got := exitCode(k.run(context.Background())); got != codeUsage {
		t.Errorf("exit code %d", got)
	}
}

func TestAddressesAreSteady(t *testing.T) {
	if a, b := addresses(), addresses(); a != b {
		t.Errorf("%q, then %q", a, b)
	}
}

// ports is a dialer to ports that answer from a time on.
type ports map[string]time.Time

func (p ports) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	from, ok := p[addr]
	switch {
	case !ok: // dropped
		ctx, cancel := context.WithTimeout(ctx, dialPatience)
		defer cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	case time.Now().Before(from):
		return nil, errors.New("connection refused")
	}
	c, _ := net.Pipe()
	return c, nil
}

func TestAnswersAt(t *testing.T) {
	a4, a6 := netip.MustParseAddrPort("192.0.2.1:22"), netip.MustParseAddrPort("[2001:db8::1]:22")
	tests := map[string]struct {
		ports map[netip.AddrPort]time.Duration
		want  bool
		took  time.Duration
	}{
		"at once":              {map[netip.AddrPort]time.Duration{a4: 0, a6: 0}, true, 0},
		"one family dead":      {map[netip.AddrPort]time.Duration{a6: 0}, true, 0},
		"refused for a while":  {map[netip.AddrPort]time.Duration{a4: time.Second}, true, time.Second},
		"never, and dropped":   {nil, false, portPatience},
		"not within the limit": {map[netip.AddrPort]time.Duration{a4: time.Hour}, false, portPatience},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, p := time.Now(), ports{}
				for a, after := range tt.ports {
					p[a.String()] = start.Add(after)
				}
				ctx, cancel := context.WithTimeout(context.Background(), portPatience)
				defer cancel()
				got := answersAt(ctx, p, []netip.AddrPort{a4, a6})
				if took := time.Since(start); got != tt.want || took != tt.took {
					t.Errorf("%v after %v, want %v after %v", got, took, tt.want, tt.took)
				}
			})
		})
	}
}

func TestShort(t *testing.T) {
	tests := map[time.Duration]string{
		10 * time.Second: "10s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 2*time.Hour + 10*time.Second: "2h0m10s",
		10 * time.Hour: "10h", 100 * time.Minute: "1h40m", 0: "0s",
	}
	for d, want := range tests {
		if got := short(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

func TestParseSeconds(t *testing.T) {
	tests := map[string]time.Duration{
		"1": time.Second, "900": 15 * time.Minute, "15m": 15 * time.Minute, "1h30m": 90 * time.Minute, "65535": 65535 * time.Second,
		"18h12m15s": 65535 * time.Second, "1000ms": time.Second,
		"": 0, "0": 0, "-5": 0, "65536": 0, "19h": 0, "1.5": 0, "500ms": 0, "15 m": 0, "m": 0, "5mm": 0, "1e3": 0, "∞": 0,
	}
	for text, want := range tests {
		got, err := parseSeconds(text)
		if got != want && err == nil || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}
