//go:build !unix

package keys

import (
	"io/fs"
	"os"
)

func openKey(path string) (*os.File, error) { return os.Open(path) }

// checkOwner has nothing to look at: here the user's profile folder keeps others out.
func checkOwner(fs.FileInfo, string) error { return nil }

func createFile(path string, data []byte) error { return createExclusive(path, data) }
