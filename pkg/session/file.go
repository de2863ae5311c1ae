package session

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
)

// fileVersion is the version of the file of sessions. Of another version nothing is taken over: fail shut.
const fileVersion = 1

// compactAt is how many lines the file may have before it is worth writing it anew.
const compactAt = 4096

// file keeps the sessions as JSON lines: a header, then a line for each change, the last one of an id counts. A change
// is not synced to the disk: it must outlive the process, not the boot, for a reboot forgets the doors anyway.
type file struct {
	path   string
	bootID string
	live   func() []*Session // what to write when the file is made anew
	f      *os.File
	lines  int
}

type header struct {
	Version int    `json:"version"`
	BootID  string `json:"boot_id"`
}

// change is a line of the file.
type change struct {
	*Session
	Closed string `json:"closed,omitempty"` // the id of a session that ended; then there is nothing else
}

// load returns the sessions of this boot. A file that is missing, of another boot, or damaged at its head has none; a
// line cut short ends it.
func (f *file) load() ([]*Session, error) {
	in, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the open sessions: %w", err)
	}
	defer in.Close()
	lines := bufio.NewScanner(in)
	var h header
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &h) != nil || h.Version != fileVersion || h.BootID != f.bootID || h.BootID == "" {
		return nil, nil
	}
	byID := map[string]*Session{}
	for lines.Scan() {
		var c change
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			// Later lines could be the end of a session read before: without them nothing is certain.
			return nil, fmt.Errorf("reading the open sessions in %s: a damaged line; they are shut", f.path)
		}
		if c.Closed != "" {
			delete(byID, c.Closed)
		} else if c.Session != nil {
			byID[c.ID] = c.Session
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the open sessions in %s: %w; they are shut", f.path, err)
	}
	return slices.Collect(maps.Values(byID)), nil
}

func (f *file) put(s *Session) error { return f.append(change{Session: s}) }

func (f *file) drop(sessions ...*Session) error {
	changes := make([]change, len(sessions))
	for i, s := range sessions {
		changes[i].Closed = s.ID
	}
	return f.append(changes...)
}

// append writes a line for each change. If it can't, the file is removed, since it would bring back doors that are shut
// by now: the next start then knows none, and the next change writes the file anew.
func (f *file) append(changes ...change) error {
	if f.f == nil {
		if err := f.rewrite(); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, c := range changes {
		if err := enc.Encode(c); err != nil {
			return fmt.Errorf("writing a session: %w", err)
		}
	}
	if _, err := f.f.Write(b.Bytes()); err != nil {
		f.f.Close()
		f.f = nil
		os.Remove(f.path)
		return fmt.Errorf("writing the open sessions: %w", err)
	}
	f.lines += len(changes)
	return nil
}

// rewrite replaces the file by one line for each live session, and opens it for more.
func (f *file) rewrite() error {
	if err := f.close(); err != nil {
		return err
	}
	if err := f.replace(); err != nil {
		os.Remove(f.path)
		return fmt.Errorf("writing the open sessions: %w", err)
	}
	next, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("writing the open sessions: %w", err)
	}
	f.f, f.lines = next, len(f.live())
	return nil
}

// replace puts a new file in the place of the old one.
func (f *file) replace() error {
	next, err := renameio.NewPendingFile(f.path, renameio.WithTempDir(filepath.Dir(f.path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer next.Cleanup()
	out := bufio.NewWriterSize(next, 64<<10) // 100,000 sessions are 20 MB, which is not to be held twice
	enc := json.NewEncoder(out)
	err = enc.Encode(header{fileVersion, f.bootID})
	for _, s := range f.live() {
		if err == nil {
			err = enc.Encode(change{Session: s})
		}
	}
	if err := cmp.Or(err, out.Flush()); err != nil {
		return err
	}
	return next.CloseAtomicallyReplace()
}

func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	return err
}

// Forget removes the file of sessions: what was open is not taken over by the next start.
func Forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the open sessions: %w", err)
	}
	return nil
}
