package nftables

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

// wide is a ruleset with so many services, and doors spread over them.
func wide(services, count int) (firewall.Ruleset, []firewall.Door) {
	r := firewall.Ruleset{Mark: 1}
	for i := range services {
		port := uint16(1000 + i)
		r.Services = append(r.Services, firewall.Service{
			Name: fmt.Sprintf("s%d", i), Open: []firewall.Ports{{Proto: firewall.TCP, First: port, Last: port}},
		})
	}
	all := doors(count)
	for i := range all {
		all[i].Service = r.Services[i%services].Name
	}
	return r, all
}

// BenchmarkRenew compares the renewal of a door where it is the only one with the same among many.
func BenchmarkRenew(b *testing.B) {
	var kernels []*Backend
	var names []string
	for _, c := range []struct{ services, doors int }{{1, 1}, {1, 100_000}, {1000, 100_000}} {
		k := connect(b, firewalltest.NewLab(b))
		if err := k.Apply(wide(c.services, c.doors)); err != nil {
			b.Fatal(err)
		}
		kernels, names = append(kernels, k), append(names, fmt.Sprintf("%d-services-%d-doors", c.services, c.doors))
	}
	took := make([][]float64, len(kernels))
	door := firewall.Door{Service: "s0", Source: netip.MustParsePrefix("10.0.0.0/32"), TTL: time.Hour}
	for b.Loop() {
		for i, k := range kernels {
			start := time.Now()
			if err := k.Open(door); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], float64(time.Since(start)))
		}
	}
	median := func(i int) float64 { return slices.Sorted(slices.Values(took[i]))[len(took[i])/2] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(0), "ns/renewal")
	for i := range kernels[1:] {
		b.ReportMetric(median(i+1)/median(0), names[i+1]+"/one")
	}
}

// BenchmarkWide is what goes through all of 100,000 doors.
func BenchmarkWide(b *testing.B) {
	for _, services := range []int{1, 1000} {
		k := connect(b, firewalltest.NewLab(b))
		r, all := wide(services, 100_000)
		if err := k.Apply(r, all); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("apply/%d", services), func(b *testing.B) {
			cpu := func() time.Duration {
				var u unix.Rusage
				_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
				return time.Duration(u.Utime.Nano() + u.Stime.Nano())
			}
			start := cpu()
			for b.Loop() {
				if err := k.Apply(r, all); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu()-start).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
		b.Run(fmt.Sprintf("list/%d", services), func(b *testing.B) {
			for b.Loop() {
				if got, err := k.Doors(); err != nil || len(got) != len(all) {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}
