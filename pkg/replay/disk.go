package replay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
)

// disk is where the journal's bytes live. One goroutine at a time uses it.
type disk interface {
	// Open returns the journal for reading; fs.ErrNotExist if there is none.
	Open() (io.ReadCloser, error)
	// Replace puts data in the journal's place, all of it or nothing, and durably.
	Replace(data []byte) error
	// Append adds data to what Replace wrote, durably. After an error the journal may
	// end in a part of data, and only Replace may follow.
	Append(data []byte) error
	// Close gives the file back.
	Close() error
}

// file is the disk in use: one file and, while it is replaced, a temporary one beside it.
type file struct {
	path string
	f    *os.File // for appending; nil before Replace
}

func (d *file) Open() (io.ReadCloser, error) { return os.Open(d.path) }

func (d *file) Replace(data []byte) error {
	dir := filepath.Dir(d.path)
	d.removeLeftovers(dir)
	_ = d.Close() // all that counted on it was synced
	if err := d.replace(dir, data); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(d.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	d.f = f
	return nil
}

func (d *file) replace(dir string, data []byte) error {
	p, err := renameio.NewPendingFile(d.path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer p.Cleanup() // what is left is removed next time
	if _, err := p.Write(data); err != nil {
		return err
	}
	return p.CloseAtomicallyReplace()
}

// removeLeftovers removes the temporary files of replacements that a crash cut short.
func (d *file) removeLeftovers(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // Replace itself will fail, and say why
	}
	for _, e := range entries {
		number, ours := strings.CutPrefix(e.Name(), "."+filepath.Base(d.path))
		if ours && number != "" && strings.Trim(number, "0123456789") == "" {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

func (d *file) Append(data []byte) error {
	if d.f == nil {
		return errors.New("the journal is not open")
	}
	if _, err := d.f.Write(data); err != nil {
		return err
	}
	if err := fdatasync(d.f); err != nil {
		return fmt.Errorf("fdatasync %s: %w", d.path, err)
	}
	return nil
}

func (d *file) Close() error {
	if d.f == nil {
		return nil
	}
	f := d.f
	d.f = nil
	return f.Close()
}

// syncDir makes a rename in the folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) { // a file system that can't sync a folder
		err = nil
	}
	return errors.Join(err, f.Close())
}
