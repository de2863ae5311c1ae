package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smaps = `00400000-00936000 r-xp 00000000 fe:00 10002778                           /usr/sbin/spad
Size:               5336 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
00936000-00e9d000 r--p 00536000 fe:00 10002778                           /usr/sbin/spad
Anonymous:             0 kB
00e9d000-00eff000 rw-p 00a9d000 fe:00 10002778                           /usr/sbin/spad
Anonymous:             0 kB
00eff000-00f22000 r--p 00a9d000 fe:00 10002778                           /usr/sbin/spad
Anonymous:            12 kB
7f0000000000-7f0000010000 r-xs 00000000 fe:00 10002778                   /usr/sbin/spad
Anonymous:             0 kB
7f4e8b3ee000-7f4e8b600000 rw-p 00000000 00:00 0
Anonymous:           136 kB
7f5e8b3ee000-7f5e8b600000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f6e8b3ee000-7f6e8b600000 r-xp 00000000 fe:00 4711                       /lib/libc.so.6
Anonymous:             0 kB
7ffe8b3ee000-7ffe8b600000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`

// Only what the file has, unchanged and unchangeable, may be dropped.
func TestClean(t *testing.T) {
	got := clean(strings.NewReader(smaps), "/usr/sbin/spad")
	want := []mapping{{0x400000, 0x936000}, {0x936000, 0xe9d000}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
}

// In this very process: the program is still there afterwards, and runs.
func TestShed(t *testing.T) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	if found := clean(strings.NewReader(string(data)), self); len(found) == 0 {
		t.Errorf("nothing of %s can be dropped:\n%s", filepath.Base(self), data)
	}
	shed()
	if got := len(strings.Fields(smaps)); got == 0 {
		t.Error("a constant has gone")
	}
}
