package control

import (
	"fmt"
	"strings"
)

// maxPath is the longest path a unix socket's address holds: sun_path has 108 bytes, the last one zero.
const maxPath = 107

// checkPath refuses what the kernel would, and a leading @, which package net takes for a socket that is not in the
// file system and so has no mode.
func checkPath(path string) error {
	switch {
	case strings.HasPrefix(path, "@"):
		return fmt.Errorf("the control socket's path %q starts with @: write ./%s", path, path)
	case len(path) == 0 || len(path) > maxPath:
		return fmt.Errorf("the control socket's path has %d bytes, 1 to %d are possible: choose another with --socket", len(path), maxPath)
	}
	return nil
}
