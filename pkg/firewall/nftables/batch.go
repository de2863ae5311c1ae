package nftables

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const family = byte(nftables.TableFamilyINet)

// Attributes that x/sys/unix lacks (linux/netfilter/nf_tables.h). The comments are shown by nft and ignored by kernels
// before 5.10; handles are there since 4.17.
const (
	attrTableUserdata = 6
	attrChainUserdata = 12
	attrSetHandle     = 16
)

// batch is one transaction for nf_tables, all or nothing.
//
// It is written here and not with the methods of nftables.Conn because those ask the kernel to acknowledge each message.
// Between 200 and 300 messages, some 25 services, the answers overflow the socket's buffer, and the caller can't tell
// whether the batch took effect. And where the kernel answers but once, as it does when it has no nf_tables, Conn waits
// for ever. Here only the last message asks. Also, the library knows no comments on tables and chains.
type batch struct {
	messages []netlink.Message
	bytes    int
	err      error // the first that could not be encoded
}

// add appends a message of a kind NFT_MSG_…; flags beside Request.
func (b *batch) add(kind uint16, flags netlink.HeaderFlags, attrs ...netlink.Attribute) {
	data := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, b.marshal(attrs)...)
	b.messages = append(b.messages, netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   data,
	})
	b.bytes += unix.NLMSG_HDRLEN + len(data) + unix.NLMSG_ALIGNTO
}

func (b *batch) marshal(attrs []netlink.Attribute) []byte {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("encoding a message for nf_tables: %w", err)
	}
	return data
}

// sealed returns the messages between their begin and end, the last one asking for the answer to all of them.
func (b *batch) sealed() ([]netlink.Message, error) {
	if b.err != nil {
		return nil, b.err
	}
	edge := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request},
			Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	all := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, b.messages...)
	all[len(all)-1].Header.Flags |= netlink.Acknowledge
	return append(all, edge(unix.NFNL_MSG_BATCH_END)), nil
}

func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

func number(kind uint16, n uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binaryutil.BigEndian.PutUint32(n)}
}

func (b *batch) nested(kind uint16, attrs ...netlink.Attribute) netlink.Attribute {
	return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: b.marshal(attrs)}
}

func (b *batch) addTable() {
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create,
		text(unix.NFTA_TABLE_NAME, tableName), number(unix.NFTA_TABLE_FLAGS, 0),
		netlink.Attribute{Type: attrTableUserdata, Data: userdata.AppendString(nil, 0, tableComment)})
}

func (b *batch) delTable() { b.add(unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, tableName)) }

// flushChain deletes the rules of a chain.
func (b *batch) flushChain(name string) {
	b.add(unix.NFT_MSG_DELRULE, 0, text(unix.NFTA_RULE_TABLE, tableName), text(unix.NFTA_RULE_CHAIN, name))
}

// hook says where in a packet's way a base chain stands.
type hook struct {
	kind     nftables.ChainType
	number   nftables.ChainHook
	priority nftables.ChainPriority
}

func (b *batch) addChain(name, comment string, h *hook) {
	attrs := []netlink.Attribute{text(unix.NFTA_CHAIN_TABLE, tableName), text(unix.NFTA_CHAIN_NAME, name)}
	if h != nil {
		attrs = append(attrs,
			b.nested(unix.NFTA_CHAIN_HOOK,
				number(unix.NFTA_HOOK_HOOKNUM, uint32(h.number)), number(unix.NFTA_HOOK_PRIORITY, uint32(h.priority))),
			number(unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept)),
			text(unix.NFTA_CHAIN_TYPE, string(h.kind)))
	}
	attrs = append(attrs, netlink.Attribute{Type: attrChainUserdata, Data: userdata.AppendString(nil, 0, comment)})
	b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, attrs...)
}

func (b *batch) delChain(name string) {
	b.add(unix.NFT_MSG_DELCHAIN, 0, text(unix.NFTA_CHAIN_TABLE, tableName), text(unix.NFTA_CHAIN_NAME, name))
}

// addRule appends a rule to a chain.
func (b *batch) addRule(chain string, parts ...part) {
	var list []netlink.Attribute
	for _, p := range parts {
		data, err := p()
		if err != nil && b.err == nil {
			b.err = err
		}
		list = append(list, netlink.Attribute{Type: unix.NFTA_LIST_ELEM | unix.NLA_F_NESTED, Data: data})
	}
	b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append,
		text(unix.NFTA_RULE_TABLE, tableName), text(unix.NFTA_RULE_CHAIN, chain),
		b.nested(unix.NFTA_RULE_EXPRESSIONS, list...))
}

// set describes a set of ours, or a map.
type set struct {
	name    string
	key     nftables.SetDatatype
	data    *nftables.SetDatatype // of a map; nil: verdicts
	flags   uint32
	size    int // how many elements there will be, if known: without timeouts and intervals the kernel takes a table of that size
	comment string
}

func (b *batch) addSet(s set) {
	// Big endian, so that nft shows it right. nft reads the number in the machine's order; userdata.AppendUint32 writes it
	// in little-endian.
	udata := userdata.Append(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, native.PutUint32(2))
	udata = userdata.AppendString(udata, userdata.NFTNL_UDATA_SET_COMMENT, s.comment)
	attrs := []netlink.Attribute{
		text(unix.NFTA_SET_TABLE, tableName), text(unix.NFTA_SET_NAME, s.name),
		number(unix.NFTA_SET_FLAGS, s.flags),
		number(unix.NFTA_SET_KEY_TYPE, s.key.GetNFTMagic()), number(unix.NFTA_SET_KEY_LEN, s.key.Bytes),
		number(unix.NFTA_SET_ID, uint32(len(b.messages)+1)), // any number that is unique in the batch
		{Type: unix.NFTA_SET_USERDATA, Data: udata},
	}
	if s.size != 0 && s.flags&unix.NFT_SET_INTERVAL == 0 { // for intervals it would count their ends too
		attrs = append(attrs, b.nested(unix.NFTA_SET_DESC, number(unix.NFTA_SET_DESC_SIZE, uint32(s.size))))
	}
	switch {
	case s.flags&unix.NFT_SET_MAP == 0:
	case s.data != nil:
		attrs = append(attrs, number(unix.NFTA_SET_DATA_TYPE, s.data.GetNFTMagic()), number(unix.NFTA_SET_DATA_LEN, s.data.Bytes))
	default:
		attrs = append(attrs, number(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT), number(unix.NFTA_SET_DATA_LEN, 0))
	}
	b.add(unix.NFT_MSG_NEWSET, netlink.Create, attrs...)
}

// delSet empties and deletes a set. Kernels before 6.4 keep the chains of a deleted map busy unless it is empty.
func (b *batch) delSet(name string) {
	b.add(unix.NFT_MSG_DELSETELEM, 0, text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName), text(unix.NFTA_SET_ELEM_LIST_SET, name))
	b.add(unix.NFT_MSG_DELSET, 0, text(unix.NFTA_SET_TABLE, tableName), text(unix.NFTA_SET_NAME, name))
}

// element is one of a set's. The timeout is in milliseconds, 0 for none.
type element struct {
	key     []byte
	timeout uint64
	end     bool   // the first key that is not in the interval any more
	chain   string // where a map of verdicts sends packets
	jump    bool   // and back, if the chain says nothing
	value   []byte // what another map has for the key
}

// elementsPerMessage keeps the list below 64 KiB, which is as long as an attribute can be.
const elementsPerMessage = 800

// elements appends messages that add or delete (NFT_MSG_…SETELEM) elements.
func (b *batch) elements(kind uint16, set string, list []element) {
	var flags netlink.HeaderFlags
	if kind == unix.NFT_MSG_NEWSETELEM {
		flags = netlink.Create
	}
	for len(list) > 0 {
		n := min(len(list), elementsPerMessage)
		attrs := make([]netlink.Attribute, 0, n)
		for _, e := range list[:n] {
			attrs = append(attrs, b.element(e))
		}
		list = list[n:]
		b.add(kind, flags, text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName), text(unix.NFTA_SET_ELEM_LIST_SET, set),
			b.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, attrs...))
	}
}

func (b *batch) element(e element) netlink.Attribute {
	attrs := []netlink.Attribute{
		b.nested(unix.NFTA_SET_ELEM_KEY, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: e.key}),
	}
	if e.end {
		attrs = append(attrs, number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END))
	}
	if e.timeout != 0 {
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_SET_ELEM_TIMEOUT, Data: binaryutil.BigEndian.PutUint64(e.timeout)})
	}
	if e.chain != "" {
		code := int64(unix.NFT_GOTO)
		if e.jump {
			code = unix.NFT_JUMP
		}
		verdict := b.nested(unix.NFTA_DATA_VERDICT,
			number(unix.NFTA_VERDICT_CODE, uint32(code&0xffffffff)), text(unix.NFTA_VERDICT_CHAIN, e.chain))
		attrs = append(attrs, b.nested(unix.NFTA_SET_ELEM_DATA, verdict))
	}
	if e.value != nil {
		attrs = append(attrs, b.nested(unix.NFTA_SET_ELEM_DATA, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: e.value}))
	}
	return b.nested(unix.NFTA_LIST_ELEM, attrs...)
}

// part is one expression of a rule, encoded when the rule is.
type part func() ([]byte, error)

func express(e expr.Any) part {
	return func() ([]byte, error) { return expr.Marshal(family, e) }
}
