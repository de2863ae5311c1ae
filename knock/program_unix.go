//go:build unix

package main

import (
	"fmt"
	"os"
	"syscall"
)

// run becomes the program: its exit code, its signals and its terminal are then its own.
func (p *program) run() error {
	return fmt.Errorf("running %s: %w", p.path, syscall.Exec(p.path, p.argv, os.Environ()))
}
