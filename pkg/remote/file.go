package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"spad/keys"
)

// version is that of remotes.json.
const version = 1

// The file, as JSON.
type (
	fileJSON struct {
		Version int          `json:"version"`
		Remotes []remoteJSON `json:"remotes"`
	}
	remoteJSON struct {
		Name          string         `json:"name"`
		Pin           keys.RemotePin `json:"pin,omitzero"`
		Allow         []string       `json:"allow"`
		ReadOnly      bool           `json:"read_only,omitzero"`
		NameAddresses bool           `json:"name_addresses,omitzero"`
		Manage        bool           `json:"manage,omitzero"`
		Added         time.Time      `json:"added"`
		ExpiresMS     int64          `json:"expires_ms"`
		TokenID       []byte         `json:"token_id"`
		TokenSecret   []byte         `json:"token_secret"`
	}
)

// readFile reads the remotes; a missing file is none.
func readFile(path string) ([]Remote, error) {
	data, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w; put back a good copy, or move the file away and add every remote again", err)
	}
	return all, nil
}

// decode reads the file's text. Its errors repeat nothing of a token.
func decode(data []byte) ([]Remote, error) {
	var f fileJSON
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, errors.New("damaged: not JSON, cut short, or with a field that is unknown or of the wrong kind")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("damaged: something follows the end")
	}
	if f.Version != version {
		return nil, fmt.Errorf("it has version %d, this spad reads version %d: run the spad that wrote it", f.Version, version)
	}
	var all []Remote
	names, pins := map[string]bool{}, map[keys.RemotePin]bool{}
	for n, j := range f.Remotes {
		r, err := j.remote()
		if err == nil && (names[r.Name] || r.Joined() && pins[r.Pin]) {
			err = ErrExists
		}
		if err != nil {
			return nil, fmt.Errorf("damaged: remote %d: %w", n+1, err)
		}
		names[r.Name], pins[r.Pin] = true, true
		all = append(all, r)
	}
	return all, nil
}

func (j remoteJSON) remote() (Remote, error) {
	switch {
	case !keys.ValidName(j.Name):
		return Remote{}, errors.New("no valid name")
	case len(j.TokenID) != len(keys.TokenID{}) || len(j.TokenSecret) != len(keys.TokenSecret{}):
		return Remote{}, errors.New("a token of the wrong length")
	}
	return Remote{
		Name: j.Name, Pin: j.Pin, Rights: Rights{j.Allow, j.ReadOnly, j.NameAddresses, j.Manage}, Added: j.Added, ExpiresMS: j.ExpiresMS,
		token: keys.Token{ID: keys.TokenID(j.TokenID), Secret: keys.TokenSecret(j.TokenSecret)},
	}, nil
}

func encode(all []Remote) ([]byte, error) {
	f := fileJSON{Version: version, Remotes: []remoteJSON{}}
	for _, r := range all {
		f.Remotes = append(f.Remotes, remoteJSON{
			r.Name, r.Pin, r.Allow, r.ReadOnly, r.NameAddresses, r.Manage, r.Added, r.ExpiresMS, r.token.ID[:], r.token.Secret[:],
		})
	}
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

func writeFile(path string, all []Remote) error {
	data, err := encode(all)
	if err != nil {
		return err
	}
	return replace(path, data)
}

// maxFile is more than any file of ours has.
const maxFile = 1 << 20

// readPrivate reads a file that its user alone may read and write.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe in its place must not hang the caller
	if err != nil {
		return nil, plain(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, plain(err)
	}
	me := os.Geteuid()
	st, ok := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, errors.New("not a regular file")
	case mode.Perm()&0o077 != 0:
		return nil, fmt.Errorf("others may read or write it (mode %04o); mend that with: chmod 600 %s", mode.Perm(), path)
	case !ok || int(st.Uid) != me && st.Uid != 0:
		return nil, fmt.Errorf("it belongs to another user; mend that with: chown %d %s", me, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errors.New("it is too large to be ours")
	}
	return data, err
}

// plain takes the path off an error of package os, which the caller names.
func plain(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// replace puts data in the place of a file: all of it, on disk, readable by its owner alone, or not at all.
func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
