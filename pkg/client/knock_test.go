package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spad/pkg/wire"
)

var compare = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateErrors(), cmpopts.IgnoreUnexported(Result{}),
}

func TestKnockOpensInBothFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		out, took := s.open(t, func(r *Request) { r.TTL = 2 * time.Hour }, "nas")
		opened := func(f Family, at, seen netip.Addr) Result {
			return Result{
				Service: "nas", Family: f, Router: netip.AddrPortFrom(at, 41372), Answered: true, Status: wire.Opened,
				TTL: 2 * time.Hour, Port: 7890, Seen: seen,
			}
		}
		want := []Outcome{{"nas", []Result{opened(IPv4, home4, here4), opened(IPv6, home6, here6)}}}
		if diff := cmp.Diff(want, out, compare); diff != "" {
			t.Error(diff)
		}
		if took != rtt {
			t.Errorf("took %v, want one round trip, %v", took, rtt)
		}
		got := s.router.arrivals()
		if len(got) != 2 || got[0].TimeMS == got[1].TimeMS {
			t.Fatalf("want two packets with times of their own, got %+v", got)
		}
		for _, a := range got {
			want := map[netip.Addr]netip.Addr{home4: here4, home6: here6}[a.to.Addr()]
			if a.Address != want || a.Service != wire.ServiceIDOf("nas") || a.TTL != 7200 || !a.WantAnswer {
				t.Errorf("packet to %v: %+v", a.to, a.Message)
			}
		}
	})
}

func TestDeadFamilyDelaysNobody(t *testing.T) {
	for name, dead := range map[string]netip.Addr{"no IPv6": home6, "no IPv4": home4} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				s.silent(dead)
				out, took := s.open(t, nil, "nas")
				if out[0].Err() != nil || len(out[0].Families) != 1 {
					t.Errorf("outcome %+v", out)
				}
				if want := rtt + 2*rtt + 50*time.Millisecond; took != want {
					t.Errorf("took %v, want %v: the round trip and the grace", took, want)
				}
			})
		})
	}
}

func TestRetriesThenGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.router.decide = func(int, wire.Message) wire.Answer { return wire.Answer{Status: noReply} }
		start := time.Now()
		out, took := s.open(t, func(r *Request) { r.Only = IPv4 }, "nas")
		if err := out[0].Err(); !errors.Is(err, ErrNoAnswer) || err.Error() != "no answer (IPv4)" {
			t.Errorf("error %v", err)
		}
		if took < 2700*time.Millisecond || took > 3300*time.Millisecond {
			t.Errorf("gave up after %v", took)
		}
		got := s.router.arrivals()
		if len(got) != 3 {
			t.Fatalf("%d packets, want 3", len(got))
		}
		for i, due := range []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond} {
			at := got[i].at.Sub(start) - rtt/2
			if at < due-due/10 || at > due+due/10 {
				t.Errorf("packet %d left at %v, want about %v", i, at, due)
			}
			if i > 0 && got[i].TimeMS <= got[i-1].TimeMS {
				t.Errorf("times do not increase: %d, %d", got[i-1].TimeMS, got[i].TimeMS)
			}
		}
	})
}

func TestNoAnswerNamesTheFamilies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.silent(home4, home6)
		out, _ := s.open(t, nil, "nas")
		if got := out[0].Err().Error(); got != "no answer (IPv4 and IPv6)" {
			t.Errorf("%q", got)
		}
	})
}

func TestLostPacketIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.silent(home6)
		s.router.decide = func(n int, m wire.Message) wire.Answer {
			if n < 3 {
				return wire.Answer{Status: noReply}
			}
			return grant(m)
		}
		out, _ := s.open(t, nil, "nas")
		if out[0].Err() != nil || len(s.router.arrivals()) != 3 {
			t.Errorf("%+v after %d packets", out, len(s.router.arrivals()))
		}
	})
}

func TestLateAnswerToAnEarlierPacketCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.paths[home4].rtt = 700 * time.Millisecond
		out, took := s.open(t, func(r *Request) { r.Only = IPv4 }, "nas")
		if n := s.world.paths[home4].n; out[0].Err() != nil || took != 700*time.Millisecond || n != 2 {
			t.Errorf("%+v after %v and %d packets", out, took, n)
		}
		if c := s.record(t); c.Offset != 0 {
			t.Errorf("offset %d from the wrong packet's round trip", c.Offset)
		}
	})
}

// record returns what is remembered of the router's clock.
func (s *scene) record(t *testing.T) record {
	t.Helper()
	m := &memory{folder: s.folder, system: s.system, device: s.router.device, router: s.router.secret.Public()}
	c, err := m.load()
	if err != nil {
		t.Fatal(err)
	}
	return c.own
}

func TestForeignDatagramsAndICMPAreIgnored(t *testing.T) {
	flip := func(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 1; return b }
	junk := make([]byte, wire.AnswerSize)
	if _, err := rand.Read(junk); err != nil {
		t.Fatal(err)
	}
	var other []byte // an answer to another packet
	tests := map[string]func(answer []byte) []event{
		"icmp":                   func([]byte) []event { return []event{{err: errRefused}, {err: errRefused}} },
		"junk":                   func([]byte) []event { return []event{{data: junk}} },
		"empty":                  func([]byte) []event { return []event{{data: nil}} },
		"short":                  func(a []byte) []event { return []event{{data: a[:len(a)-1]}} },
		"long":                   func(a []byte) []event { return []event{{data: append(bytes.Clone(a), 0)}} },
		"bad gate":               func(a []byte) []event { return []event{{data: flip(a, 0)}} },
		"bad nonce":              func(a []byte) []event { return []event{{data: flip(a, 8)}} },
		"bad box":                func(a []byte) []event { return []event{{data: flip(a, 95)}} },
		"another packet's":       func(a []byte) (e []event) { e = []event{{data: other}}; other = a; return e },
		"a packet instead of it": func([]byte) []event { return []event{{data: make([]byte, wire.PacketSize)}} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				s.world.paths[home4].spoil = spoil
				for range 2 {
					out, took := s.open(t, func(r *Request) { r.Only = IPv4 }, "nas")
					if out[0].Err() != nil || took > 2*rtt {
						t.Errorf("%+v after %v", out, took)
					}
				}
			})
		})
	}
}

func TestPendingICMPErrorAtWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.paths[home4].write = func(n int) error {
			if n == 1 {
				return errRefused
			}
			return nil
		}
		out, took := s.open(t, func(r *Request) { r.Only = IPv4 }, "nas")
		if out[0].Err() != nil || took != rtt {
			t.Errorf("%+v after %v", out, took)
		}
	})
}

func TestUnsendable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.paths[home4].write = func(int) error { return errors.New("operation not permitted") }
		s.world.paths[home6].noDial = errors.New("network is unreachable")
		out, _ := s.open(t, nil, "nas")
		want := "IPv4: no way to 198.51.100.1: operation not permitted; IPv6: no way to 2001:db8::1: network is unreachable"
		if err := out[0].Err(); err.Error() != want || errors.Is(err, ErrNoAnswer) {
			t.Errorf("got  %v\nwant %v", err, want)
		}
	})
}

func TestOnceSentTheAnswerCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.silent(home4)
		s.world.paths[home4].write = func(n int) error {
			if n > 1 {
				return errRefused
			}
			return nil
		}
		out, _ := s.open(t, func(r *Request) { r.Only = IPv4 }, "nas")
		if !errors.Is(out[0].Err(), ErrNoAnswer) {
			t.Errorf("%v, want no answer", out[0].Err())
		}
	})
}

func TestStatuses(t *testing.T) {
	type said = map[Family]wire.Status
	tests := map[string]struct {
		said    said
		want    error
		packets int
	}{
		"denied by both":           {said{IPv4: wire.Denied, IPv6: wire.Denied}, &StatusError{wire.Denied}, 2},
		"one family of two":        {said{IPv4: wire.Opened, IPv6: wire.Denied}, nil, 2},
		"the other family of two":  {said{IPv4: wire.Denied, IPv6: wire.Opened}, nil, 2},
		"failed tells more":        {said{IPv4: wire.Denied, IPv6: wire.Failed}, &StatusError{wire.Failed}, 2},
		"an answer tells more":     {said{IPv4: noReply, IPv6: wire.Denied}, &StatusError{wire.Denied}, 4},
		"address mismatch":         {said{IPv4: wire.Mismatch, IPv6: wire.Mismatch}, &StatusError{wire.Mismatch}, 2},
		"busy to the end":          {said{IPv4: wire.Busy, IPv6: wire.Busy}, &StatusError{wire.Busy}, 6},
		"busy in one family":       {said{IPv4: wire.Busy, IPv6: wire.Opened}, nil, 2},
		"clock off, and off again": {said{IPv4: wire.ClockOff, IPv6: wire.ClockOff}, &StatusError{wire.ClockOff}, 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				s.router.decide = func(_ int, m wire.Message) wire.Answer {
					return wire.Answer{Status: tt.said[familyOf(m.Address)]}
				}
				out, _ := s.open(t, nil, "nas")
				err := out[0].Err()
				var got, want *StatusError
				if errors.As(err, &got) != errors.As(tt.want, &want) || want != nil && *got != *want || (err == nil) != (tt.want == nil) {
					t.Errorf("error %v, want %v", err, tt.want)
				}
				if n := len(s.router.arrivals()); n != tt.packets {
					t.Errorf("%d packets, want %d", n, tt.packets)
				}
			})
		})
	}
}

func TestBusyIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.router.decide = func(n int, m wire.Message) wire.Answer {
			if n < 3 {
				return wire.Answer{Status: wire.Busy}
			}
			return grant(m)
		}
		out, took := s.open(t, func(r *Request) { r.Only = IPv6 }, "nas")
		if out[0].Err() != nil || took < time.Second {
			t.Errorf("%+v after %v; a busy router needs its pause", out, took)
		}
	})
}

func TestBusyAtTheEndIsNotWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.router.decide = func(int, wire.Message) wire.Answer { return wire.Answer{Status: wire.Busy} }
		if _, took := s.open(t, func(r *Request) { r.Only = IPv6 }, "nas"); took > 1700*time.Millisecond {
			t.Errorf("waited %v after the last busy", took)
		}
	})
}

func TestNoAnswerWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.system.unsync = true // no hello for somebody who wants no answers
		out, took := s.open(t, func(r *Request) { r.NoAnswer = true }, "nas", "ssh")
		synctest.Wait()
		time.Sleep(rtt)
		if took != 0 || out[0].Err() != nil || out[0].Best().Answered {
			t.Errorf("%+v after %v", out, took)
		}
		got := s.router.arrivals()
		if len(got) != 4 || slices.ContainsFunc(got, func(a arrival) bool { return a.WantAnswer }) {
			t.Errorf("arrived: %+v", got)
		}
		if s.record(t).Known {
			t.Error("learned from nothing")
		}
	})
}

func TestNoAnswerWantedAndNoWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		down := errors.New("network is unreachable")
		s.world.paths[home4].noDial, s.world.paths[home6].write = down, func(int) error { return down }
		if out, _ := s.open(t, func(r *Request) { r.NoAnswer = true }, "nas"); !errors.Is(out[0].Err(), down) {
			t.Errorf("%v", out[0].Err())
		}
	})
}

func TestNoAnswerWantedWaitsForTheSlowerFamilyToLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.world.slow[IPv6] = 900 * time.Millisecond
		s.open(t, func(r *Request) { r.NoAnswer = true }, "nas")
		time.Sleep(rtt)
		if n := len(s.router.arrivals()); n != 2 {
			t.Errorf("%d packets, want 2", n)
		}
	})
}

func TestServicesShareTheResolution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.router.decide = func(_ int, m wire.Message) wire.Answer {
			if m.Service == wire.ServiceIDOf("ssh") {
				return wire.Answer{Status: wire.Denied}
			}
			return grant(m)
		}
		out, took := s.open(t, nil, "nas", "ssh", "photos")
		if out[0].Err() != nil || out[1].Err() == nil || out[2].Err() != nil || took != rtt {
			t.Errorf("%+v after %v", out, took)
		}
		times := make(map[int64]bool)
		for _, a := range s.router.arrivals() {
			times[a.TimeMS] = true
		}
		if len(times) != 6 {
			t.Errorf("%d times in packets, want 6", len(times))
		}
		if got := s.world.lookups; len(got) != 3 || strings.Count(strings.Join(got, " "), "home.example.net") != 2 {
			t.Errorf("look-ups: %v", got)
		}
	})
}

func TestCloseOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		floor := int64(0) // an accepted close makes the router deaf to all earlier packets
		s.router.decide = func(_ int, m wire.Message) wire.Answer {
			if m.TimeMS < floor {
				return wire.Answer{Status: noReply}
			}
			floor = m.TimeMS
			return grant(m)
		}
		out, took := s.open(t, func(r *Request) { r.Op = wire.OpClose }, "nas", "ssh", "photos")
		for _, o := range out {
			if o.Err() != nil || o.Best().Status != wire.Closed {
				t.Errorf("%+v", o)
			}
		}
		if took != 3*rtt {
			t.Errorf("took %v, want a round trip for each", took)
		}
	})
}

func TestAddressesPerFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		third := netip.MustParseAddr("198.51.100.3")
		gone := netip.MustParseAddr("198.51.100.2")
		s.world.names["home.example.net"] = []netip.Addr{gone, home4, third}
		s.world.paths[third] = &path{router: s.router}
		out, took := s.open(t, nil, "nas")
		if out[0].Err() != nil || took != rtt || out[0].Best().Router.Addr() != home4 {
			t.Errorf("%+v after %v", out, took)
		}
		if n := len(s.router.arrivals()); n != 1 {
			t.Errorf("%d packets arrived: the third address was knocked at too", n)
		}
	})
}

func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.silent(home4, home6)
		ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
		defer cancel()
		start := time.Now()
		out, err := s.Knock(ctx, Request{Router: s.home(), Services: []string{"nas"}})
		if err != nil || !errors.Is(out[0].Err(), context.DeadlineExceeded) {
			t.Errorf("%v, %v", out, err)
		}
		if took := time.Since(start); took != 700*time.Millisecond {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestBadRequests(t *testing.T) {
	s := newScene(t)
	tests := map[string]Request{
		"name":         {Router: s.home(), Services: []string{"NAS"}},
		"ttl":          {Router: s.home(), Services: []string{"nas"}, TTL: 65536 * time.Second},
		"part second":  {Router: s.home(), Services: []string{"nas"}, TTL: 1500 * time.Millisecond},
		"ttl of close": {Router: s.home(), Services: []string{"nas"}, Op: wire.OpClose, TTL: time.Second},
		"op":           {Router: s.home(), Services: []string{"nas"}, Op: wire.OpHello},
		"address":      {Router: Router{Addr: "home", Key: s.home().Key}, Services: []string{"nas"}},
		"family":       {Router: Router{Addr: "192.0.2.1:1", Key: s.home().Key}, Services: []string{"nas"}, Only: IPv6},
	}
	for name, r := range tests {
		t.Run(name, func(t *testing.T) {
			if out, err := s.Knock(context.Background(), r); err == nil {
				t.Errorf("accepted: %v", out)
			}
		})
	}
	if len(s.world.lookups) > 0 {
		t.Error("asked the network about a bad request")
	}
}

func TestKnockMakesNoKey(t *testing.T) {
	s := newScene(t)
	if err := os.Remove(s.keyFile()); err != nil {
		t.Fatal(err)
	}
	_, err := s.Knock(context.Background(), Request{Router: s.home(), Services: []string{"nas"}})
	if !errors.As(err, new(*ConfigError)) || !strings.Contains(err.Error(), "knock enroll") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(s.keyFile()); err == nil {
		t.Error("a key was made that no router knows")
	}
}
