package client

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"spad/pkg/wire"
)

func diagnose(t *testing.T, s *scene, only Family) Diagnosis {
	t.Helper()
	d, err := s.Diagnose(t.Context(), s.home(), only)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDiagnose(t *testing.T) {
	noHost := func(err error) bool {
		var dns *net.DNSError
		return errors.As(err, &dns) && dns.IsNotFound
	}
	for _, tt := range []struct {
		name  string
		ill   func(*scene)
		check func(Way) bool // of IPv6
		took  time.Duration
	}{
		{"well", func(*scene) {}, func(w Way) bool {
			return w.Result.Err == nil && w.Result.Status == wire.Hello && w.Result.Seen == here6 && w.Local == here6 && w.RTT == rtt && len(w.Addrs) == 1
		}, rtt},
		{"silence", func(s *scene) { s.silent(home6) }, func(w Way) bool { return errors.Is(w.Result.Err, ErrNoAnswer) && w.Local == here6 }, 3 * time.Second},
		{"no route", func(s *scene) { s.world.paths[home6] = &path{noDial: errRefused} }, func(w Way) bool {
			return errors.Is(w.LocalErr, errRefused) && !w.Result.Answered
		}, rtt},
		{"no address", func(s *scene) { s.world.names["home.example.net"] = []netip.Addr{home4} }, func(w Way) bool { return noHost(w.LookupErr) && len(w.Addrs) == 0 }, rtt},
		{"clock off", func(s *scene) { s.system.skew = -time.Hour }, func(w Way) bool { return w.Result.Err == nil && w.Result.Status == wire.ClockOff }, rtt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				tt.ill(s)
				start := time.Now()
				d := diagnose(t, s, Both)
				if took := time.Since(start); took < tt.took-tt.took/8 || took > tt.took+tt.took/8 {
					t.Errorf("took %v, want about %v", took, tt.took)
				}
				if len(d.Families) != 2 || d.Families[0].Family != IPv4 || d.Families[0].Result.Err != nil || !d.Families[0].Result.Answered {
					t.Errorf("IPv4: %+v", d.Families)
				}
				if !tt.check(d.Families[1]) {
					t.Errorf("IPv6: %+v", d.Families[1])
				}
				for _, op := range s.router.ops() {
					if op != wire.OpHello {
						t.Errorf("%v was sent", op)
					}
				}
			})
		})
	}
}

func TestDiagnoseLearnsTheOffset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.system.skew = -3 * time.Second
		if d := diagnose(t, s, Both); !d.Known || d.Offset != 3*time.Second {
			t.Errorf("%v, %v", d.Known, d.Offset)
		}
	})
}

func TestDiagnoseFindsNAT64(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.names["ipv4only.arpa."] = []netip.Addr{netip.MustParseAddr("64:ff9b::192.0.0.170")}
		if d := diagnose(t, s, IPv6); len(d.NAT64) != 1 || d.NAT64[0] != netip.MustParsePrefix("64:ff9b::/96") || len(d.Families) != 1 {
			t.Errorf("%+v", d)
		}
	})
}

func TestDiagnoseMakesNoKey(t *testing.T) {
	c, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var config *ConfigError
	if _, err := c.Diagnose(t.Context(), Router{Addr: "192.0.2.1:1"}, Both); !errors.As(err, &config) {
		t.Errorf("%v", err)
	}
	if _, err := c.CheckKey(); !errors.As(err, &config) {
		t.Errorf("%v", err)
	}
}
