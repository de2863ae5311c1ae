package doctor_test

import (
	"strings"
	"testing"

	"spad/pkg/firewall/firewalltest"
)

// The other side: the real knock says what it sees of the real router, from the open internet, from behind NAT, behind a
// firewall that drops its packets, and when the router does not know it any more.
func TestKnockDoctor(t *testing.T) {
	r := newRig(t, "hostname = \"203.0.113.1\"\n")
	home := r.AddHome(1)
	behind := r.AddHost("behind", home, "10.1.0.5", "")
	r.start()
	folder := r.dir + "/knock"
	knock := func(h *firewalltest.Host, args ...string) (string, int) {
		t.Helper()
		cmd := h.Command(strings.TrimSuffix(r.bin, "spad")+"knock", append(args, "--config", folder)...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	invite, err := r.Router.Command(r.bin, append([]string{"invite", "laptop", "--allow", "ssh", "--no-qr"}, r.paths()...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	line := ""
	for word := range strings.FieldsSeq(string(invite)) {
		if strings.HasPrefix(word, "knock1:") {
			line = word
		}
	}
	if said, code := knock(r.Laptop, "enroll", line, "--name", "home"); code != 0 {
		t.Fatalf("%d: %s", code, said)
	}
	for _, tt := range []struct {
		name string
		do   func()
		from *firewalltest.Host
		code int
		want string
	}{
		{"well", func() {}, r.Laptop, 0, "saw you as 203.0.113.10; packets leave by "},
		{"behind NAT", func() {}, behind, 0, "saw you as 203.0.113.101 (you are behind NAT, here it is 10.1.0.5)"},
		{"dropped", func() { nft(inputNFT)(r) }, r.Laptop, 3, "nothing came back from 203.0.113.1:41372, asked from 203.0.113.10"},
		{"let pass", func() { r.tool("", "nft", "insert", "rule", "inet", "filter", "input", nftLine) }, r.Laptop, 0, "the router answered in"},
		{"removed", func() {
			r.tool("", r.bin, append([]string{"device", "remove", "laptop"}, r.paths()...)...)
		}, r.Laptop, 3, "there: spad device list"},
	} {
		tt.do()
		if said, code := knock(tt.from, "doctor"); code != tt.code || !strings.Contains(said, tt.want) {
			t.Errorf("%s: exit code %d, want %d and %q in\n%s", tt.name, code, tt.code, tt.want, said)
		}
	}
}
