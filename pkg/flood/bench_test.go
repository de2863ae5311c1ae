package flood

import (
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkTake takes for ever new sources from all cores at once. At 100 ns, one
// mutex costs one hundredth of a core at 100,000 packets a second.
func BenchmarkTake(b *testing.B) {
	budget := NewBudget(Limits{Source: Rate{10, 32}, Global: Rate{1e9, 1 << 30}, ReservedShare: 0.25})
	var n atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			budget.Take(time.Duration(i)*time.Microsecond, spoofed(i))
		}
	})
}

// BenchmarkTakeOverBudget is what a packet costs when there is nothing left.
func BenchmarkTakeOverBudget(b *testing.B) {
	budget, n := NewBudget(DefaultLimits()), uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		budget.Take(0, spoofed(n))
	}
}

// BenchmarkSeen adds ever new values from all cores at once.
func BenchmarkSeen(b *testing.B) {
	seen := NewSeen()
	var n atomic.Uint64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			seen.Add(n.Add(1))
		}
	})
}
