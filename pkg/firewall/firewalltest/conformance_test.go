package firewalltest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConformance(t *testing.T) { conformanceOfFake(t) }

func TestResults(t *testing.T) {
	rows := []string{"door", "shut at once", "mark"}
	var r table
	print := func() string {
		var b strings.Builder
		r.print(&b, rows)
		return b.String()
	}
	if got := print(); got != "" {
		t.Errorf("printed without a run:\n%s", got)
	}
	r.set("real", "door", passed)
	r.set("real", "shut at once", failed)
	r.set("real", "shut at once", passed) // a second run does not heal the first
	r.set("fake", "door", passed)
	r.set("fake", "shut at once", skipped)
	r.set("fake", "mark", needsKernel)
	want := `
door         | real ok             | fake ok
shut at once | real FAILED         | fake skipped
mark         | real not run        | fake needs a kernel
conformance real: 1 of 3 ok, 1 FAILED, 1 not run
conformance fake: 1 of 2 ok, 1 need a kernel, 1 skipped
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), print()); diff != "" {
		t.Error(diff)
	}
}
