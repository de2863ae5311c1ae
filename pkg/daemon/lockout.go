package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"spad/pkg/config"
	"spad/pkg/firewall"
)

// Lockout returns an error if the guard of cfg would shut out the ssh session that this is typed in. Run finds that out
// by itself, but not if a service manager starts it, outside of the session.
func Lockout(cfg *config.Config) error { return lockout(cfg.Ruleset(cfg.Port), SSHConnection()) }

// SSHConnection returns the SSH_CONNECTION of the ssh session that this process is started from, or nothing. sudo takes it out
// of the environment, so the processes above are looked at too.
func SSHConnection() string {
	if c := os.Getenv("SSH_CONNECTION"); c != "" {
		return c
	}
	for pid := os.Getppid(); pid > 1; pid = parent(pid) {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			return ""
		}
		for _, v := range strings.Split(string(env), "\x00") {
			if c, ok := strings.CutPrefix(v, "SSH_CONNECTION="); ok {
				return c
			}
		}
	}
	return ""
}

// parent returns the parent of a process, or 0.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The command's name, in parentheses, may hold anything; the state and the parent come after the last one.
	words := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(words) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(words[1])
	return ppid
}

// lockout returns an error if the guard of a ruleset would shut out the ssh session of who starts or reloads spad.
// connection is its SSH_CONNECTION: client address, client port, server address, server port.
func lockout(rules firewall.Ruleset, connection string) error {
	words := strings.Fields(connection)
	if len(words) != 4 {
		return nil
	}
	client, err := netip.ParseAddr(words[0])
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(words[3], 10, 16)
	if err != nil {
		return nil
	}
	client = client.Unmap().WithZone("")
	for _, p := range rules.AlwaysAllow {
		if p.Contains(client) {
			return nil
		}
	}
	if client.IsLoopback() {
		return nil
	}
	for _, s := range rules.Services {
		if s.Guard != firewall.GuardOff && guards(s, uint16(port)) {
			return fmt.Errorf("service %q would shut the port of the ssh session you are in (%s, tcp/%d): "+
				"put %s into always_allow, or do it all the same with --allow-lockout", s.Name, client, port, client)
		}
	}
	return nil
}

func guards(s firewall.Service, port uint16) bool {
	for _, p := range s.Ports() {
		if p.Proto == firewall.TCP && p.First <= port && port <= p.Last {
			return true
		}
	}
	return false
}
