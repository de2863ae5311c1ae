package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spad/keys"
)

func TestFolderCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Dir: filepath.Join(file, "knock")}); err == nil {
		t.Error("no error")
	}
}

func TestDefaultFolder(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	c, err := New(Options{})
	if err != nil || c.Dir() != filepath.Join(dir, "knock") {
		t.Errorf("%v, %v", c, err)
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "")
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("without a home: %v", err)
	}
}

func TestLockIsWaitedForAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, _ := openFolder(dir)
		b, _ := openFolder(dir) // as another process has it
		err := a.locked(context.Background(), func() error {
			start := time.Now()
			err := b.locked(context.Background(), func() error { return nil })
			if err == nil || time.Since(start) < lockPatience {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := b.locked(ctx, func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("interrupted: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := b.locked(context.Background(), func() error { return nil }); err != nil {
			t.Errorf("after it was let go: %v", err)
		}
	})
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"one", "two"} {
		if err := replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != text {
			t.Errorf("%q, %v", data, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := replace(filepath.Join(dir, "no", "file"), nil); err == nil {
		t.Error("replaced a file in no folder")
	}
}

func TestDeviceKeyIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	const n = 8
	var mu sync.Mutex
	found := make(map[keys.DevicePublic]int)
	makers := 0
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c, err := New(Options{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			k, made, err := c.Device()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			found[k.Public()]++
			if made {
				makers++
			}
		})
	}
	wg.Wait()
	if len(found) != 1 || makers != 1 {
		t.Errorf("%d keys by %d makers", len(found), makers)
	}
}
