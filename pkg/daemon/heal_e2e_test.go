package daemon_test

import (
	"strings"
	"testing"
	"time"
)

// Another program flushes what it can, over and over: guard and doors come back with the time that is left, the log has
// one line of it, and the stranger finds the port shut again.
func TestHealing(t *testing.T) {
	flushes := map[string][]string{
		"nftables":        {"nft flush ruleset"},
		"iptables nft":    {"nft flush ruleset"},
		"iptables legacy": {"iptables-legacy -t mangle -F", "iptables-legacy -t nat -F", "iptables-legacy -t filter -F"},
	}
	for name, lines := range filters {
		t.Run(name, func(t *testing.T) {
			lacks(t, "iptables-nft", "iptables-legacy", "nft")
			r := newRig(t, lines+services)
			r.start()
			r.enrol(r.Laptop, "web,nas")
			r.expectKnock(r.Laptop, 0, "nas", "web", "-4")
			until := time.Now().Add(time.Hour)
			for range 6 {
				for _, flush := range flushes[name] {
					words := strings.Fields(flush)
					if out, err := r.Router.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
						t.Fatalf("%s: %v\n%s", flush, err, out)
					}
				}
				r.eventually("the stranger is shut out again", func() bool { return get(r.Stranger, r.Router.At(false, 8080)) == "" })
				r.eventually("the doors are back", func() bool {
					return get(r.Laptop, r.Router.At(false, 7890)) == "lan host" && get(r.Laptop, r.Router.At(false, 8080)) == "router"
				})
			}
			if n := strings.Count(r.log.String(), "backend healed"); n != 1 {
				t.Errorf("%d lines tell of it, want one", n)
			}
			for _, s := range r.sessionTimes() {
				if s.After(until.Add(2 * time.Second)) {
					t.Errorf("a door stays open until %v, was opened until %v", s, until)
				}
			}
		})
	}
}

// sessionTimes returns until when the open sessions last.
func (r *rig) sessionTimes() []time.Time {
	r.t.Helper()
	var all []struct{ Until time.Time }
	r.decode(&all, "sessions", "--json")
	var times []time.Time
	for _, s := range all {
		times = append(times, s.Until)
	}
	return times
}
