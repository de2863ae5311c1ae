//go:build !linux

package replay

import "os"

// fdatasync waits until the file is on disk.
func fdatasync(f *os.File) error { return f.Sync() }
