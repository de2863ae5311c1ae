package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every device is lost: with the paper a door opens from a machine that was never enrolled, and only for it.
func TestRescue(t *testing.T) {
	r := newRig(t, services)
	r.start()
	paper, says, code := r.spad("device", "rescue", "--allow", "web")
	if code != 0 || !strings.Contains(says, "knock rescue -") {
		t.Fatalf("spad device rescue: exit code %d, %s", code, says)
	}
	rescue := func(service string) (string, int) {
		t.Helper()
		out, errs, code := r.run(r.Stranger, strings.ToUpper(strings.ReplaceAll(paper, "-", " ")), "knock", "rescue", "-", service)
		return out + errs, code
	}
	if out, code := rescue("web"); code != 0 {
		t.Errorf("knock rescue: exit code %d, %s", code, out)
	}
	r.sees(r.Stranger, 8080, "router", "") // the key names the router's IPv4 address
	r.sees(r.Laptop, 8080, "", "")
	if out, code := rescue("nas"); code != 4 {
		t.Errorf("a service that it may not open: exit code %d, %s", code, out)
	}

	// No file of the router, nor its log, has the secret.
	row := strings.ReplaceAll(strings.Split(paper, "\n")[3], "-", "")
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(strings.ReplaceAll(string(data), "-", ""), row) {
			t.Errorf("%s has a row of the rescue key", path)
		}
		return err
	})
	if err != nil || strings.Contains(r.log.String(), row) {
		t.Errorf("looking for the secret: %v\n%s", err, r.log)
	}
	r.must("device", "remove", "rescue")
	r.sees(r.Stranger, 8080, "", "")
	if out, code := rescue("web"); code != 3 {
		t.Errorf("after it was removed: exit code %d, %s", code, out)
	}
}
