package daemon_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// lacks skips a test where a program is missing; with CI=true it fails.
func lacks(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
}

// tool runs a program of the system on the router, and returns what it wrote.
func (r *rig) tool(stdin, name string, args ...string) string {
	r.t.Helper()
	cmd := r.Router.Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+r.dir+"/xtables.lock", "PYTHONDONTWRITEBYTECODE=1")
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// links replaces the names of links in a ruleset.
func (r *rig) links(text string) string {
	wan, _ := r.Router.Links()
	_, lan := r.LANHost.Links()
	names := []string{"WAN_LINK", wan, "LAN_LINK", lan}
	if r.container != nil {
		_, bridge := r.container.Links()
		names = append(names, "BRIDGE_LINK", bridge)
	}
	return strings.NewReplacer(names...).Replace(text)
}

// ruleset reads a file of testdata/firewall.
func (r *rig) ruleset(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join("../../testdata/firewall", name))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.links(string(text))
}

func (r *rig) nft(ruleset string) { r.t.Helper(); r.tool(ruleset, "nft", "-f", "-") }

// restore loads rules for one of iptables-legacy, ip6tables-nft and so on.
func (r *rig) restore(program, rules string) { r.t.Helper(); r.tool(rules, program+"-restore") }

// foreign lists everything in the router's packet filters that is not ours, without what counts packets.
func (r *rig) foreign() string {
	r.t.Helper()
	all := ours.ReplaceAllString(r.tool("", "nft", "--stateless", "list", "ruleset"), "")
	for _, program := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "ipset"} {
		if _, err := exec.LookPath(program); err != nil {
			continue
		}
		var args []string
		if program == "ipset" {
			args = []string{"save"}
		}
		all += counts.ReplaceAllString(r.tool("", program, args...), "")
	}
	return all
}

var (
	ours   = regexp.MustCompile(`(?ms)^table inet spad \{$.*?^\}\n`)
	counts = regexp.MustCompile(`(?m)^#.*\n|\[\d+:\d+\]`)
	// What iptables leaves behind of a table that it once looked at: chains that let everything pass.
	builtins = regexp.MustCompile(`(?m)^\tchain [A-Z]+ \{\n\t\ttype .* policy accept;\n\t\}\n|^# Warning: table .* is managed by iptables-nft.*\n`)
	blanks   = regexp.MustCompile(`(?m)^\n`)
	empties  = regexp.MustCompile(`(?m)^table ip6? [a-z]+ \{\n\}\n|^\*[a-z]+\n(:[A-Z]+ ACCEPT *\n)+COMMIT\n`)
)

// withoutBuiltins leaves out the empty chains that every iptables makes in passing.
func withoutBuiltins(ruleset string) string {
	ruleset = blanks.ReplaceAllString(builtins.ReplaceAllString(ruleset, ""), "")
	return empties.ReplaceAllString(ruleset, "")
}
