package main

import (
	"errors"
	"fmt"
	"strings"

	"spad/pkg/client"
	"spad/pkg/wire"
)

// The exit codes. Of several services the highest counts.
const (
	codeFailed   = 1
	codeUsage    = 2
	codeNoAnswer = 3
	codeDenied   = 4
	codeNoPort   = 5
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

func usageErrorf(format string, a ...any) error { return &usageError{fmt.Errorf(format, a...)} }

func (e *usageError) Unwrap() error { return e.error }

// exitError ends the program with a code when all has been said.
type exitError int

func (e exitError) Error() string { return "" }

// errNoPort means that a service was opened and its port does not answer.
var errNoPort = errors.New("the port does not answer")

func exitCode(err error) int {
	var exit exitError
	var status *client.StatusError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, new(*usageError)), errors.As(err, new(*client.ConfigError)):
		return codeUsage
	case errors.Is(err, client.ErrNoAnswer):
		return codeNoAnswer
	case errors.As(err, &status) && (status.Status == wire.Denied || status.Status == wire.Mismatch):
		return codeDenied
	case errors.Is(err, errNoPort):
		return codeNoPort
	}
	return codeFailed
}

// message returns what is left to say, on one line.
func message(err error) string {
	if err == nil || errors.As(err, new(exitError)) {
		return ""
	}
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if errors.As(err, new(*usageError)) && !strings.Contains(text, "knock") {
		text += "; see: knock --help"
	}
	return text
}

// explain says why a service was not opened or closed, and what to do next.
func explain(r client.Router, o client.Outcome) error {
	err := o.Err()
	var status *client.StatusError
	switch {
	case errors.As(err, &status):
		return fmt.Errorf("%s: %w", o.Service, &spoken{status, refusal(r, o.Best())})
	case errors.Is(err, client.ErrNoAnswer):
		return fmt.Errorf("%s: %w from %s%s: it is off or out of reach, a firewall on the way drops UDP, or it does not know this "+
			"device (there: spad device list; here: knock key)", o.Service, client.ErrNoAnswer, r.Addr, tried(err))
	case errors.As(err, new(*client.ConfigError)):
		return fmt.Errorf("%s: %w", o.Service, err)
	}
	return fmt.Errorf("%s: %w; check this device's network, and the router's address with: knock list", o.Service, err)
}

// tried returns the families in an error of silence: " (IPv4 and IPv6)".
func tried(err error) string { return strings.TrimPrefix(err.Error(), client.ErrNoAnswer.Error()) }

// spoken is a refusal in words for people.
type spoken struct {
	*client.StatusError
	text string
}

func (s *spoken) Error() string { return s.text }
func (s *spoken) Unwrap() error { return s.StatusError }

func refusal(r client.Router, best client.Result) string {
	switch best.Status {
	case wire.Denied:
		return fmt.Sprintf("denied by %s: it has no such service, or does not let this device open it now and from %s; "+
			"ask who runs it", r.Name, best.Seen)
	case wire.Mismatch:
		return fmt.Sprintf("%s saw the packet come from %s, which is not this device's address: if the network between "+
			"translates addresses and you trust it, knock with --no-address", r.Name, best.Seen)
	case wire.Busy:
		return r.Name + " is busy; try again in a moment"
	case wire.ClockOff:
		return r.Name + " goes on calling the time wrong; try again, and check the router's clock with: spad status"
	}
	return r.Name + " could not do it (" + best.Status.String() + "); its log says why"
}
