package session

import "container/heap"

// index holds the sessions by all that they are looked for. Adding one, removing one, and finding the one that ends
// first take a time that grows with the logarithm of their number at most; only what concerns all of them goes through
// all of them.
type index struct {
	byOwner map[owner]*Session
	byPlace map[place][]*Session
	held    map[holder]map[*Session]struct{}
	queue   queue
}

// holder is a device, once for its own openings and once for those that it names an address for: the latter can be so
// many that nothing about the former may go through them.
type holder struct {
	device    string // empty: operators
	delegated bool
}

func (s *Session) holder() holder {
	if s.remote() {
		return holder{"remote " + s.Key, true} // no device has such a name
	}
	return holder{s.Device, s.Delegated}
}

func newIndex() *index {
	return &index{
		byOwner: map[owner]*Session{}, byPlace: map[place][]*Session{}, held: map[holder]map[*Session]struct{}{},
	}
}

func (x *index) len() int { return len(x.queue) }

// add takes a session in. What it is found by must not change until it is removed.
func (x *index) add(s *Session) {
	x.byOwner[s.owner()] = s
	p := s.place()
	x.byPlace[p] = append(x.byPlace[p], s)
	held := x.held[s.holder()]
	if held == nil {
		held = map[*Session]struct{}{}
		x.held[s.holder()] = held
	}
	held[s] = struct{}{}
	heap.Push(&x.queue, s)
}

func (x *index) remove(s *Session) {
	delete(x.byOwner, s.owner())
	p := s.place()
	if rest := without(x.byPlace[p], s); len(rest) > 0 {
		x.byPlace[p] = rest
	} else {
		delete(x.byPlace, p)
	}
	held := x.held[s.holder()]
	if delete(held, s); len(held) == 0 {
		delete(x.held, s.holder())
	}
	heap.Remove(&x.queue, s.at)
}

func without(list []*Session, s *Session) []*Session {
	for i, other := range list {
		if other == s {
			list[i] = list[len(list)-1]
			return list[:len(list)-1]
		}
	}
	return list
}

// selected returns the sessions that a selection names. Only an operator's goes through all of them: what a knock
// closes is its device's own, or stands at one place.
func (x *index) selected(sel Selection) []*Session {
	var found []*Session
	look := func(s *Session) {
		if sel.matches(s) {
			found = append(found, s)
		}
	}
	own, delegated := x.held[holder{sel.Device, false}], x.held[holder{sel.Device, true}]
	here := x.byPlace[place{sel.Service, sel.Source}]
	switch knock := sel.Device != "" && sel.Service != ""; {
	case knock && sel.Own:
		for s := range own {
			look(s)
		}
		for _, s := range here {
			if s.Delegated {
				look(s)
			}
		}
	case knock && sel.Source.IsValid():
		for _, s := range here {
			look(s)
		}
	case sel.Device != "":
		for _, sessions := range []map[*Session]struct{}{own, delegated} {
			for s := range sessions {
				look(s)
			}
		}
	default:
		for _, s := range x.queue {
			look(s)
		}
	}
	return found
}

// queue is a heap of sessions, the one that ends first on top; each knows its place in it.
type queue []*Session

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].Until < q[j].Until }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(s any) {
	s.(*Session).at = len(*q)
	*q = append(*q, s.(*Session))
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return s
}
