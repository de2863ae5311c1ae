package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DefaultDir returns the folder knock beside the user's other configuration:
// $XDG_CONFIG_HOME/knock or ~/.config/knock, on macOS and Windows where such things
// are kept there.
func DefaultDir() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", configErrorf("finding the configuration folder: %w; name one with --config", err)
	}
	return filepath.Join(dir, "knock"), nil
}

// folder is where everything that lasts is kept.
type folder struct {
	path string
	mu   sync.Mutex // the file lock holds off other processes, and this one wakes at once
}

func openFolder(path string) (*folder, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return &folder{path: path}, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the configuration folder: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("making the configuration folder: %w", err)
	}
	return &folder{path: path}, nil
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// add puts data at the end of a file that is there, and returns when it is on disk.
func add(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = syncData(f)
	}
	return errors.Join(err, f.Close())
}

// lockPoll and lockPatience say how often and how long a lock is tried for that another
// process holds. It is held for one small write, so a long wait means a stuck process.
const (
	lockPoll     = 10 * time.Millisecond
	lockPatience = 5 * time.Second
)

// locked runs do while no other knock on this folder does the same.
func (f *folder) locked(ctx context.Context, do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := f.file("lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("opening the lock: %w", err)
	}
	defer file.Close() // lets go of the lock
	if err := waitLock(ctx, file); err != nil {
		return fmt.Errorf("locking %q: %w", path, err)
	}
	return do()
}

func waitLock(ctx context.Context, file *os.File) error {
	for waited := time.Duration(0); ; waited += lockPoll {
		held, err := tryLock(file)
		if held || err != nil {
			return err
		}
		if waited >= lockPatience {
			return fmt.Errorf("another knock has held it for %v; find it and stop it", lockPatience)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}
