package client

import "time"

// System is what a client asks of the machine it runs on.
type System interface {
	// Now returns the system clock.
	Now() time.Time
	// Synchronised reports whether the system says its clock follows a time source.
	// Where it can't say, it is taken to.
	Synchronised() bool
	// BootID returns a text that is new with each boot, or "" where there is none.
	BootID() string
}

// machine is the System this program runs on.
type machine struct{}

func (machine) Now() time.Time     { return time.Now() }
func (machine) Synchronised() bool { return synchronised() }
func (machine) BootID() string     { return bootID() }
