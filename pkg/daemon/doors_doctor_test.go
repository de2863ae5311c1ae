package daemon_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// What spad doctor says of a firewall, from its rules alone, is what packets meet: the same kinds of doors are said to be shut
// that TestDoors finds so, and none once the line is there.
func TestDoctorBesideFirewalls(t *testing.T) {
	for _, f := range firewalls {
		for _, b := range backends {
			t.Run(f.name+"/"+b.name, func(t *testing.T) {
				lacks(t, b.programs...)
				d := newDoors(t, f, b.config)
				d.host = d.Router.IP4.String() // there is no name server to wait for
				d.configure(b.config + "\n" + doorServices)
				d.start("--allow-lockout")
				f.load(d.rig)
				own, lan := d.said(t)
				if wantOwn, wantLAN := f.dropped == "own" || f.dropped == "both", f.dropped == "lan" || f.dropped == "both"; own != wantOwn || lan != wantLAN {
					t.Errorf("own doors are said to be shut: %v, want %v; those to the LAN: %v, want %v\n%s", own, wantOwn, lan, wantLAN, d.doctor())
				}
				if f.allow == nil {
					return
				}
				f.allow(d.rig)
				if own, lan := d.said(t); own || lan {
					t.Errorf("with the line, doors are still said to be shut\n%s", d.doctor())
				}
			})
		}
	}
}

func (d *doors) doctor(args ...string) string {
	out, _, _ := d.spad(append([]string{"doctor"}, args...)...)
	return out
}

// said returns which kinds of doors doctor says are shut by other firewalls.
func (d *doors) said(t *testing.T) (own, lan bool) {
	t.Helper()
	var said struct {
		Findings []struct{ Check, Level, What string }
	}
	text := d.doctor("--json")
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, f := range said.Findings {
		if f.Check == "firewall" && f.Level == "FAIL" {
			own = own || strings.Contains(f.What, "own (")
			lan = lan || strings.Contains(f.What, "lan-")
		}
	}
	return own, lan
}
