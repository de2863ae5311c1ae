package daemon

import (
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"spad/pkg/control"
)

func knockOf(device string, at int) control.Knock {
	return control.Knock{Time: time.Unix(int64(at), 0), Device: device, Source: fmt.Sprint(at), Outcome: refused}
}

func anybody(control.Knock) bool { return true }

// However much one device or a recording does, the knocks of others stay remembered, and the lists have an end.
func TestPastIsBounded(t *testing.T) {
	p := newPast()
	p.fresh.add(knockOf("quiet", 0))
	for i := 1; i < 5000; i++ {
		p.fresh.add(knockOf("loud", i))
		p.doubtful.add(knockOf(fmt.Sprint(i), i))
	}
	count := map[string]int{}
	for _, k := range p.of(anybody) {
		count[k.Device]++
	}
	if count["quiet"] != 1 || count["loud"] != pastShare || len(p.fresh.list) != pastShare+1 || len(p.doubtful.list) != pastDoubtful {
		t.Errorf("%d of quiet, %d of loud, %d fresh, %d doubtful", count["quiet"], count["loud"], len(p.fresh.list), len(p.doubtful.list))
	}
	for i := range 5000 {
		p.fresh.add(knockOf(fmt.Sprint(i), i))
	}
	if len(p.fresh.list) != pastFresh || len(p.fresh.own) != pastFresh {
		t.Errorf("%d fresh of %d devices, want %d", len(p.fresh.list), len(p.fresh.own), pastFresh)
	}
	if all := p.of(anybody); all[0].Time.Before(all[len(all)-1].Time) {
		t.Error("the latest is not first")
	}
}

func TestPastCountsWhatIsAlike(t *testing.T) {
	p := newPast()
	same := control.Knock{Device: "a", Service: "nas", Source: "192.0.2.1", Outcome: "opened", TTL: 900}
	for i := range 100 {
		same.Time = time.Unix(int64(i), 0)
		p.fresh.add(same)
		p.fresh.add(knockOf("b", i))
	}
	all := p.of(func(k control.Knock) bool { return k.Device == "a" })
	if len(all) != 1 || all[0].Count != 100 || all[0].Time != time.Unix(99, 0) {
		t.Errorf("got %+v", all)
	}
}

// Every reason that a knock is refused for has a remedy: the packages that give reasons are read, so that a new one counts.
func TestEveryReasonHasARemedy(t *testing.T) {
	constant := regexp.MustCompile(`(?m)^\s(\w+) +Reason += "(.+?)"`)
	found := 0
	for _, path := range []string{"../verify/reason.go", "../policy/decide.go"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range constant.FindAllSubmatch(data, -1) {
			found++
			if remedies[string(m[2])] == "" {
				t.Errorf("%s of %s has no remedy", m[1], path)
			}
		}
	}
	if found < len(counted)+5 {
		t.Errorf("only %d reasons found: the test looks for the wrong thing", found)
	}
}

// Adding to a full list, of forty devices.
func BenchmarkPast(b *testing.B) {
	p := newPast()
	knocks := make([]control.Knock, 3000)
	for i := range knocks {
		knocks[i] = knockOf(fmt.Sprint("device", i%40), i)
		p.fresh.add(knocks[i])
	}
	for i := 0; b.Loop(); i++ {
		p.fresh.add(knocks[i%len(knocks)])
	}
}
