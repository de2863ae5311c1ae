package replay

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childPath, set in the environment, makes the test binary a router that spends.
const childPath = "REPLAY_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// child spends times that all lie ahead of its clock, which stands still: so no start
// floor refuses them, only the journal can. It prints each that is fresh. Two workers
// go through all times from the first on, whatever earlier children did.
func child(path string) error {
	j, err := Open(Options{
		Path: path, System: func() time.Time { return time.UnixMilli(noon) },
		Mono: func() time.Duration { return 0 },
	})
	if err != nil {
		return err
	}
	j.bound = j.size + 20*blockSize // so that the file is replaced often, too
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for at := int64(noon + 1); at <= noon+DefaultWindow.Milliseconds(); at++ {
				if v, err := j.Spend(alice, at); err != nil {
					panic(err)
				} else if v == Fresh {
					fmt.Println(at)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// TestKill kills a router at random moments, again and again: no time opens twice.
func TestKill(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	path, fresh := filepath.Join(t.TempDir(), "replay.journal"), map[int64]bool{}
	for round := range rounds {
		for _, at := range killed9(t, path, rand.IntN(60)) {
			if fresh[at] {
				t.Fatalf("round %d: noon%+d opened twice", round, at-noon)
			}
			fresh[at] = true
		}
	}
	if len(fresh) < rounds {
		t.Fatalf("only %d were fresh in %d rounds", len(fresh), rounds)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) > 2 {
		t.Errorf("the folder holds %v, %v; want the journal and at most one leftover", entries, err)
	}
}

// killed9 runs a child, kills it after at least n answers, and returns all its answers.
func killed9(t *testing.T, path string, n int) (fresh []int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childPath+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		at, err := strconv.ParseInt(in.Text(), 10, 64)
		if err != nil {
			break // the last line, cut
		}
		if fresh = append(fresh, at); len(fresh) == n+1 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(fresh) == 0 {
		t.Fatalf("the child ended by itself: %v after %d answers", err, len(fresh))
	}
	return fresh
}
