package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/daemon"
	"spad/pkg/device"
)

// guardGrace is how long after its time a daemon may take to revert a trial, before the guard takes it for hung.
const guardGrace = 30 * time.Second

// guard starts the process that reverts a trial if this one can't. It holds one end of a pipe: a byte in it says that all
// is well; its end without one, that this process was killed. It has a session of its own, so that a terminal that goes
// away, or Ctrl-C, does not end it.
func (p paths) guard(run bool, trial time.Duration) (release func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the guard of the trial: %w", err)
	}
	defer r.Close()
	args := []string{
		"spad", "guard", "--config", p.config, "--state", p.state, "--socket", p.socket,
		"--trial", trial.String(), "--pid", strconv.Itoa(os.Getpid()), "--run=" + strconv.FormatBool(run),
	}
	// Not by its name: the file may have been replaced since this process was started.
	child, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{r, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("starting the guard of the trial: %w", err)
	}
	return func() {
		w.Write([]byte{1})
		w.Close()
		child.Wait()
	}, nil
}

func guardCommand() *cli.Command {
	return &cli.Command{
		Name:        "guard",
		Usage:       "revert a trial whose daemon was killed; spad run and spad reload start it by themselves",
		Description: "Waits for its standard input to end.\n\nExample:\n  none: it is not for people",
		Hidden:      true,
		Flags: []cli.Flag{
			trialFlag("revert"),
			&cli.IntFlag{Name: "pid", Usage: "`PROCESS` of the daemon", DefaultText: "none"},
			&cli.BoolFlag{Name: "run", Usage: "the run is on trial, not a reload", DisableDefaultText: true},
		},
		Action: withArgs(guard),
	}
}

func guard(c *cli.Context) error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM) // it ends with the pipe, also where systemd stops all
	released := make(chan bool, 1)
	go func() {
		n, _ := io.ReadFull(os.Stdin, make([]byte, 1))
		released <- n == 1
	}()
	select {
	case well := <-released:
		if well {
			return nil
		}
	case <-time.After(c.Duration("trial") + guardGrace):
		// The pipe is still open, so that the process is there, and no other has its number.
		if err := syscall.Kill(c.Int("pid"), syscall.SIGKILL); err != nil {
			return fmt.Errorf("ending a daemon that hangs: %w", err)
		}
	}
	log := slog.New(newLogs(c.App.ErrWriter, false))
	if err := revertTrial(pathsOf(c), c.Bool("run"), log); err != nil {
		log.Error("the daemon ended before its trial was confirmed, and it can't be reverted: run spad down", "err", err)
		return err
	}
	return nil
}

// revertTrial does what the daemon can't any more. If one runs again by now, that is the one to be asked.
func revertTrial(p paths, run bool, log *slog.Logger) error {
	if run {
		release, err := holdState(context.Background(), p, stopWait)
		if err != nil {
			return err
		}
		defer release()
		if err := daemon.Down(p.state, nil); err != nil {
			return err
		}
		log.Error("the daemon ended before its trial was confirmed: everything of spad's was taken out of the firewall again")
		return nil
	}
	release, err := holdState(context.Background(), p, lockWait)
	if err != nil {
		return nil // a daemon that was started again has read which configuration was confirmed
	}
	release()
	err = daemon.PutBack(p.state, p.config, log)
	if errors.Is(err, device.ErrLocked) {
		return nil
	}
	if err == nil {
		log.Error("the daemon ended before its trial was confirmed: the configuration before it is in the firewall again; start spad")
	}
	return err
}
