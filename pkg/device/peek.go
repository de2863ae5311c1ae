package device

import (
	"fmt"
	"path/filepath"
)

// Peek reads the devices of a state directory, and how many invites are open at nowMS, milliseconds since 1970. It takes no
// lock and changes nothing, so it works beside the program that has the state. A directory that is missing is an empty state.
func Peek(dir string, nowMS int64) (devices []Device, invites int, err error) {
	path := filepath.Join(dir, fileName)
	s, err := readState(path)
	if err != nil {
		return nil, 0, fmt.Errorf("reading %q: %w", path, err)
	}
	return s.devices, s.open(nowMS), nil
}
