package daemon_test

import (
	"strings"
	"syscall"
	"testing"
)

// A run that nobody confirms leaves nothing in the firewall: when its time is over, when it is stopped, when it is killed.
func TestRunOnTrial(t *testing.T) {
	for _, tt := range []struct {
		name, trial string
		firewall    string
		confirm     bool
		end         func(*rig)
		code        int // -1: killed
		seen        string
	}{
		{"time over", "6s", "", false, func(*rig) {}, 1, "router"},
		{"stopped", "60s", "", false, func(r *rig) { r.daemon.Process.Signal(syscall.SIGTERM) }, 1, "router"},
		{"killed", "60s", "", false, func(r *rig) { r.daemon.Process.Kill() }, -1, "router"},
		{"killed, iptables", "60s", "firewall = \"iptables\"\n", false, func(r *rig) { r.daemon.Process.Kill() }, -1, "router"},
		{"confirmed and stopped", "60s", "", true, func(r *rig) { r.daemon.Process.Signal(syscall.SIGTERM) }, 0, ""},
		{"confirmed and killed", "60s", "", true, func(r *rig) { r.daemon.Process.Kill() }, -1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.firewall+services)
			r.start("--trial", tt.trial)
			if tt.trial == "60s" { // else it may be over by now
				if out := r.must("status"); !strings.Contains(out, "unless you say: spad confirm") {
					t.Errorf("status: %s", out)
				}
				r.sees(r.Stranger, 8080, "", "")
			}
			if tt.confirm {
				r.must("confirm")
				if out := r.must("status"); strings.Contains(out, "confirm") {
					t.Errorf("status when confirmed: %s", out)
				}
				if _, errs, code := r.spad("confirm"); code != 2 || !strings.Contains(errs, "nothing is on trial") {
					t.Errorf("confirmed twice: exit code %d, %s", code, errs)
				}
			}
			tt.end(r)
			r.daemon.Wait()
			if code := r.daemon.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if tt.seen != "" {
				r.eventually("the guard is gone", func() bool { return get(r.Stranger, r.Router.At(false, 8080)) == tt.seen })
				r.eventually("it is logged", func() bool { return strings.Contains(r.log.String(), "everything of spad's was taken out") })
			}
			r.sees(r.Stranger, 8080, tt.seen, tt.seen)
		})
	}
}

// A second daemon on trial must not take the rules of the first one away.
func TestTrialBesideADaemon(t *testing.T) {
	r := newRig(t, services)
	r.start()
	if _, errs, code := r.spad("run", "--trial", "1s"); code != 1 || !strings.Contains(errs, "state") {
		t.Errorf("a second daemon: exit code %d, %s", code, errs)
	}
	r.sees(r.Stranger, 8080, "", "")
}

// withoutWeb takes the service web away, so that its port is in the open, and lets nas open for a minute only.
var withoutWeb = strings.Replace(services[strings.Index(services, "[service.nas]"):], `ttl = "1h"`, "ttl = \"1m\"\nmax_ttl = \"1m\"", 1)

// onTrial is a rig whose laptop has two doors, and whose new configuration takes one away and cuts the other.
func onTrial(t *testing.T, length string) *rig {
	r := newRig(t, services)
	r.start()
	r.enrol(r.Laptop, "web,nas")
	r.expectKnock(r.Laptop, 0, "web", "nas", "-4")
	r.configure(withoutWeb)
	if out := r.must("reload", "--trial", length); !strings.Contains(out, "spad confirm") {
		t.Errorf("reload says %q", out)
	}
	r.sees(r.Stranger, 8080, "router", "router")
	if s := r.sessions(); len(s) != 1 || s[0].Service != "nas" {
		t.Errorf("on trial: %+v", s)
	}
	if _, errs, code := r.spad("reload"); code != 2 || !strings.Contains(errs, "on trial") {
		t.Errorf("a reload during a trial: exit code %d, %s", code, errs)
	}
	return r
}

// longDoors is how many doors are open for longer than the configuration on trial lets them.
func (r *rig) longDoors() (n int) {
	var all []struct {
		Left int `json:"ttl_left"`
	}
	r.decode(&all, "sessions", "--json")
	for _, s := range all {
		if s.Left > 1800 {
			n++
		}
	}
	return n
}

func TestReloadOnTrialReverts(t *testing.T) {
	r := onTrial(t, "8s")
	r.eventually("the old configuration is back", func() bool { return get(r.Stranger, r.Router.At(false, 8080)) == "" })
	r.eventually("its doors are back, for the rest of their time", func() bool { return r.longDoors() == 2 })
	r.sees(r.Laptop, 8080, "router", "")
	r.sees(r.Laptop, 7890, "lan host", "")
	if _, errs, code := r.spad("confirm"); code != 2 || !strings.Contains(errs, "nothing is on trial") {
		t.Errorf("confirmed too late: exit code %d, %s", code, errs)
	}
	// The file was never confirmed: a start does not take it, a reload does.
	r.kill(syscall.SIGTERM)
	r.start()
	r.sees(r.Stranger, 8080, "", "")
	if !strings.Contains(r.log.String(), "nobody confirmed it") {
		t.Error("the start does not say which configuration it uses")
	}
	r.must("reload")
	r.sees(r.Stranger, 8080, "router", "router")
	r.kill(syscall.SIGTERM)
	r.start()
	r.sees(r.Stranger, 8080, "router", "router")
}

func TestReloadOnTrialConfirmed(t *testing.T) {
	r := onTrial(t, "60s")
	r.must("confirm")
	r.kill(syscall.SIGKILL)
	r.start()
	r.sees(r.Stranger, 8080, "router", "router")
}

func TestReloadOnTrialKilled(t *testing.T) {
	r := onTrial(t, "60s")
	r.kill(syscall.SIGKILL)
	r.eventually("the old guard is back without a daemon", func() bool { return get(r.Stranger, r.Router.At(false, 8080)) == "" })
	r.sees(r.Laptop, 7890, "lan host", "")
	r.start()
	r.sees(r.Stranger, 8080, "", "")
}

// spad down clears the firewall during a trial too, and the guard brings nothing back.
func TestDownDuringATrial(t *testing.T) {
	r := onTrial(t, "60s")
	r.must("down")
	r.daemon.Wait()
	r.sees(r.Laptop, 7890, "", "")
	r.sees(r.Stranger, 8080, "router", "router")
}
