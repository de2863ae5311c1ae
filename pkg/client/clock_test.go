package client

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"spad/keys"
	"spad/pkg/wire"
)

const year = 365 * 24 * time.Hour

func TestWrongClocks(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"years ahead": 5 * year, "years behind": -5 * year, "back in 1970": -29 * year, "before 1970": -40 * year,
		"just outside": 61 * time.Second, "an hour behind": -time.Hour, "beyond the packet": 290 * year,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				s.system.skew = skew
				out, took := s.open(t, nil, "nas", "ssh")
				if out[0].Err() != nil || out[1].Err() != nil || took != 2*rtt {
					t.Errorf("%+v after %v, want opened after two round trips", out, took)
				}
				if s.router.refused != 0 {
					t.Errorf("%d packets had a time that was spent", s.router.refused)
				}
				s.router.forget()
				if out, took = s.open(t, nil, "nas"); out[0].Err() != nil || took != rtt {
					t.Errorf("the second time: %+v after %v, want the offset to be known", out, took)
				}
			})
		})
	}
}

func TestClockJumpsBetweenKnocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		for _, skew := range []time.Duration{0, year, -year, 0, 59 * time.Second, -59 * time.Second, 3 * year, 0} {
			s.system.skew = skew
			time.Sleep(time.Second)
			if out, took := s.open(t, nil, "nas"); out[0].Err() != nil || took > 2*rtt {
				t.Errorf("clock off by %v: %+v after %v", skew, out, took)
			}
		}
		if s.router.refused != 0 {
			t.Errorf("%d packets had a time that was spent", s.router.refused)
		}
	})
}

func TestHelloFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.system.unsync, s.system.skew = true, -20*year
		only4 := func(r *Request) { r.Only = IPv4 }
		knock := func(want ...wire.Op) {
			t.Helper()
			s.router.forget()
			if out, _ := s.open(t, only4, "nas"); out[0].Err() != nil {
				t.Errorf("%+v", out)
			}
			if diff := cmp.Diff(want, s.router.ops()); diff != "" {
				t.Error(diff)
			}
		}
		knock(wire.OpHello, wire.OpOpen)
		if a := s.router.arrivals()[0]; a.Address.IsValid() || a.Service != (wire.ServiceID{}) {
			t.Errorf("hello says too much: %+v", a.Message)
		}
		knock(wire.OpOpen)
		s.system.boot, s.system.skew = "second", -19*year
		knock(wire.OpHello, wire.OpOpen)
		knock(wire.OpOpen)
		s.system.boot = "" // a system that can't say counts as just booted
		knock(wire.OpHello, wire.OpOpen)
		s.system.boot, s.system.unsync = "third", false
		knock(wire.OpOpen)
	})
}

func TestHelloWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.system.unsync = true
		s.router.decide = func(int, wire.Message) wire.Answer { return wire.Answer{Status: noReply} }
		out, took := s.open(t, nil, "nas", "ssh")
		if !errors.Is(out[0].Err(), ErrNoAnswer) || !errors.Is(out[1].Err(), ErrNoAnswer) || took > 3300*time.Millisecond {
			t.Errorf("%+v after %v", out, took)
		}
		if got := out[0].Err().Error(); got != "no answer (IPv4 and IPv6)" {
			t.Errorf("%q", got)
		}
		for _, op := range s.router.ops() {
			if op != wire.OpHello {
				t.Errorf("a knock with a clock that can't be right: %v", op)
			}
		}
	})
}

func newMemory(t *testing.T) (*memory, *fakeSystem) {
	f, err := openFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeSystem{boot: "b"}
	r := newFakeRouter(t)
	return &memory{folder: f, system: s, device: keys.NewDeviceSecret([32]byte{1}).Public(), router: r.secret.Public()}, s
}

func TestLearn(t *testing.T) {
	const now = 946684800000 // the bubble's clock
	tests := map[string]struct {
		before record
		stamp  stamp
		status wire.Status
		router int64
		want   record
	}{
		"opened": {
			record{Last: 50},
			stamp{50, 0},
			wire.Opened, now + 1000,
			record{Known: true, Boot: "b", Offset: 1010, Last: 50, Answered: 50},
		},
		"a late answer keeps the highest": {
			record{Last: 60, Answered: 60},
			stamp{50, 0},
			wire.Denied, now,
			record{Known: true, Boot: "b", Offset: 10, Last: 60, Answered: 60},
		},
		"clock off, device ahead": {
			record{Last: now + 1e9},
			stamp{now + 1e9, 0},
			wire.ClockOff, now,
			record{Known: true, Boot: "b", Offset: 10, Last: now, Era: 1},
		},
		"clock off, device behind": {
			record{Last: 50},
			stamp{50, 0},
			wire.ClockOff, now,
			record{Known: true, Boot: "b", Offset: 10, Last: now, Era: 1},
		},
		"never below an answered time": {
			record{Last: now + 1e9, Answered: now + 7},
			stamp{now + 1e9, 0},
			wire.ClockOff, now,
			record{Known: true, Boot: "b", Offset: 10, Last: now + 7, Answered: now + 7, Era: 1},
		},
		"only one adoption for packets of one era": {
			record{Last: now + 5, Era: 1},
			stamp{now + 1e9, 0},
			wire.ClockOff, now,
			record{Known: true, Boot: "b", Offset: 10, Last: now + 5, Era: 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, _ := newMemory(t)
				if err := m.update(context.Background(), func(r *record) error {
					*r = tt.before
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				err := m.learn(context.Background(), tt.stamp, reading{tt.status, tt.router, time.Now(), 20 * time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				c, err := m.load()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, c.own); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestNextIsAboveAllThatWasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newMemory(t)
		ahead := time.Now().UnixMilli() + 5000
		if err := m.update(context.Background(), func(r *record) error { r.Answered = ahead; return nil }); err != nil {
			t.Fatal(err)
		}
		if s, err := m.next(context.Background()); err != nil || s.ms != ahead+1 {
			t.Errorf("next = %+v, %v; want %d", s, err, ahead+1)
		}
	})
}

func TestClockAtItsEnd(t *testing.T) {
	m, _ := newMemory(t)
	if err := m.update(context.Background(), func(r *record) error { r.Last = 1<<48 - 1; return nil }); err != nil {
		t.Fatal(err)
	}
	if s, err := m.next(context.Background()); err == nil {
		t.Errorf("a time that no packet can carry: %+v", s)
	}
}

func TestMemoryIsPerRouterAndKey(t *testing.T) {
	m, s := newMemory(t)
	s.skew = year
	first, err := m.next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.skew = 0
	other := *m
	other.router = newFakeRouter(t).secret.Public()
	otherKey := *m
	otherKey.device = keys.NewDeviceSecret([32]byte{2}).Public()
	for _, m := range []*memory{&other, &otherKey} {
		if got, err := m.next(context.Background()); err != nil || got.ms >= first.ms {
			t.Errorf("%+v, %v: another's memory was used", got, err)
		}
	}
	if got, err := m.next(context.Background()); err != nil || got.ms != first.ms+1 {
		t.Errorf("%+v, %v, want one above %+v", got, err, first)
	}
}

// TestTimesAcrossProcesses has processes take times from one folder at once.
func TestTimesAcrossProcesses(t *testing.T) {
	m, _ := newMemory(t)
	const processes, each = 4, 25
	var mu sync.Mutex
	seen := make(map[int64]bool)
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "TAKE_TIMES="+m.folder.path, "TAKE_ROUTER="+m.router.String(), "TAKE="+strconv.Itoa(each))
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("child: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			last := int64(0)
			for _, f := range strings.Fields(string(out)) {
				n, err := strconv.ParseInt(f, 10, 64)
				if err != nil || seen[n] || n <= last {
					t.Errorf("time %q after %d: used before, or %v", f, last, err)
				}
				seen[n], last = true, n
			}
		})
	}
	wg.Wait()
	if len(seen) != processes*each {
		t.Errorf("%d times, want %d", len(seen), processes*each)
	}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("TAKE_TIMES"); dir != "" {
		os.Exit(takeTimes(dir))
	}
	goleak.VerifyTestMain(m)
}

// takeTimes is a child of TestTimesAcrossProcesses. Its clock stands still, so that
// only the memory keeps the times apart.
func takeTimes(dir string) int {
	f, err := openFolder(dir)
	if err != nil {
		return 1
	}
	router, err := keys.ParseRouterPublic(os.Getenv("TAKE_ROUTER"))
	if err != nil {
		return 1
	}
	n, _ := strconv.Atoi(os.Getenv("TAKE"))
	m := &memory{folder: f, system: stopped{}, device: keys.NewDeviceSecret([32]byte{1}).Public(), router: router}
	for range n {
		s, err := m.next(context.Background())
		if err != nil {
			return 1
		}
		os.Stdout.WriteString(strconv.FormatInt(s.ms, 10) + "\n")
	}
	return 0
}

type stopped struct{ machine }

func (stopped) Now() time.Time { return time.UnixMilli(1_700_000_000_000) }

func TestMemoryDamaged(t *testing.T) {
	tests := map[string]func(path string) error{
		"cut":       func(p string) error { return os.WriteFile(p, []byte("knock clo"), 0o600) },
		"no words":  func(p string) error { return os.WriteFile(p, []byte(clocksHead+"x\n"), 0o600) },
		"empty":     func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"later":     func(p string) error { return os.WriteFile(p, []byte("knock clocks 3\n"), 0o600) },
		"too large": func(p string) error { return os.WriteFile(p, make([]byte, maxFile+1), 0o600) },
		"a folder":  func(p string) error { return os.Mkdir(p, 0o700) },
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			m, s := newMemory(t)
			if err := damage(m.path()); err != nil {
				t.Fatal(err)
			}
			_, err := m.next(context.Background())
			if !errors.As(err, new(*ConfigError)) || !strings.Contains(err.Error(), m.path()) {
				t.Errorf("error %v, want one that names the file", err)
			}
			s.unsync = true
			if _, err := m.lost(context.Background()); err == nil {
				t.Error("lost read it all the same")
			}
		})
	}
}

func TestMemoryHasNoNumber(t *testing.T) {
	m, _ := newMemory(t)
	if _, err := m.next(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(m.path())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path(), bytes.Replace(data, []byte(" 0 "), []byte(" x "), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.next(t.Context()); !errors.As(err, new(*ConfigError)) {
		t.Errorf("error %v", err)
	}
}

// Wherever a crash cuts the last line short, no time comes back that was on disk, and the memory goes on.
func TestMemoryCutShort(t *testing.T) {
	m, _ := newMemory(t)
	m.system = stopped{}
	var before, last stamp
	for range 3 {
		s, err := m.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before, last = last, s
	}
	data, err := os.ReadFile(m.path())
	if err != nil {
		t.Fatal(err)
	}
	start := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
	for n := start; n <= len(data); n++ {
		if err := os.WriteFile(m.path(), data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		floor := before.ms
		if n == len(data) {
			floor = last.ms
		}
		for range 2 {
			s, err := m.next(t.Context())
			if err != nil || s.ms <= floor {
				t.Fatalf("cut at %d of %d: time %d, want more than %d; %v", n, len(data), s.ms, floor, err)
			}
			floor = s.ms
		}
	}
}

// The file stays small, however often one knocks, and loses nothing when it is replaced.
func TestMemoryStaysSmall(t *testing.T) {
	m, _ := newMemory(t)
	m.system = stopped{}
	other := *m
	other.router = newFakeRouter(t).secret.Public()
	kept, err := other.next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	for range 200 {
		s, err := m.next(t.Context())
		if err != nil || s.ms <= last {
			t.Fatalf("%d after %d: %v", s.ms, last, err)
		}
		last = s.ms
		if info, err := os.Stat(m.path()); err != nil || info.Size() > renewAt {
			t.Fatalf("%v, %v", info.Size(), err)
		}
	}
	if s, err := other.next(t.Context()); err != nil || s.ms <= kept.ms {
		t.Errorf("%d after %d: %v", s.ms, kept.ms, err)
	}
}

func TestDamagedMemoryStopsTheKnock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		if err := os.WriteFile(s.folder.file("clocks"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s.system.unsync = range []bool{false, true} {
			out, took := s.open(t, nil, "nas")
			if !errors.As(out[0].Err(), new(*ConfigError)) || took != 0 {
				t.Errorf("%v after %v", out[0].Err(), took)
			}
		}
		if len(s.router.arrivals()) > 0 {
			t.Error("a packet left before its time was on disk")
		}
	})
}

func TestMemoryFailsBetweenClockOffAndRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.router.decide = func(int, wire.Message) wire.Answer {
			if err := os.WriteFile(s.folder.file("clocks"), []byte("x"), 0o600); err != nil {
				t.Error(err)
			}
			return wire.Answer{Status: wire.ClockOff}
		}
		out, _ := s.open(t, func(r *Request) { r.Only = IPv4 }, "nas")
		if !errors.As(out[0].Err(), new(*ConfigError)) || len(s.router.arrivals()) != 1 {
			t.Errorf("%v", out[0].Err())
		}
	})
}
