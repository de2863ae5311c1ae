package firewalltest

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

// How wide the wide routers are, and how many packets each round of measuring sends.
const (
	wideDoors    = 100_000
	wideServices = 1_000
	benchPort    = 20_000 // of the first service; each further one has the next
	perRound     = 200
	perCall      = 100
)

// BenchmarkPackets measures what a packet costs a router's kernel: with one service and one door, with 100,000 doors,
// with 1,000 services, and with both. The routers stand side by side and each round sends to each of them. What counts
// is the tenth of the rounds that was least disturbed, and its ratio to the router with one service and one door: of
// the whole way (a veth link, connection tracking, the guard), and of the guard's own part, which is what is above a
// router without a guard. Packets end behind the guard or in it, so that no socket is measured.
func BenchmarkPackets(b *testing.B, factory Factory) {
	l := NewLab(b)
	stranger := netip.MustParseAddr("203.0.113.11")
	l.check(l.Laptop.AddAddr(stranger))
	routers := []*benchRouter{
		newBenchRouter(l, "bare", nil, 0, 0),
		newBenchRouter(l, "one", factory, 1, 1),
		newBenchRouter(l, "doors", factory, 1, wideDoors),
		newBenchRouter(l, "services", factory, wideServices, 1),
		newBenchRouter(l, "both", factory, wideServices, wideDoors),
	}
	ways := []struct {
		name string
		from netip.Addr
		port int
		ends bool // in the guard
	}{
		{"door", l.Laptop.IP4, benchPort + 1, false},
		{"no-door", stranger, benchPort + 1, true},
		{"no-service", l.Laptop.IP4, 9, false},
	}
	runtime.LockOSThread() // the kernel works on a packet where it is sent
	defer runtime.UnlockOSThread()
	for _, w := range ways {
		b.Run(w.name, func(b *testing.B) {
			for _, r := range routers {
				r.aim(b, l.Laptop, w.from, w.port)
			}
			for b.Loop() {
				for _, r := range routers {
					r.round(b)
				}
			}
			for _, r := range routers {
				if passed := r.passed(b); passed != r.sent && !(w.ends && r.backend != nil && passed == 0) {
					b.Errorf("%s: of %d packets %d came through the guard", r.Name, r.sent, passed)
				}
			}
			report(b, routers)
		})
	}
}

func report(b *testing.B, routers []*benchRouter) {
	bare, one := routers[0].quiet(), routers[1].quiet()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(one, "ns/packet")
	b.ReportMetric(one-bare, "ns/guard")
	for _, r := range routers[2:] {
		b.ReportMetric(r.quiet()/one, r.Name+"/one")
		b.ReportMetric((r.quiet()-bare)/(one-bare), r.Name+"-guard/one-guard")
	}
}

// benchRouter is a router that drops all packets behind its guard.
type benchRouter struct {
	*Host
	backend firewall.Backend // nil: no guard
	sink    *nftables.Conn
	rule    *nftables.Rule

	packets *ipv4.PacketConn
	batch   []ipv4.Message
	sent    uint64
	before  uint64
	rounds  []float64 // ns a packet
}

// newBenchRouter puts a router beside the laptop's own link. The laptop has a door to every service.
func newBenchRouter(l *Lab, name string, factory Factory, services, doors int) *benchRouter {
	l.tb.Helper()
	l.links++
	r := &benchRouter{Host: l.AddHost(name, l.Laptop, fmt.Sprintf("198.51.100.%d", l.links), "")}
	l.check(r.drain())
	if factory == nil {
		return r
	}
	rules := firewall.Ruleset{Mark: testMark, KnockPort: knockPort}
	for i := range services {
		port := uint16(benchPort + i + 1)
		rules.Services = append(rules.Services, firewall.Service{
			Name: fmt.Sprintf("s%d", i), Open: []firewall.Ports{{Proto: firewall.UDP, First: port, Last: port}},
		})
	}
	var all []firewall.Door
	for i := range doors {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if i < services {
			a = l.Laptop.IP4
		}
		all = append(all, firewall.Door{
			Service: rules.Services[i%services].Name, Source: netip.PrefixFrom(a, 32), TTL: time.Hour,
		})
	}
	r.backend = factory(l.tb, r.Host)
	l.tb.Cleanup(func() { _ = r.backend.Close() })
	l.check(r.backend.Apply(rules, all))
	return r
}

// drain makes the rule that drops and counts what the guard lets through.
func (r *benchRouter) drain() (err error) {
	if r.sink, err = nftables.New(nftables.WithNetNSFd(r.NetNS())); err != nil {
		return err
	}
	table := r.sink.AddTable(&nftables.Table{Name: "sink", Family: nftables.TableFamilyINet})
	chain := r.sink.AddChain(&nftables.Chain{
		Name: "sink", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-105),
	})
	tracked := []expr.Any{ // in every router, so that all of them track connections
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
	r.rule = r.sink.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: tracked})
	return r.sink.Flush()
}

// passed returns how many packets came through the guard since aim.
func (r *benchRouter) passed(b *testing.B) uint64 { return r.counted(b) - r.before }

func (r *benchRouter) counted(b *testing.B) uint64 {
	b.Helper()
	rules, err := r.sink.GetRules(r.rule.Table, r.rule.Chain)
	if err != nil || len(rules) != 1 {
		b.Fatal(len(rules), err)
	}
	for _, e := range rules[0].Exprs {
		if c, ok := e.(*expr.Counter); ok {
			return c.Packets
		}
	}
	b.Fatal("the sink counts nothing")
	return 0
}

// aim prepares packets from an address to a port of the router.
func (r *benchRouter) aim(b *testing.B, laptop *Host, from netip.Addr, port int) {
	b.Helper()
	c, err := laptop.ListenPacket("udp4", netip.AddrPortFrom(from, 0).String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	r.packets, r.batch, r.rounds, r.sent = ipv4.NewPacketConn(c), nil, nil, 0
	for range perCall {
		r.batch = append(r.batch, ipv4.Message{
			Buffers: [][]byte{make([]byte, 64)}, Addr: &net.UDPAddr{IP: r.IP4.AsSlice(), Port: port},
		})
	}
	r.send(b)
	r.before, r.sent = r.counted(b), 0
}

// send sends a batch. The kernel has dealt with its packets when it returns.
func (r *benchRouter) send(b *testing.B) {
	n, err := r.packets.WriteBatch(r.batch, 0)
	if err != nil || n != len(r.batch) {
		b.Fatal(n, err)
	}
	r.sent += uint64(n)
}

func (r *benchRouter) round(b *testing.B) {
	start := time.Now()
	for range perRound / perCall {
		r.send(b)
	}
	r.rounds = append(r.rounds, float64(time.Since(start).Nanoseconds())/perRound)
}

// quiet returns how long a packet takes, in ns, in all rounds but the fastest tenth, at least: on a machine with other work
// medians of the guard's part alone vary by half, these by a twentieth.
func (r *benchRouter) quiet() float64 {
	sorted := slices.Sorted(slices.Values(r.rounds))
	return sorted[len(sorted)/10]
}
