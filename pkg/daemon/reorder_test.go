package daemon_test

import (
	"encoding/json"
	"testing"
	"time"

	"spad/pkg/wire"
)

// An open that a later close overtook never leaves the door open, however the two race through the daemon.
func TestCloseOvertakesOpen(t *testing.T) {
	r := newRig(t, "budget = { source = \"100000/s\", burst = 100000 }\n"+services)
	r.start()
	d := r.newDevice("laptop", "web")
	c, err := r.Laptop.Dial("udp", r.Router.At(false, r.port), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begin := time.Now().UnixMilli()
	for i := range int64(100) {
		opening, shutting := open("web"), wire.Message{Op: wire.OpClose, Service: wire.ServiceIDOf("web")}
		opening.TimeMS, shutting.TimeMS = begin+2*i, begin+2*i+1
		first, _ := d.seal(opening)
		second, w := d.seal(shutting)
		c.Write(first)
		if got := r.send(r.Laptop, second, w); got != "closed" {
			t.Fatalf("close: %s", got)
		}
	}
	r.eventually("every packet is done with", func() bool {
		var status struct{ Counters map[string]int }
		if err := json.Unmarshal([]byte(r.must("status", "--json")), &status); err != nil {
			t.Fatal(err)
		}
		c := status.Counters
		return c["knocks"]+c["refused: replayed"] == 200
	})
	if s := r.sessions(); len(s) != 0 {
		t.Errorf("still open: %+v", s)
	}
	r.sees(r.Laptop, 8080, "", "")
}
