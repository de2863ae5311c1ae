package client

import (
	"cmp"
	"slices"
	"time"
)

// patience is how long the other family is waited for when all wishes are granted in one.
type patience struct {
	answer    func(rtt time.Duration) time.Duration // for its answers
	departure time.Duration                         // at most this long for its packets to leave
}

// bothFamilies is the patience of an open. Both ways lead to the same router, so the
// other answer is due after about the same time; twice that and 50 ms for a slower line
// miss few. A quarter second (the delay of RFC 8305, section 8) is the most that anyone
// should wait for a family that may be dead. What is missed is the report only: that
// the packet leaves, although the name server was slow with that family, or says
// nothing about NAT64, is waited for longer, so that the door opens in both.
var bothFamilies = patience{
	answer:    func(rtt time.Duration) time.Duration { return min(2*rtt+50*time.Millisecond, otherFamily) },
	departure: nat64Patience + 50*time.Millisecond,
}

const otherFamily = 250 * time.Millisecond

// oneFamily is for what one family does for both.
var oneFamily = patience{answer: func(time.Duration) time.Duration { return 0 }}

// unanswered is for packets that only have to leave.
var unanswered = patience{answer: oneFamily.answer, departure: time.Second}

type report struct {
	wish   int
	result Result
}

// tally collects the results of an errand.
type tally struct {
	outcomes []Outcome
	families int
	missing  int
	rtt      time.Duration // the longest of a success
}

func newTally(wishes []wish, families int) *tally {
	t := &tally{outcomes: make([]Outcome, len(wishes)), families: families, missing: len(wishes) * families}
	for i, w := range wishes {
		t.outcomes[i].Service = w.service
	}
	return t
}

func (t *tally) add(r report) {
	o := &t.outcomes[r.wish]
	o.Families = append(o.Families, r.result)
	t.missing--
	if r.result.Err == nil {
		t.rtt = max(t.rtt, r.result.rtt)
	}
}

// collect takes reports until all are in, or patience with the slower family ends.
func (t *tally) collect(p patience, departed <-chan Family, reports <-chan report) {
	var due, end <-chan time.Time
	waited := false
	for away := 0; t.missing > 0 && !(waited && away == t.families); {
		select {
		case r := <-reports:
			t.add(r)
		case <-departed:
			away++
		case <-due:
			waited = true
		case <-end:
			return
		}
		if end == nil && t.satisfied() {
			grace := p.answer(t.rtt)
			due, end = time.After(grace), time.After(max(grace, p.departure))
		}
	}
}

// satisfied reports whether every wish was granted in a family or refused in all, and
// at least one was granted.
func (t *tally) satisfied() bool {
	granted := false
	for _, o := range t.outcomes {
		ok := o.Err() == nil && len(o.Families) > 0
		if !ok && len(o.Families) < t.families {
			return false
		}
		granted = granted || ok
	}
	return granted
}

func (t *tally) sorted() []Outcome {
	for _, o := range t.outcomes {
		slices.SortFunc(o.Families, func(a, b Result) int { return cmp.Compare(a.Family, b.Family) })
	}
	return t.outcomes
}
