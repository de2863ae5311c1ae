package daemon_test

import (
	"net/netip"
	"strings"
	"testing"
)

// An address that the router has just got is its own after a reload, so that no door is opened to it: what configures the
// network can say when that is.
func TestReloadLearnsOwnAddresses(t *testing.T) {
	r := newRig(t, services)
	r.start()
	fresh := netip.MustParseAddr("203.0.113.77")
	r.must("open", "web", "--from", fresh.String())
	if err := r.Router.AddAddr(fresh); err != nil {
		t.Fatal(err)
	}
	r.must("reload")
	if _, said, code := r.spad("open", "web", "--from", fresh.String()); code != 2 || !strings.Contains(said, "the router's own") {
		t.Errorf("a door to the router itself: exit code %d: %s", code, said)
	}
}
