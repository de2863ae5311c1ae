package iptables

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"spad/pkg/firewall"
)

// slow is a rulebook that another program keeps waiting, as the lock of iptables does.
type slow struct {
	tables
	wait time.Duration
	err  error
}

func (s slow) restore(text string) error {
	time.Sleep(s.wait)
	return errors.Join(s.err, s.tables.restore(text))
}

// TestApplyThatWaits: a door's time runs while Apply waits.
func TestApplyThatWaits(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want []string // 10.0.0.1 was open before
		gone []string
	}{
		{"applied", nil, []string{"10.0.0.1/32/80s", "10.0.0.2/32/50s"}, []string{"10.0.0.3"}},
		{"failed", errors.New("broken"), []string{"10.0.0.1/32/60s", "10.0.0.4/32/50s"}, []string{"10.0.0.2", "10.0.0.3", "10.0.0.5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKernel()
				b := k.backend()
				must(t, b.Apply(rules(), []firewall.Door{
					door("ssh", "10.0.0.1/32", 60), door("ssh", "10.0.0.4/32", 60), door("ssh", "10.0.0.5/32", 5),
				}))
				b.families[0].table = slow{b.families[0].table, 5 * time.Second, c.err}
				err := b.Apply(rules(), []firewall.Door{
					door("ssh", "10.0.0.1/32", 90), door("ssh", "10.0.0.2/32", 60), door("ssh", "10.0.0.3/32", 3),
				})
				if !errors.Is(err, c.err) {
					t.Errorf("%v, want %v", err, c.err)
				}
				now := k.String()
				for _, want := range c.want {
					if !strings.Contains(now, want) {
						t.Errorf("%s is missing", want)
					}
				}
				for _, gone := range c.gone {
					if strings.Contains(now, gone) {
						t.Errorf("%s is open", gone)
					}
				}
				if t.Failed() {
					t.Log(now)
				}
			})
		})
	}
}

func TestDoorsOfAnotherProcess(t *testing.T) {
	synctest.Test(t, doorsOfAnotherProcess) // no time passes
}

func doorsOfAnotherProcess(t *testing.T) {
	k := newKernel()
	want := []firewall.Door{
		door("a-name-that-has-thirty-two-chars", "10.0.0.1/32", 60), door("a-name-that-has-thirty-two-chars", "2001:db8:0:100::/56", 70),
		door("nas", "fd00::1/128", 80),
	}
	must(t, k.backend().Apply(rules(), want))
	got, err := k.backend().Doors()
	if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}
