package daemon

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"spad/pkg/config"
	"spad/pkg/device"
	"spad/pkg/session"
)

// record is what is written down while a reload is on trial, and after it was not confirmed: as long as the file on disk
// is the one that nobody confirmed, a start uses the one before it.
type record struct {
	Old []byte   `json:"old"` // the text of the configuration that was in force
	New [32]byte `json:"new"` // SHA-256 of the text that was on trial
}

func trialFile(stateDir string) string { return filepath.Join(stateDir, "trial") }

func recordTrial(stateDir string, old, cfg *config.Config) error {
	data, err := json.Marshal(record{Old: old.Text, New: sha256.Sum256(cfg.Text)})
	if err == nil {
		err = renameio.WriteFile(trialFile(stateDir), data, 0o600, renameio.WithTempDir(stateDir))
	}
	if err != nil {
		return fmt.Errorf("writing down the configuration that comes back: %w", err)
	}
	return nil
}

func forgetTrial(stateDir string) error {
	if err := os.Remove(trialFile(stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the configuration before the trial: %w", err)
	}
	return nil
}

// beforeTrial returns what was recorded of a trial that nobody confirmed, or nothing if there was none.
func beforeTrial(stateDir string) (*record, error) {
	data, err := os.ReadFile(trialFile(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r record
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return nil, unreadableTrial(stateDir, err)
	}
	return &r, nil
}

func unreadableTrial(stateDir string, err error) error {
	return fmt.Errorf("reading the configuration before the trial: %w; remove %s to go on with the one on disk", err, trialFile(stateDir))
}

// old returns the configuration before the trial.
func (r *record) old(stateDir, path string) (*config.Config, error) {
	cfg, err := config.Parse(path, r.Old)
	if err != nil {
		return nil, unreadableTrial(stateDir, err)
	}
	cfg.Text = r.Old
	return cfg, nil
}

// Confirmed returns the configuration to start with: cfg, unless it was on trial and nobody confirmed it. Then it is the
// one before, and log says so.
func Confirmed(stateDir string, cfg *config.Config, log *slog.Logger) (*config.Config, error) {
	r, err := beforeTrial(stateDir)
	if err != nil || r == nil || sha256.Sum256(cfg.Text) != r.New {
		return cfg, err // it was changed since: that is a new one
	}
	old, err := r.old(stateDir, cfg.Path)
	if err != nil {
		return cfg, err
	}
	log.Error("the configuration on disk was on trial and nobody confirmed it; starting with the one before; spad reload takes it over", "file", cfg.Path)
	return old, nil
}

// PutBack puts guard and doors of the configuration before an unconfirmed trial into the firewall, for a daemon that was
// killed. It takes the state's lock; device.ErrLocked says that a daemon runs again, which has seen to it. Doors that the
// trial shut stay shut.
func PutBack(stateDir, path string, log *slog.Logger) error {
	store, err := device.Open(stateDir, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := beforeTrial(stateDir)
	if err != nil || r == nil {
		return err
	}
	cfg, err := r.old(stateDir, path)
	if err != nil {
		return err
	}
	roster, err := device.NewRoster(cfg.Devices, store.Devices())
	if err != nil {
		return err
	}
	backend, _, err := filterOf(cfg).open()
	if err != nil {
		return err
	}
	table := session.New(session.Options{Backend: backend, Log: log, File: SessionsFile(stateDir), BootID: bootID(), Now: bootTime})
	return errors.Join(table.Start(cfg.Ruleset(cfg.Port), limitOf(cfg, roster, noRemotes, time.Now())), backend.Close())
}
