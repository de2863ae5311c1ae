package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"spad/pkg/firewall"
)

var _ firewall.Watcher = (*Backend)(nil)

// How often is looked: at sets and legacy tables, which nobody tells of; after a change of nf_tables, which the kernel
// tells of, at most; and at the rules even if nothing seems to have changed.
const (
	lookEvery  = 4 * time.Second
	lookPause  = 500 * time.Millisecond
	listEvery  = time.Minute
	timeLeeway = 2 * time.Second // between a door's time here and the kernel's, which counts whole seconds
)

// Watch implements firewall.Watcher. It compares what is there with what was last made; the programs that list rules run
// only when something has changed.
func (b *Backend) Watch(ctx context.Context, damaged func()) error {
	told := make(chan struct{}, 1)
	ended := make(chan error, 1)
	inner, cancel := context.WithCancel(ctx)
	go func() { ended <- b.hear(inner, told) }()
	defer func() { cancel(); <-ended }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			ended <- nil
			return err
		case <-told:
			if !sleep(ctx, lookPause) { // others change one rule after the other
				return nil
			}
		case <-tick.C:
		}
		whole, err := b.whole()
		if err != nil {
			return fmt.Errorf("looking at iptables: %w", explain(err))
		}
		if !whole {
			damaged()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// hear passes on that nf_tables changed, by whomever: what iptables on nf_tables changes for us is a process of its own.
func (b *Backend) hear(ctx context.Context, told chan<- struct{}) error {
	if b.variant != "nft" {
		<-ctx.Done()
		return nil
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: b.netns})
	if err != nil {
		return fmt.Errorf("watching nf_tables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = conn.JoinGroup(unix.NFNLGRP_NFTABLES)
	for err == nil {
		if _, err = conn.Receive(); errors.Is(err, unix.ENOBUFS) {
			err = nil // what did not fit is a change as well
		}
		b.heard.Add(1)
		select {
		case told <- struct{}{}:
		default:
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("watching nf_tables: %w", err), conn.Close())
}

// holdings are the entries that the sets should have, and until when; the zero time is for ever.
type holdings map[string]map[netip.Prefix]time.Time

func (h holdings) put(set string, e entry) {
	until := time.Time{}
	if e.seconds > 0 {
		until = time.Now().Add(time.Duration(e.seconds) * time.Second)
	}
	h[set][e.from] = until
}

// image is what of ours the tables had when they were right, and the kernel's word on each table then.
type image struct {
	layouts []layout // what was made, until it was listed for the first time
	rules   string
	info    string
	listed  time.Time
}

// remember notes what Apply has made.
func (b *Backend) remember(g generation, want map[string]set) {
	b.held = holdings{}
	for name, s := range want {
		b.held[name] = map[netip.Prefix]time.Time{}
		for from, seconds := range s.entries {
			b.held.put(name, entry{from, seconds})
		}
	}
	b.image = image{}
	for _, f := range b.families {
		b.image.layouts = append(b.image.layouts, f.layout(g, *b.rules))
	}
}

// lines returns how many lines iptables lists of a layout.
func (l layout) lines() int {
	n := len(l.hooks())
	for _, t := range l.chains {
		n += len(t.names)
		for _, rules := range t.rules {
			n += len(rules)
		}
	}
	return n
}

// whole reports whether all is as it was left.
func (b *Backend) whole() (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.rules == nil {
		return true, nil
	}
	if same, err := b.wholeRules(); !same || err != nil {
		return false, err
	}
	return b.wholeSets()
}

func (b *Backend) wholeRules() (bool, error) {
	info, err := b.info()
	if err != nil {
		return false, err
	}
	if info == b.image.info && time.Since(b.image.listed) < listEvery {
		return true, nil
	}
	rules, lines, err := b.ownRules()
	if err != nil {
		return false, err
	}
	if b.image.layouts != nil { // the first list is the image, if nobody was quicker
		for _, l := range b.image.layouts {
			lines -= l.lines()
		}
		if lines != 0 {
			return false, nil
		}
		b.image.layouts, b.image.rules = nil, rules
	}
	b.image.info, b.image.listed = info, time.Now()
	return rules == b.image.rules, nil
}

// info returns the kernel's short word on all tables. It is another one when they have changed.
func (b *Backend) info() (string, error) {
	if b.variant == "nft" {
		return fmt.Sprint("changes heard of: ", b.heard.Load()), nil
	}
	var all strings.Builder
	for _, f := range b.families {
		for _, table := range f.tables() {
			word, err := f.table.info(table)
			if err != nil {
				return "", err
			}
			fmt.Fprintln(&all, word)
		}
	}
	return all.String(), nil
}

// ownRules lists our chains, their rules, and the rules that lead to them with their place: one before ours could let
// in what ours would not.
func (b *Backend) ownRules() (text string, count int, err error) {
	var all strings.Builder
	for _, f := range b.families {
		for _, table := range f.tables() {
			lines, err := f.table.list(table)
			if err != nil {
				return "", 0, err
			}
			place, chains := map[string]int{}, map[string]bool{}
			for _, line := range lines {
				words := strings.Fields(line)
				if len(words) < 2 {
					continue
				}
				_, _, ours := parseChain(words[1])
				chains[words[1]] = chains[words[1]] || ours
				if ours || chains[targetOf(line)] {
					fmt.Fprintln(&all, f.table, table, place[words[1]], strings.TrimSpace(line))
					count++
				}
				if words[0] == "-A" && !ours {
					place[words[1]]++
				}
			}
		}
	}
	return all.String(), count, nil
}

func (b *Backend) wholeSets() (bool, error) {
	now := time.Now()
	for name, held := range b.held {
		maps.DeleteFunc(held, func(_ netip.Prefix, until time.Time) bool {
			return !until.IsZero() && until.Before(now.Add(-timeLeeway))
		})
		there, err := b.sets.read(name)
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		for from, until := range held {
			left, ok := there.entries[from]
			if !ok && (until.IsZero() || until.Sub(now) > timeLeeway) {
				return false, nil
			}
			if ok && time.Duration(left)*time.Second > max(0, until.Sub(now))+timeLeeway {
				return false, nil
			}
		}
		for from, left := range there.entries {
			if _, ok := held[from]; !ok && (left == 0 || time.Duration(left)*time.Second > timeLeeway) {
				return false, nil
			}
		}
	}
	return true, nil
}
