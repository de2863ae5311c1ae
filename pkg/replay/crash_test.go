package replay

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"spad/keys"
)

// story spends times of several devices and returns those that were fresh, with the
// length that the journal had when each was answered.
func story(r *router) (fresh []answered) {
	spend := func(k keys.DevicePublic, at int64) {
		v, err := r.Spend(k, at)
		if err != nil {
			r.t.Fatal(err)
		}
		if v == Fresh {
			info, err := os.Stat(r.opts.Path)
			if err != nil {
				r.t.Fatal(err)
			}
			fresh = append(fresh, answered{k, at, info.Size()})
		}
	}
	for i := range int64(20) {
		r.run(700 * time.Millisecond)
		now := r.NowMS()
		spend(alice, now-i)
		spend(bob, now+1+i) // ahead of the clock
		spend(bob, now+100_000)
		if i%7 == 3 {
			_ = r.Raise(alice, now)
			_ = r.Save()
		}
	}
	return fresh
}

// answered is a time that was answered Fresh.
type answered struct {
	key  keys.DevicePublic
	time int64
	size int64
}

// TestCutAtEveryByte cuts a journal at every byte. After a crash a file may lack what
// was not answered yet, and for that no time is fresh again, ever. A file may even
// lack what was answered: then it is the start floor that refuses all that is not
// ahead of the clock.
func TestCutAtEveryByte(t *testing.T) {
	for _, clean := range []bool{false, true} {
		r := newRouter(t, nil, alice, bob)
		fresh := story(r)
		if len(fresh) < 30 {
			t.Fatalf("only %d were fresh", len(fresh))
		}
		if clean {
			r.stop()
		}
		whole, err := os.ReadFile(r.opts.Path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(whole) {
			r.disk = &fakeDisk{data: bytes.Clone(whole[:n])}
			r.restart()
			now := r.NowMS()
			for _, a := range fresh {
				lost := a.size > int64(n)
				if v, err := r.Spend(a.key, a.time); err != nil || v == Fresh && !(lost && a.time > now) {
					t.Fatalf("cut at %d of %d: noon%+d, written by %d: %v, %v", n, len(whole), a.time-noon, a.size, v, err)
				}
			}
			r.spends(alice, now+50_000, Fresh)
		}
	}
}

// TestCutAndClockLost cuts the journal only where a crash can, and takes the clock away.
func TestCutAndClockLost(t *testing.T) {
	r := newRouter(t, nil, alice, bob)
	fresh := story(r)
	whole, err := os.ReadFile(r.opts.Path)
	if err != nil {
		t.Fatal(err)
	}
	r.system, r.mono = 0, 0
	for n := fresh[0].size; n <= int64(len(whole)); n++ {
		r.disk = &fakeDisk{data: bytes.Clone(whole[:n])}
		r.restart()
		for _, a := range fresh {
			if v, err := r.Spend(a.key, a.time); err != nil || v == Fresh && a.size <= n {
				t.Fatalf("cut at %d of %d: noon%+d: %v, %v", n, len(whole), a.time-noon, v, err)
			}
		}
	}
}

// TestDamageAnywhere flips a bit in every block of a cleanly closed journal: what stands
// before it is kept, the rest is not trusted, and the start is not a clean one.
func TestDamageAnywhere(t *testing.T) {
	r := newRouter(t, nil, alice, bob)
	fresh := story(r)
	r.stop()
	whole, err := os.ReadFile(r.opts.Path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 5; at < len(whole); at += blockSize {
		r.log.Reset()
		d := &fakeDisk{data: bytes.Clone(whole)}
		d.data[at] ^= 0x10
		r.disk = d
		r.restart()
		now := r.NowMS()
		for _, a := range fresh {
			lost := a.size > int64(at)
			if v, err := r.Spend(a.key, a.time); err != nil || v == Fresh && !(lost && a.time > now) {
				t.Fatalf("byte %d: noon%+d, written by %d: %v, %v", at, a.time-noon, a.size, v, err)
			}
		}
		if !strings.Contains(r.log.String(), "damaged") {
			t.Fatalf("byte %d: log %q does not say that it is damaged", at, r.log)
		}
	}
}

func TestLoadEndings(t *testing.T) {
	clock, clean := record{kind: kindClock, save: 7}.encode(nil), record{kind: kindClean, save: 9}.encode(nil)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name  string
		data  []byte
		want  string // the trouble; "" is a clean end
		saved int64
	}{
		{"empty", nil, "cut short at byte 0", 0},
		{"half a header", header(1)[:30], "cut short at byte 30", 0},
		{"header alone", header(1), killed, 0},
		{"zeros", make([]byte, 256), "header is damaged", 0},
		{"clean", join(header(1), clock, clean), "", 9},
		{"not clean", join(header(1), clock), killed, 7},
		{"half a mark", join(header(1), clock, clean[:63]), "cut short at byte 191", 7},
		{"zeros after a record", join(header(1), clock, make([]byte, 64), clean), "damaged at byte 128: checksum", 7},
		{"a record after the mark", join(header(1), clean, clock), "damaged at byte 128: a record after", 9},
		{"a header in the middle", join(header(1), clock, header(1)), "damaged at byte 128: not a record", 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab, end, err := load(bytes.NewReader(c.data))
			if err != nil || end.clean != (c.want == "") || !strings.Contains(end.trouble, c.want) || tab.saved != c.saved {
				t.Errorf("%+v, saved %d, %v; want %q and %d", end, tab.saved, err, c.want, c.saved)
			}
		})
	}
}

// FuzzLoad gives load a good journal, cut and with anything after it. It never panics,
// and keeps what the good part says.
func FuzzLoad(f *testing.F) {
	tab := newTable()
	for i := range int64(40) {
		tab.spend(key{byte(i % 3)}, 1000+i, 1000, 30)
	}
	good := tab.snapshot()
	seeds := [][]byte{nil, {1, 2, 3}, record{kind: kindClean}.encode(nil), sample.encode(nil), make([]byte, 200)}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(len(good), s)
		f.Add(130, s)
		f.Add(0, s)
	}
	f.Fuzz(func(t *testing.T, n int, rest []byte) {
		n = max(0, min(n, len(good)))
		prefix, _, err := load(bytes.NewReader(good[:n]))
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := load(bytes.NewReader(append(bytes.Clone(good[:n]), rest...)))
		if err != nil {
			if _, version := err.(errVersion); version && n < blockSize {
				return
			}
			t.Fatal(err)
		}
		for k, w := range prefix.windows {
			for _, s := range append(w.spent, w.floor) {
				if got.windows[k].judge(s, 1000, 1<<40) != Refused {
					t.Fatalf("cut at %d, then %x: %d of %x is forgotten", n, rest, s, k[0])
				}
			}
			if got.windows[k].start < w.start || got.saved < prefix.saved {
				t.Fatalf("cut at %d, then %x: a floor or the clock fell", n, rest)
			}
		}
	})
}
