package replay

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkSpend compares spending, one caller at a time, with the least that can be
// done for it: appending a block to a file and waiting for the disk. It does both in
// turns and reports their ratio.
func BenchmarkSpend(b *testing.B) {
	dir := b.TempDir()
	j, err := Open(Options{Path: filepath.Join(dir, "journal"), System: func() time.Time { return time.UnixMilli(noon) }})
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, blockSize)
	var spent, bare time.Duration
	for i := int64(0); b.Loop(); i++ {
		t0 := time.Now()
		if v, err := j.Spend(alice, noon-59_000+i); v != Fresh {
			b.Fatal(v, err)
		}
		t1 := time.Now()
		if _, err := f.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := fdatasync(f); err != nil {
			b.Fatal(err)
		}
		spent, bare = spent+t1.Sub(t0), bare+time.Since(t1)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "spend-ns/op")
	b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N), "bare-ns/op")
	b.ReportMetric(float64(spent)/float64(bare), "ratio")
}

// BenchmarkSpendTogether has eight callers share what they wait for.
func BenchmarkSpendTogether(b *testing.B) {
	j, err := Open(Options{Path: filepath.Join(b.TempDir(), "journal")})
	if err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	next.Store(time.Now().UnixMilli() - 50_000)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := j.Spend(alice, next.Add(1)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWindow is the work of Spend without disk and lock, the memory being full.
func BenchmarkWindow(b *testing.B) {
	tab, k := newTable(), key{1}
	for i := int64(0); b.Loop(); i++ {
		tab.spend(k, noon+i, noon+i, 60_000)
	}
}
