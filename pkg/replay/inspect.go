package replay

import (
	"fmt"
	"time"
)

// Condition is how a journal is found while nobody, or another process, uses it.
type Condition struct {
	Missing bool
	// Killed says that it is whole and has no clean end: spad runs, or was not stopped in good order.
	Killed bool
	// Damage says where it is not whole, or is empty. It may be a record that is being written.
	Damage string
	// Saved is what the knock clock starts from at least; zero if nothing was saved.
	Saved time.Time
}

// Inspect reads a journal and changes nothing. It fails if it can't be read or is of an unknown version.
func Inspect(path string) (Condition, error) {
	t, end, err := read(&file{path: path})
	if err != nil {
		return Condition{}, fmt.Errorf("reading the replay journal %q: %w", path, err)
	}
	c := Condition{Missing: end.trouble == missing, Killed: end.trouble == killed}
	if !end.clean && !c.Missing && !c.Killed {
		c.Damage = end.trouble
	}
	if t.saved > 0 {
		c.Saved = time.UnixMilli(t.saved)
	}
	return c, nil
}
