package main

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// shed unmaps the pages of the program itself that only starting needed. Every package has something to do when a
// program starts, and each time the kernel maps 64 KiB around it, nine tenths of the program in the end. They stay in
// the page cache: what runs again is mapped again by a minor fault. What does not is the first that the kernel takes
// back when memory is short, which it would not do with pages that somebody has mapped.
func shed() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return // without /proc it stays as it is
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range clean(f, self) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED) // or they stay
	}
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// clean reads /proc/PID/smaps and returns the mappings of a file whose pages can be dropped without changing anything:
// those that can't be written, and of which no page differs from the file, as do pages that a dynamic linker has
// relocated or a debugger has put a breakpoint into.
func clean(smaps io.Reader, path string) (all []mapping) {
	var m mapping
	ours := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		switch words := strings.Fields(lines.Text()); {
		case len(words) == 6 && strings.Contains(words[0], "-"):
			m, ours = addresses(words[0]), words[5] == path && (words[1] == "r-xp" || words[1] == "r--p")
		case len(words) == 3 && words[0] == "Anonymous:":
			if ours && words[1] == "0" {
				all = append(all, m)
			}
		}
	}
	return all
}

// addresses reads START-END. What is no number is 0, and of an empty range nothing is dropped.
func addresses(text string) mapping {
	from, to, _ := strings.Cut(text, "-")
	start, err := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if err != nil || err2 != nil {
		return mapping{}
	}
	return mapping{uintptr(start), uintptr(end)}
}
