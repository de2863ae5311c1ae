package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"spad/keys"
	"spad/pkg/wire"
)

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){"knock": main})
}

// leakless are tests that must not leave a goroutine behind.
type leakless struct{ *testing.M }

// Run implements testscript.TestingM.
func (m leakless) Run() (code int) {
	goleak.VerifyTestMain(m.M, goleak.Cleanup(func(c int) { code = c }))
	return code
}

// TestScripts runs the real command. Beside what testscript has, a script can say
//
//	router NAME                  start one; $NAME_port is its UDP port, $NAME_tcp the port it opens, $NAME_key its key
//	invite NAME HOST SERVICE...  make an invite, $NAME_invite; with EXPIRED for HOST's first letter, an old one
//	rescue NAME HOST             make a rescue key, $NAME_rescue, and NAME.rescue with its rows
//	say NAME STATUS              answer that from now on: opened, denied, busy, silence …
//	grant NAME TTL PORT          what goes with opened
//	await NAME OP COUNT          wait until so many packets came
//	code N COMMAND...            run a command and expect this exit code
//	oneline                      stderr is one line, lower case, and says who speaks
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/config")
			e.Values["routers"] = make(map[string]*testRouter)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"router": startRouter, "invite": makeInvite, "say": say, "grant": setGrant, "await": await, "code": code, "oneline": oneLine,
			"rescue": makeRescue,
		},
		Condition: func(cond string) (bool, error) {
			return hasIPv6() && (cond == "ipv6" || cond == "localhost6" && localhost6()), nil
		},
	})
}

func hasIPv6() bool {
	r, err := newTestRouter()
	if err != nil {
		return false
	}
	defer r.close()
	return len(r.conns) == 2
}

// localhost6 reports whether the name has both families, which not all machines say.
func localhost6() bool {
	ips, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip6", "localhost")
	return err == nil && len(ips) > 0
}

func routers(ts *testscript.TestScript) map[string]*testRouter {
	return ts.Value("routers").(map[string]*testRouter)
}

func named(ts *testscript.TestScript, name string) *testRouter {
	r := routers(ts)[name]
	if r == nil {
		ts.Fatalf("no router %s", name)
	}
	return r
}

func startRouter(ts *testscript.TestScript, _ bool, args []string) {
	r, err := newTestRouter()
	ts.Check(err)
	ts.Defer(r.close)
	routers(ts)[args[0]] = r
	ts.Setenv(args[0]+"_port", strconv.Itoa(int(r.port)))
	ts.Setenv(args[0]+"_tcp", strconv.Itoa(int(r.answer.Port)))
	ts.Setenv(args[0]+"_key", r.secret.Public().String())
}

func makeInvite(ts *testscript.TestScript, _ bool, args []string) {
	expires := time.Now().Add(15 * time.Minute)
	if args[1] == "EXPIRED" {
		expires = time.Now().Add(-3 * time.Hour)
		args = append(args[:1:1], args[2:]...)
	}
	text, err := named(ts, args[0]).invite(args[1], expires, args[2:])
	ts.Check(err)
	ts.Setenv(args[0]+"_invite", text)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".invite"), []byte(text+"\n"), 0o600))
}

func makeRescue(ts *testscript.TestScript, _ bool, args []string) {
	r := named(ts, args[0])
	v, err := keys.GenerateRescue(rand.Reader, r.secret.Public(), net.JoinHostPort(args[1], strconv.Itoa(int(r.port))))
	ts.Check(err)
	rows, err := v.Rows()
	ts.Check(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	key := v.Device().Public()
	r.devices[wire.DeviceIDOf(key)] = key
	ts.Setenv(args[0]+"_rescue", strings.Join(rows, "-"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".rescue"), []byte(strings.Join(rows, "\n")+"\n"), 0o600))
	rows[1], rows[2] = rows[2], rows[1]
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".slip"), []byte(strings.Join(rows, "\n")+"\n"), 0o600))
}

func say(ts *testscript.TestScript, _ bool, args []string) {
	statuses := map[string]wire.Status{
		"opened": wire.Opened, "denied": wire.Denied, "clockoff": wire.ClockOff, "mismatch": wire.Mismatch,
		"busy": wire.Busy, "failed": wire.Failed, "silence": noReply,
	}
	status, ok := statuses[args[1]]
	if !ok {
		ts.Fatalf("no status %s", args[1])
	}
	r := named(ts, args[0])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func setGrant(ts *testscript.TestScript, _ bool, args []string) {
	ttl, err := strconv.ParseUint(args[1], 10, 16)
	ts.Check(err)
	port, err := strconv.ParseUint(args[2], 10, 16)
	ts.Check(err)
	r := named(ts, args[0])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = wire.Answer{TTL: uint16(ttl), Port: uint16(port)}
}

func await(ts *testscript.TestScript, _ bool, args []string) {
	op := map[string]wire.Op{"open": wire.OpOpen, "close": wire.OpClose, "enroll": wire.OpEnroll, "hello": wire.OpHello}[args[1]]
	want, err := strconv.Atoi(args[2])
	ts.Check(err)
	deadline := time.After(20 * time.Second)
	for {
		n, changed := named(ts, args[0]).knocks(op)
		if n >= want {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			ts.Fatalf("%d packets came, want %d", n, want)
		}
	}
}

func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	ts.Logf("[stdout]\n%s[stderr]\n%s", ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func oneLine(ts *testscript.TestScript, _ bool, _ []string) {
	text := ts.ReadFile("stderr")
	if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "knock: ") || !strings.HasSuffix(text, "\n") {
		ts.Fatalf("stderr is not one line of knock's: %q", text)
	}
}
