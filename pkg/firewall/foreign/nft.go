package foreign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What is spad's: a table of nf_tables, and chains of iptables whose names begin so.
const (
	ownFamily, ownTable = "inet", "spad"
	ownPrefix           = "spad."
)

var families = map[nftables.TableFamily]string{
	nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
}

// readTables adds what nf_tables has, of iptables-nft too. It only lists.
func (r *Rules) readTables(netns int) error {
	var socket *netlink.Conn
	keep := func(c *netlink.Conn) error { socket = c; return nil }
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(netns), nftables.WithSockOptions(keep))
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	listed, err := conn.ListChains()
	if err != nil {
		return err
	}
	byPlace := map[place]*chain{}
	tables := map[string]*nftables.Table{}
	for _, l := range listed {
		c := chainOf(l)
		if c == nil {
			continue
		}
		r.chains = append(r.chains, c)
		byPlace[place{c.family, c.table, c.name}] = c
		tables[c.family+" "+c.table] = l.Table
	}
	if err := readRules(socket, byPlace, tables, conn); err != nil {
		return err
	}
	for name, t := range tables {
		flows, err := conn.ListFlowtables(t) // an error: a kernel without them
		for _, f := range flows {
			if err == nil {
				r.Flowtables = append(r.Flowtables, name+" "+f.Name)
			}
		}
	}
	slices.Sort(r.Flowtables)
	return nil
}

// place is where a rule is.
type place struct{ family, table, chain string }

// chainOf returns nil for spad's own, and for families that no packet to or through a router meets.
func chainOf(l *nftables.Chain) *chain {
	family, ok := families[l.Table.Family]
	if !ok || family == ownFamily && l.Table.Name == ownTable || strings.HasPrefix(l.Name, ownPrefix) {
		return nil
	}
	c := &chain{family: family, table: l.Table.Name, name: l.Name, policy: accepts}
	if l.Hooknum == nil || l.Priority == nil || *l.Hooknum > nftables.ChainHook(Postrouting) {
		return c
	}
	c.based, c.hook, c.priority, c.nat = true, Hook(*l.Hooknum), int(*l.Priority), l.Type == nftables.ChainTypeNAT
	if l.Policy != nil && *l.Policy == nftables.ChainPolicyDrop {
		c.policy = drops
	}
	return c
}

// readRules lists the rules of all tables at once. It is not done with the library's methods, which leave out an expression
// that they do not know: a rule would then match more than it does.
func readRules(socket *netlink.Conn, chains map[place]*chain, tables map[string]*nftables.Table, conn *nftables.Conn) error {
	answer, err := socket.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return err
	}
	all := map[string]*sets{}
	for name, t := range tables {
		all[name] = &sets{conn: conn, table: t, read: map[string]*readSet{}}
	}
	for _, m := range answer {
		if len(m.Data) < 4 {
			return errors.New("nf_tables answers with a message that is too short")
		}
		at, rule, err := decodeRule(m.Data[0], m.Data[4:])
		if err != nil {
			return err
		}
		if c := chains[at]; c != nil {
			rule.sets = all[c.family+" "+c.table]
			c.rules = append(c.rules, rule)
		}
	}
	return nil
}

func decodeRule(family byte, attrs []byte) (place, *nftRule, error) {
	at, rule := place{family: families[nftables.TableFamily(family)]}, &nftRule{}
	d, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return at, nil, err
	}
	for d.Next() {
		switch d.Type() {
		case unix.NFTA_RULE_TABLE:
			at.table = d.String()
		case unix.NFTA_RULE_CHAIN:
			at.chain = d.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			d.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(one *netlink.AttributeDecoder) error { return rule.add(family, one) })
				}
				return nil
			})
		}
	}
	return at, rule, d.Err()
}

// add decodes one expression. One that is not known may ask something.
func (r *nftRule) add(family byte, d *netlink.AttributeDecoder) error {
	var name string
	var data []byte
	for d.Next() {
		switch d.Type() {
		case unix.NFTA_EXPR_NAME:
			name = d.String()
		case unix.NFTA_EXPR_DATA:
			data = d.Bytes()
		}
	}
	e, silent := expressionOf(name)
	switch {
	case silent:
		return d.Err()
	case e == nil:
		r.parts = append(r.parts, opaque{})
		return d.Err()
	}
	if err := expr.Unmarshal(family, data, e); err != nil {
		r.parts = append(r.parts, opaque{})
		return d.Err()
	}
	if i, ok := e.(*expr.Immediate); ok && i.Register == unix.NFT_REG_VERDICT {
		v := &expr.Verdict{}
		if err := expr.Unmarshal(family, data, v); err == nil {
			e = v
		}
	}
	r.parts = append(r.parts, e)
	return d.Err()
}

// expressionOf returns what to decode an expression into, or that it asks nothing.
func expressionOf(name string) (e expr.Any, silent bool) {
	switch name {
	case "ct":
		return &expr.Ct{}, false
	case "range":
		return &expr.Range{}, false
	case "meta":
		return &expr.Meta{}, false
	case "cmp":
		return &expr.Cmp{}, false
	case "payload":
		return &expr.Payload{}, false
	case "lookup":
		return &expr.Lookup{}, false
	case "immediate":
		return &expr.Immediate{}, false
	case "bitwise":
		return &expr.Bitwise{}, false
	case "byteorder":
		return &expr.Byteorder{}, false
	case "redir":
		return &expr.Redir{}, false
	case "nat":
		return &expr.NAT{}, false
	case "match":
		return &expr.Match{}, false
	case "target":
		return &expr.Target{}, false
	case "reject":
		return &expr.Reject{}, false
	case "masq":
		return &expr.Masq{}, false
	case "tproxy":
		return &expr.TProxy{}, false
	case "fib":
		return &expr.Fib{}, false
	case "counter", "log", "limit", "objref", "notrack", "flow_offload", "last", "quota", "secmark", "synproxy", "dup":
		return nil, true // a limit and a quota have room, as a rule
	}
	return nil, false
}

// sets are those of one table, each read when a rule asks for it.
type sets struct {
	conn  *nftables.Conn
	table *nftables.Table
	read  map[string]*readSet
}

type readSet struct {
	kind     *nftables.Set
	elements []nftables.SetElement // of intervals in the order of their keys
}

func (s *sets) get(name string) *readSet {
	if have, ok := s.read[name]; ok {
		return have
	}
	var got *readSet
	if kind, err := s.conn.GetSetByName(s.table, name); err == nil {
		if elements, err := s.conn.GetSetElements(kind); err == nil {
			slices.SortStableFunc(elements, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
			got = &readSet{kind, elements}
		}
	}
	s.read[name] = got
	return got
}

// has reports whether a set has the value at the beginning of v, and what a map says of it.
func (s *sets) has(name string, v value) (tri, *expr.Verdict) {
	set := s.get(name)
	if set == nil {
		return unknown, nil
	}
	if len(set.elements) == 0 {
		return no, nil
	}
	v = v.cut(0, len(set.elements[0].Key))
	switch {
	case v.isStranger():
		return no, nil
	case !v.certain():
		return unknown, nil
	}
	var found *nftables.SetElement
	for i := range set.elements {
		e := &set.elements[i]
		c := bytes.Compare(e.Key, v.data)
		switch {
		case len(e.KeyEnd) > 0: // ranges of values put together, each from and to
			if c == 0 || set.kind.Concatenation && each(v.data, e.Key, e.KeyEnd) {
				return yes, e.VerdictData
			}
		case c == 0 && !set.kind.Interval:
			return yes, e.VerdictData
		case c <= 0 && set.kind.Interval:
			found = e
		}
	}
	if found == nil || found.IntervalEnd {
		return no, nil
	}
	return yes, found.VerdictData
}

// each compares values of a word or more, which is close enough for ports, links and IPv4 addresses.
func each(v, from, to []byte) bool {
	for i := 0; i+4 <= len(v) && i+4 <= len(to); i += 4 {
		n := binary.BigEndian.Uint32(v[i:])
		if n < binary.BigEndian.Uint32(from[i:]) || n > binary.BigEndian.Uint32(to[i:]) {
			return false
		}
	}
	return true
}

// Read reads the rules of all other programs in a network namespace, by its file descriptor; 0 is the process's own. What
// could not be read is in Untold.
func Read(netns int) *Rules {
	r := &Rules{}
	if err := r.readTables(netns); err != nil {
		r.Untold = append(r.Untold, fmt.Sprintf("the rules in nf_tables: %v", plain(err)))
	}
	r.readLegacy(netns)
	return r
}

func plain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errors.New("run this as root")
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("this kernel has none")
	}
	return err
}
