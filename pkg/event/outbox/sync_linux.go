package outbox

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync waits until the file's bytes, and the length needed to read them back, are on disk.
func fdatasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
