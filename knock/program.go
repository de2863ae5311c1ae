package main

import (
	"os/exec"
)

// program is a COMMAND, found before anything is sent.
type program struct {
	path string
	argv []string
}

func findProgram(argv []string) (*program, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, usageErrorf("the command after -- can't be run: %w", err)
	}
	return &program{path, argv}, nil
}
