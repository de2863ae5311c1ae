package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"spad/pkg/wire"
)

// filters are the lines of a configuration that choose each packet filter, by the name that spad status gives it.
var filters = map[string]string{
	"nftables":        "",
	"iptables nft":    "firewall = \"iptables\"\niptables = \"nft\"\n",
	"iptables legacy": "firewall = \"iptables\"\niptables = \"legacy\"\n",
}

// The main job, and the kernel's, on every packet filter.
func TestEveryFilter(t *testing.T) {
	for name, lines := range filters {
		t.Run(name, func(t *testing.T) {
			lacks(t, "iptables-nft", "iptables-legacy")
			r := newRig(t, lines+services)
			r.start()
			if status := r.must("status"); !strings.Contains(status, name) {
				t.Errorf("status does not name %s:\n%s", name, status)
			}
			r.enrol(r.Laptop, "web,group:family")
			r.sees(r.Laptop, 8080, "", "")
			r.sees(r.Laptop, 7890, "", "")
			r.expectKnock(r.Laptop, 0, "nas", "web", "-4")
			six := open("web")
			six.TTL = 3
			packet, waiter := r.newDevice("six", "web").seal(six)
			if a, err := r.exchange(r.Laptop, true, packet, waiter); err != nil || a.Status != wire.Opened {
				t.Errorf("answer over IPv6: %+v, %v", a, err)
			}
			r.sees(r.Laptop, 7890, "lan host", "")
			r.sees(r.Laptop, 8080, "router", "router")
			r.sees(r.Stranger, 7890, "", "")
			r.sees(r.Stranger, 8080, "", "")
			r.kill(syscall.SIGKILL)
			r.eventually("the kernel shuts web", func() bool { return get(r.Laptop, r.Router.At(true, 8080)) == "" })
			r.sees(r.Laptop, 7890, "lan host", "")
			r.start()
			r.sees(r.Laptop, 7890, "lan host", "")
			r.expectKnock(r.Laptop, 0, "close", "nas")
			r.sees(r.Laptop, 7890, "", "")
			r.must("down")
			r.sees(r.Stranger, 8080, "router", "router")
		})
	}
}

// A configuration that names another packet filter takes the doors over, and leaves nothing in the one before.
func TestChangeOfFilter(t *testing.T) {
	lacks(t, "iptables-nft", "iptables-legacy", "nft")
	r := newRig(t, services)
	order := []string{"nftables", "iptables legacy", "iptables nft", "nftables"}
	left := map[string]string{"nftables": "nft list tables", "iptables nft": "iptables-nft-save", "iptables legacy": "iptables-legacy-save"}
	for i, name := range order {
		t.Logf("on %s", name)
		r.configure(filters[name] + services)
		r.start()
		if i == 0 {
			r.enrol(r.Laptop, "web,nas")
			r.expectKnock(r.Laptop, 0, "nas", "-4")
		}
		r.sees(r.Laptop, 7890, "lan host", "")
		r.sees(r.Laptop, 8080, "", "")
		r.expectKnock(r.Laptop, 0, "web", "-4")
		r.sees(r.Laptop, 8080, "router", "")
		r.sees(r.Stranger, 7890, "", "")
		r.expectKnock(r.Laptop, 0, "close", "web")
		r.kill(syscall.SIGTERM)
		for other, command := range left {
			words := strings.Fields(command)
			out, err := r.Router.Command(words[0], words[1:]...).Output()
			if has := strings.Contains(strings.ReplaceAll(string(out), "#", ""), "spad"); err != nil || has != (other == name) {
				t.Errorf("on %s, %s has rules of spad's: %v, %v\n%s", name, other, has, err, out)
			}
		}
	}
	r.must("down")
	r.sees(r.Stranger, 8080, "router", "router")
	if _, err := os.Stat(filepath.Join(r.dir, "state", "firewall")); !os.IsNotExist(err) {
		t.Errorf("the state still says which firewall has rules: %v", err)
	}
}
