package session

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"spad/pkg/firewall"
)

// idle is a firewall that takes no time.
type idle struct{ firewall.Backend }

func (idle) Apply(firewall.Ruleset, []firewall.Door) error { return nil }
func (idle) Open(...firewall.Door) error                   { return nil }
func (idle) Shut(...firewall.Door) error                   { return nil }

// device opens a service from its own address.
func device(i int) Opening {
	a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return Opening{
		Device: fmt.Sprint("device", i), Key: "0123456789abcdef", Service: "ssh", Source: netip.PrefixFrom(a, 32),
		TTL: time.Hour + time.Duration(i*7919%100_000)*time.Millisecond, By: "knock", TimeMS: 1,
	}
}

// filled is a table of n sessions that no goroutine owns: the benchmark does.
func filled(b *testing.B, n int) *Table {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	t := New(Options{
		Backend: idle{}, File: filepath.Join(b.TempDir(), "sessions"), BootID: "boot", Now: func() time.Duration { return time.Hour },
	})
	if err := t.Start(rules, all); err != nil {
		b.Fatal(err)
	}
	for i := range n {
		if _, err := t.open(device(i)); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = t.file.close() })
	return t
}

// BenchmarkTable compares what one change costs among 100,000 sessions with what it costs among 100.
func BenchmarkTable(b *testing.B) {
	const few, many = 100, 100_000
	next := int64(1)
	for _, c := range []struct {
		name string
		do   func(t *Table, n int) error
	}{
		{"open and close", func(t *Table, n int) error {
			next++
			o := device(n)
			o.TimeMS = next
			if _, err := t.open(o); err != nil {
				return err
			}
			found := t.selected(Selection{Device: o.Device, Key: o.Key, Service: o.Service, Source: o.Source, Own: true, TimeMS: o.TimeMS})
			if len(found) != 1 {
				return fmt.Errorf("found %d to close", len(found))
			}
			return t.end("knock", found...)
		}},
		{"renew", func(t *Table, n int) error {
			next++
			o := device(int(next*7919) % n)
			o.TimeMS = next
			_, err := t.open(o)
			return err
		}},
		{"expire", func(t *Table, n int) error {
			o := device(n)
			o.TTL = 0
			if _, err := t.open(o); err != nil {
				return err
			}
			before := t.len()
			if t.expire(); t.len() != before-1 {
				return fmt.Errorf("%d of %d are left", t.len(), before)
			}
			return nil
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			tables := map[int]*Table{few: filled(b, few), many: filled(b, many)}
			took := map[int][]float64{}
			for b.Loop() {
				for n, t := range tables {
					start := time.Now()
					if err := c.do(t, n); err != nil {
						b.Fatal(err)
					}
					took[n] = append(took[n], float64(time.Since(start)))
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(took[many]), "ns/change")
			b.ReportMetric(median(took[many])/median(took[few]), "many/few")
		})
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkAll is what goes through all of 100,000 sessions.
func BenchmarkAll(b *testing.B) {
	t := filled(b, 100_000)
	file, err := os.ReadFile(t.file.path)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("retain", func(b *testing.B) {
		go func() {
			for job := range t.jobs {
				job()
			}
		}()
		for b.Loop() {
			if err := t.Retain(all, "expiry"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if list, _, err := t.List(); err != nil || len(list) != 100_000 {
				b.Fatal(len(list), err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if found, err := t.file.load(); err != nil || len(found) != 100_000 {
				b.Fatal(len(found), err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			if err := os.WriteFile(t.file.path, file, 0o600); err != nil {
				b.Fatal(err)
			}
			again := New(Options{Backend: idle{}, File: t.file.path, BootID: "boot", Now: t.now})
			if err := again.Start(rules, all); err != nil || again.len() != 100_000 {
				b.Fatal(again.len(), err)
			}
			_ = again.file.close()
		}
	})
	b.Run("rewrite", func(b *testing.B) {
		for b.Loop() {
			if err := t.file.rewrite(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
