package doctor_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/firewall/firewalltest"
)

func TestMain(m *testing.M) { os.Exit(firewalltest.Main(m)) }

// spad builds the real spad, and knock beside it, once.
var spad = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "spad-doctor-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-buildvcs=false", "-tags", "urfave_cli_no_docs", "-o", dir+"/", "spad/spad", "spad/knock").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building spad: %w\n%s", err, out)
	}
	return dir + "/spad", nil
})

// rig is a router in a lab, with a configuration, whose doctor is the real one.
type rig struct {
	*firewalltest.Lab
	t   *testing.T
	bin string
	dir string
}

const services = `
[service.ssh]
open = ["tcp/2222"]

[service.web]
open = ["tcp/8080"]

[service.nas]
forward = { port = "tcp/7890", to = ["192.168.1.50:80", "[fd00:1::50]:80"] }
on_expire = "cut"
`

func newRig(t *testing.T, config string) *rig {
	t.Helper()
	t.Parallel()
	lab := firewalltest.NewLab(t)
	bin, err := spad()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Lab: lab, t: t, bin: bin, dir: t.TempDir()}
	secret, err := keys.GenerateRouter(rand.Reader)
	if err == nil {
		err = keys.WriteRouterFile(filepath.Join(r.dir, "router.key"), secret)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "spad.toml"), []byte("listen = \":41372\"\n"+config+services), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := lab.Router.Sysctl(path, "1"); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// add adds to the configuration.
func (r *rig) add(service string) {
	r.t.Helper()
	file := filepath.Join(r.dir, "spad.toml")
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(text, "\n"+service...), 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) paths() []string {
	return []string{"--config", r.dir + "/spad.toml", "--state", r.dir + "/state", "--socket", r.dir + "/spad.sock"}
}

// start runs the daemon and waits until it answers.
func (r *rig) start() {
	r.t.Helper()
	cmd := r.Router.Command(r.bin, append([]string{"run"}, r.paths()...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("log of spad:\n%s", &log)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if r.Router.Command(r.bin, append([]string{"status"}, r.paths()...)...).Run() == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("spad does not answer")
		}
	}
}

// needs skips a test where a program is missing; with CI=true that is a failure.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
}

// tool runs a program on the router.
func (r *rig) tool(stdin, name string, args ...string) {
	r.t.Helper()
	needs(r.t, name)
	cmd := r.Router.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// finding is one of doctor's, as its JSON has it.
type finding struct{ Check, Level, What, Remedy string }

// findings are all.
type findings []finding

// doctor runs spad doctor on the router, and wants this exit code.
func (r *rig) doctor(want int, wrap ...string) findings {
	r.t.Helper()
	argv := append(append(wrap, r.bin, "doctor", "--json"), r.paths()...)
	cmd := r.Router.Command(argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	var said struct {
		OK       bool
		Findings findings
	}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil {
		r.t.Fatalf("%v\n%s\n%s", err, &out, &errs)
	}
	if code := cmd.ProcessState.ExitCode(); code != want || said.OK != (want == 0) {
		r.t.Errorf("exit code %d, want %d: %s\n%v", code, want, &errs, said.Findings)
	}
	return said.Findings
}

func (f findings) String() string {
	var b strings.Builder
	for _, one := range f {
		fmt.Fprintf(&b, "%s %s: %s\n        %s\n", one.Level, one.Check, one.What, one.Remedy)
	}
	return b.String()
}

// has reports whether there is a finding with these texts in it.
func (f findings) has(check, level, what, remedy string) bool {
	for _, one := range f {
		if one.Check == check && one.Level == level && strings.Contains(one.What, what) && strings.Contains(one.Remedy, remedy) {
			return true
		}
	}
	return false
}

// fails returns the checks that failed.
func (f findings) fails() (checks []string) {
	for _, one := range f {
		if one.Level == "FAIL" {
			checks = append(checks, one.Check)
		}
	}
	return checks
}

// ruleset returns what nft lists, and the tables of iptables-legacy that there are.
func (r *rig) ruleset() string {
	r.t.Helper()
	nft, err := r.Router.Command("nft", "-a", "list", "ruleset").Output()
	if err != nil {
		r.t.Fatal(err)
	}
	legacy, _ := r.Router.Command("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names").Output()
	return string(nft) + string(legacy)
}
