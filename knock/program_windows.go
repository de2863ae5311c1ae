package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
)

// run runs the program and ends with its exit code. Ctrl-C goes to both; the program
// decides what it means.
func (p *program) run() error {
	signal.Ignore(os.Interrupt)
	c := exec.Command(p.path, p.argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return exitError(exit.ExitCode())
	}
	return fmt.Errorf("running %s: %w", p.path, err)
}
