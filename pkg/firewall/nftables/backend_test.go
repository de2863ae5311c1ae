package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
	"spad/pkg/firewall/firewalltest"
)

// script is a kernel that answers transactions as it is told to.
type script struct {
	answer func(batch int, messages []netlink.Message) error // batches count from 1 over all connections
	bytes  int

	batches [][]netlink.Message
	dials   int
	closed  int
}

func (s *script) commit(m []netlink.Message) error {
	s.batches = append(s.batches, m)
	if s.answer == nil {
		return nil
	}
	return s.answer(len(s.batches), m)
}

func (s *script) room() int {
	if s.bytes == 0 {
		return 1 << 20
	}
	return s.bytes
}
func (s *script) chains() ([]*nftables.Chain, error) { return nil, nil }
func (s *script) sets() ([]string, error)            { return nil, unix.ENOENT }
func (s *script) elements(string) ([]element, error) { return nil, nil }
func (s *script) generation() (uint32, error)        { return 1, nil }
func (s *script) port() uint32                       { return 1 }
func (s *script) close() error                       { s.closed++; return nil }
func (s *script) backend() *Backend                  { return &Backend{dial: s.dial} }
func (s *script) dial() (kernel, error)              { s.dials++; return s, nil }
func kinds(messages []netlink.Message) []netlink.HeaderType {
	var all []netlink.HeaderType
	for _, m := range messages[1 : len(messages)-1] {
		all = append(all, m.Header.Type&0xff)
	}
	return all
}

func contains(messages []netlink.Message, text string) bool {
	return slices.ContainsFunc(messages, func(m netlink.Message) bool { return strings.Contains(string(m.Data), text+"\x00") })
}

// failed is how netlink hands an error of the kernel over.
func failed(errno unix.Errno) error { return &netlink.OpError{Op: "receive", Err: errno} }

func rules() firewall.Ruleset {
	return firewall.Ruleset{
		Mark: 1 << 20, KnockPort: 41372, AlwaysAllow: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
		Services: []firewall.Service{
			{Name: "ssh", Open: []firewall.Ports{{Proto: firewall.TCP, First: 22, Last: 22}}, Guard: firewall.GuardReject},
			{Name: "9-p", Open: []firewall.Ports{{Proto: firewall.UDP, First: 60000, Last: 65535}}, IPv6Prefix: 56, Cut: true},
			{Name: "off", Open: []firewall.Ports{{Proto: firewall.TCP, First: 25, Last: 25}}, Guard: firewall.GuardOff, Cut: true},
			{Name: "nas", Cut: true, Forward: &firewall.Forward{
				Port: firewall.Ports{Proto: firewall.TCP, First: 7890, Last: 7890},
				To4:  netip.MustParseAddrPort("192.168.1.50:80"), To6: netip.MustParseAddrPort("[fd00:1::50]:80"),
			}},
		},
	}
}

func doors(n int) []firewall.Door {
	all := make([]firewall.Door, n)
	for i := range all {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		all[i] = firewall.Door{Service: "ssh", Source: netip.PrefixFrom(a, 32), TTL: time.Hour}
	}
	return all
}

func TestRetry(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		times int // how often it fails
		tries int
		ok    bool
	}{
		{"interrupted", failed(unix.EINTR), 2, 3, true},
		{"no buffer for the answer", failed(unix.ENOBUFS), 1, 2, true},
		{"an element expired in between", failed(unix.ENOENT), 1, 2, true},
		{"connection lost", unix.EBADF, 1, 2, true},
		{"no buffer, again and again", failed(unix.ENOBUFS), 99, 3, false},
		{"no capability", failed(unix.EPERM), 99, 1, false},
		{"no memory", failed(unix.ENOMEM), 99, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &script{}
			b := k.backend()
			if err := b.Apply(rules(), nil); err != nil {
				t.Fatal(err)
			}
			before := len(k.batches)
			k.answer = func(n int, _ []netlink.Message) error {
				if n-before <= c.times {
					return c.err
				}
				return nil
			}
			err := b.Open(doors(1)...)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, c.err) {
				t.Errorf("got %v", err)
			}
			if got := len(k.batches) - before; got != c.tries {
				t.Errorf("tried %d times, want %d", got, c.tries)
			}
			if lost := k.dials - 1; lost != min(c.tries, c.times) && c.ok || k.closed == 0 {
				t.Errorf("after errors the connection was made again %d times, closed %d times", lost, k.closed)
			}
		})
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(int, []netlink.Message) error
		want   []string
		not    []string
	}{
		{
			"no capability", func(int, []netlink.Message) error { return failed(unix.EPERM) },
			[]string{"applying the ruleset", "CAP_NET_ADMIN", "run it as root"},
			nil,
		},
		{
			"no nf_tables", func(int, []netlink.Message) error { return failed(unix.EOPNOTSUPP) },
			[]string{"the kernel has no nf_tables", "kmod-nft-core"},
			nil,
		},
		{"no fib", lacking("fib"), []string{"no fib lookup (module nft_fib_inet)"}, []string{"nat", "reject"}},
		{"no nat", lacking("nat"), []string{"no nat chains (module nft_chain_nat)", "no destination NAT (module nft_nat)"}, []string{"fib"}},
		{"no conntrack", lacking("ct"), []string{"no connection tracking (module nft_ct)"}, []string{"fib"}},
		{"no reject", lacking("reject"), []string{"no reject in prerouting"}, []string{"fib"}},
		{
			"table gone", func(n int, m []netlink.Message) error {
				if contains(m, "from4_ssh") {
					return failed(unix.ENOENT)
				}
				return failed(unix.EEXIST)
			},
			[]string{"is gone or was changed by another program"},
			[]string{"the kernel"},
		},
		{
			"too long", func(int, []netlink.Message) error { return unix.EMSGSIZE },
			[]string{"net.core.wmem_max"},
			nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &script{answer: c.answer}
			err := k.backend().Apply(rules(), nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(err.Error(), not) {
					t.Errorf("%q says %q", err, not)
				}
			}
		})
	}
}

// lacking is a kernel that has not the expression or chain type.
func lacking(name string) func(int, []netlink.Message) error {
	return func(_ int, m []netlink.Message) error {
		if contains(m, name) {
			return failed(unix.ENOENT)
		}
		for i, one := range m {
			if i > 1 && one.Header.Type&0xff == unix.NFT_MSG_NEWTABLE && one.Header.Flags&unix.NLM_F_EXCL != 0 {
				return failed(unix.EEXIST)
			}
		}
		return nil
	}
}

func TestNewWithoutNfTables(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPROTONOSUPPORT, unix.EINVAL, unix.EOPNOTSUPP} {
		b := &Backend{dial: func() (kernel, error) { return nil, errno }}
		if err := b.do("connecting", func(kernel) error { return nil }); !strings.Contains(fmt.Sprint(err), "no nf_tables") {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

// TestOpenIsAllOrNothing: doors that take two transactions, of which the second fails.
func TestOpenIsAllOrNothing(t *testing.T) {
	k := &script{bytes: 64 << 10}
	b := k.backend()
	if err := b.Apply(rules(), nil); err != nil {
		t.Fatal(err)
	}
	before := len(k.batches)
	k.answer = func(n int, _ []netlink.Message) error {
		if n == before+2 {
			return failed(unix.ENOMEM)
		}
		return nil
	}
	if err := b.Open(doors(1000)...); !errors.Is(err, unix.ENOMEM) {
		t.Fatalf("got %v", err)
	}
	sent := k.batches[before:]
	if len(sent) < 3 {
		t.Fatalf("%d transactions: nothing is shut again", len(sent))
	}
	for _, m := range sent[2:] {
		list := kinds(m)
		for i := 0; i < len(list); i += 2 {
			if list[i] != unix.NFT_MSG_NEWSETELEM || list[i+1] != unix.NFT_MSG_DELSETELEM {
				t.Errorf("not a transaction that shuts: %v", list)
			}
		}
	}
	k.answer = nil
	if err := b.Open(doors(1)...); err != nil {
		t.Error(err)
	}
}

func TestSplit(t *testing.T) {
	in := inForce{services: rules().Index()}
	for name, write := range map[string]writer{"add": addDoors, "renew": renewDoors, "shut": shutDoors} {
		for _, room := range []int{1, 40 << 10, 1 << 20} {
			first := &batch{}
			first.addTable()
			elements := 0
			parts := split(first, room, in, doors(3000), write)
			for i, p := range parts {
				if p.err != nil {
					t.Error(p.err)
				}
				if len(p.messages) == 0 || room > 1 && p.bytes > room {
					t.Errorf("%s in %d bytes: part %d has %d messages and %d bytes", name, room, i, len(p.messages), p.bytes)
				}
				length := 0
				for _, m := range p.messages {
					b, err := m.MarshalBinary()
					if err != nil {
						m.Header.Length = uint32(unix.NLMSG_HDRLEN + (len(m.Data)+3)&^3)
						m.Data = append(m.Data, make([]byte, (4-len(m.Data)%4)%4)...)
						if b, err = m.MarshalBinary(); err != nil {
							t.Fatal(err)
						}
					}
					length += len(b)
				}
				if length > p.bytes {
					t.Errorf("%s: %d bytes are counted as %d", name, length, p.bytes)
				}
				elements += len(p.messages)
			}
			if room == 1<<20 && len(parts) != 1 {
				t.Errorf("%s: %d parts where one would do", name, len(parts))
			}
			if room == 1 && len(parts) != 1+3000/doorsPerStep {
				t.Errorf("%s: %d parts where nothing fits", name, len(parts))
			}
		}
	}
}

// TestSplitByService: doors of many services, mixed, take no more messages than the services and steps there are. Each
// message costs the kernel a walk through the list of sets.
func TestSplitByService(t *testing.T) {
	r, mixed := wide(100, 3000)
	messages := 0
	for _, p := range split(&batch{}, 1<<20, inForce{services: r.Index()}, mixed, addDoors) {
		messages += len(p.messages)
	}
	if most := 100 + 3000/doorsPerStep; messages > most {
		t.Errorf("%d messages for 3000 doors of 100 services, want at most %d", messages, most)
	}
}

func TestDoorTime(t *testing.T) {
	for ttl, want := range map[time.Duration]uint64{
		time.Nanosecond: 1, time.Millisecond: 1, 1999 * time.Microsecond: 1, time.Second: 1000, firewall.MaxTTL: 65535000,
	} {
		d := doors(1)[0]
		d.TTL = ttl
		got := doorElements(inForce{services: rules().Index()}, []firewall.Door{d})["from4_ssh"]
		if len(got) != 1 || got[0].timeout != want {
			t.Errorf("%v: %+v, want %d ms", ttl, got, want)
		}
	}
}

func TestSetNames(t *testing.T) {
	for _, s := range []firewall.Service{{Name: "ssh"}, {Name: "6-64"}, {Name: "home", IPv6Prefix: 64}, {Name: "0", IPv6Prefix: 1}} {
		for _, v6 := range families {
			want := 32
			if v6 {
				want = s.Bits6()
			}
			for _, g := range []generation{"", ".7"} {
				name, has := parseGeneration(g.of(doorSet(s, v6)))
				service, bits, ok := parseDoorSet(name)
				if !ok || service != s.Name || bits != want || has != g {
					t.Errorf("%s is read as %q, %d, %v, generation %q", g.of(doorSet(s, v6)), service, bits, ok, has)
				}
			}
		}
	}
	for _, other := range []string{"always4", "always6", "tcp_guard", "udp_dstnat", "tcp_cut", "from6-0_x", "from6-129_x", "from6-_x", "from4"} {
		if service, _, ok := parseDoorSet(other); ok {
			t.Errorf("%s is taken for doors of %q", other, service)
		}
	}
	for _, c := range []struct {
		names []string
		want  generation
	}{
		{nil, ""}, {[]string{"guard", "permit"}, ".1"}, {[]string{"permit.1"}, ""}, {[]string{"permit.1", "knock"}, ".2"},
	} {
		if got := next(c.names); got != c.want {
			t.Errorf("beside %v: %q, want %q", c.names, got, c.want)
		}
	}
}

// TestPortElements: single ports are looked up in a hash table, so that their number costs nothing.
func TestPortElements(t *testing.T) {
	var targets []target
	for _, text := range []string{"tcp/443", "tcp/65000-65535", "udp/22", "tcp/22", "tcp/23-30"} {
		p, err := firewall.ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		targets = appendTargets(targets, text, p)
	}
	show := func(all []element) string {
		var b strings.Builder
		for _, e := range all {
			fmt.Fprintf(&b, "%d>%s ", binary.BigEndian.Uint16(e.key), e.chain)
		}
		return b.String()
	}
	single, ranges := portElements(firewall.TCP, targets)
	if got, want := show(single), "443>tcp/443 22>tcp/22 "; got != want {
		t.Errorf("single ports: %q, want %q", got, want)
	}
	if got, want := show(ranges), "23>tcp/23-30 31> 65000>tcp/65000-65535 "; got != want {
		t.Errorf("ranges: %q, want %q", got, want)
	}
}

func TestAlwaysElements(t *testing.T) {
	var networks []netip.Prefix
	for _, p := range []string{"10.0.0.0/25", "10.0.0.0/8", "10.0.0.0/8", "11.0.0.0/8", "255.0.0.0/8", "fd00::/8", "::/0", "ff00::/8"} {
		networks = append(networks, netip.MustParsePrefix(p))
	}
	show := func(v6 bool) (all []string) {
		for _, e := range intervals(networks, v6) {
			a, _ := netip.AddrFromSlice(e.key)
			all = append(all, fmt.Sprint(a, e.end))
		}
		return all
	}
	if diff := cmp.Diff([]string{"10.0.0.0 false", "11.0.0.0 true", "11.0.0.0 false", "12.0.0.0 true", "255.0.0.0 false"}, show(false)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{":: false"}, show(true)); diff != "" {
		t.Error(diff)
	}
}

func connect(t testing.TB, l *firewalltest.Lab) *Backend {
	t.Helper()
	b, err := New(Options{NetNS: l.Router.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestConnectionLost(t *testing.T) {
	l := firewalltest.NewLab(t)
	b := connect(t, l)
	if err := b.Apply(rules(), nil); err != nil {
		t.Fatal(err)
	}
	b.kernel.close()
	if err := b.Open(doors(1)...); err != nil {
		t.Errorf("after the connection was lost: %v", err)
	}
	if got, err := b.Doors(); err != nil || len(got) != 1 {
		t.Errorf("listed %v, %v", got, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := b.Open(doors(1)...); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}
}

func TestNoCapability(t *testing.T) {
	l := firewalltest.NewLab(t)
	var err error
	l.Router.Do(func() {
		head := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var had, has [2]unix.CapUserData
		if err := unix.Capget(head, &had[0]); err != nil {
			t.Fatal(err)
		}
		has = had
		has[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(head, &has[0]); err != nil {
			t.Fatal(err)
		}
		_, err = New(Options{})
		if err := unix.Capset(head, &had[0]); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("got %v", err)
	}
}

func TestProbesPassHere(t *testing.T) {
	b := connect(t, firewalltest.NewLab(t))
	for _, f := range features {
		probe := &batch{}
		f.use(probe)
		if lacks(probe, b.try) {
			t.Errorf("this kernel is said to have no %s", f.name)
		}
	}
	if got, err := b.kernelOrDial(t).sets(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("probes left a table: %v, %v", got, err)
	}
}

func TestMissing(t *testing.T) {
	forward := &firewall.Forward{Port: firewall.Ports{Proto: firewall.TCP, First: 80, Last: 80}, To4: netip.MustParseAddrPort("192.168.1.50:80")}
	noNAT := func(_ int, m []netlink.Message) error {
		for _, one := range m {
			if strings.Contains(string(one.Data), "nat\x00") {
				return unix.EOPNOTSUPP
			}
		}
		return unix.EEXIST // as the last message of every probe is answered
	}
	for _, tt := range []struct {
		name    string
		answer  func(int, []netlink.Message) error
		service firewall.Service
		want    string
	}{
		{"all there", func(int, []netlink.Message) error { return unix.EEXIST }, firewall.Service{Forward: forward}, ""},
		{"no nat, and nothing forwarded", noNAT, firewall.Service{}, ""},
		{"no nat", noNAT, firewall.Service{Forward: forward}, "nat chains (module nft_chain_nat); destination NAT (module nft_nat)"},
		{
			"no table", func(int, []netlink.Message) error { return unix.EOPNOTSUPP },
			firewall.Service{},
			"tables of the family inet (module nf_tables, CONFIG_NF_TABLES_INET)",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{answer: tt.answer}
			got := s.backend().missing(firewall.Ruleset{Services: []firewall.Service{tt.service}})
			if strings.Join(got, "; ") != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// What is asked for on a real kernel changes nothing, with and without rules of ours.
func TestMissingChangesNothing(t *testing.T) {
	l := firewalltest.NewLab(t)
	b := connect(t, l)
	rules := firewall.Ruleset{Mark: 1, Services: []firewall.Service{{Name: "ssh", Open: []firewall.Ports{{Proto: firewall.TCP, First: 22, Last: 22}}}}}
	for _, applied := range []bool{false, true} {
		if applied {
			if err := b.Apply(rules, nil); err != nil {
				t.Fatal(err)
			}
		}
		before, err := b.kernelOrDial(t).generation()
		if err != nil {
			t.Fatal(err)
		}
		missing, err := Missing(l.Router.NetNS(), rules)
		if err != nil || len(missing) > 0 {
			t.Errorf("%q, %v", missing, err)
		}
		if after, err := b.kernelOrDial(t).generation(); err != nil || after != before {
			t.Errorf("the generation went from %d to %d: something was changed (%v)", before, after, err)
		}
	}
}

func (b *Backend) kernelOrDial(t *testing.T) kernel {
	t.Helper()
	if err := b.try(func(kernel) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return b.kernel
}

func TestLargeRuleset(t *testing.T) {
	b := connect(t, firewalltest.NewLab(t))
	r := firewall.Ruleset{Mark: 1}
	for i := range 200 {
		port := uint16(1000 + i)
		r.Services = append(r.Services, firewall.Service{
			Name: fmt.Sprintf("s%d", i), Cut: true, Open: []firewall.Ports{{Proto: firewall.TCP, First: port, Last: port}},
		})
	}
	r.Services[0].Name = "ssh"
	many := doors(40000) // more than a transaction carries in a user namespace
	for range 2 {
		if err := b.Apply(r, many); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.Doors()
	if err != nil || len(got) != len(many) {
		t.Errorf("%d doors are listed, %v", len(got), err)
	}
}

// TestHalfAnApply: a process dies between two transactions; the next one finds more than one generation.
func TestHalfAnApply(t *testing.T) {
	b := connect(t, firewalltest.NewLab(t))
	if err := b.Apply(rules(), doors(3)); err != nil {
		t.Fatal(err)
	}
	half := &batch{}
	layout{half, &batch{}, rules(), ".1", map[string]bool{}}.write()
	addDoors(half, inForce{rules().Index(), ".1"}, doors(2))
	if err := send(b.kernelOrDial(t), half); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Doors(); err != nil || len(got) != 2 {
		t.Errorf("listed %v, %v", got, err)
	}
	if err := b.Apply(rules(), doors(4)); err != nil {
		t.Fatal(err)
	}
	names, err := b.kernelOrDial(t).sets()
	for _, n := range names {
		if _, g := parseGeneration(n); g != ".2" {
			t.Errorf("%s is left, %v", n, err)
		}
	}
	if got, err := b.Doors(); err != nil || len(got) != 4 {
		t.Errorf("listed %v, %v", got, err)
	}
}

// TestMisplacedChain: an earlier version had a base chain elsewhere.
func TestMisplacedChain(t *testing.T) {
	b := connect(t, firewalltest.NewLab(t))
	old := &batch{}
	old.addTable()
	old.addChain(guardChain, "", &hook{nftables.ChainTypeFilter, *nftables.ChainHookInput, 0})
	old.addRule(guardChain, drop...)
	old.addChain("stray", "", &hook{nftables.ChainTypeFilter, *nftables.ChainHookOutput, 0})
	if err := send(b.kernelOrDial(t), old); err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(rules(), nil); err != nil {
		t.Fatal(err)
	}
	chains, err := b.kernelOrDial(t).chains()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chains {
		if c.Name == "stray" || c.Name == guardChain && *c.Hooknum != *nftables.ChainHookPrerouting {
			t.Errorf("%s is left at hook %d", c.Name, *c.Hooknum)
		}
	}
}

// TestListing: what nft lists it can read again.
func TestListing(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	l := firewalltest.NewLab(t)
	b := connect(t, l)
	d := append(doors(2), firewall.Door{Service: "9-p", Source: netip.MustParsePrefix("2001:db8::/56"), TTL: time.Hour})
	for range 2 {
		if err := b.Apply(rules(), d); err != nil {
			t.Fatal(err)
		}
		out, err := l.Router.Command("nft", "list", "table", "inet", "spad").Output()
		if err != nil {
			t.Fatal(err)
		}
		check := l.Router.Command("nft", "-c", "-f", "-")
		check.Stdin = strings.NewReader(strings.Replace(string(out), "table inet spad", "table inet copy", 1))
		if said, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", err, said, out)
		}
		t.Logf("%s", out)
	}
}
