package remote

import (
	"crypto/hmac"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"spad/keys"
)

// MaxRemotes is how many remotes there can be, those that have not joined yet among them.
const MaxRemotes = 64

// Store is the remotes in the router's state directory. The caller has locked that. It is safe for concurrent use.
type Store struct {
	path string
	now  func() int64

	mu      sync.Mutex
	remotes []Remote // by name
}

// Open reads remotes.json in a state directory that is there. now is the time in milliseconds since 1970.
func Open(dir string, now func() int64) (*Store, error) {
	s := &Store{path: filepath.Join(dir, "remotes.json"), now: now}
	all, err := readFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", s.path, err)
	}
	for i := range all {
		all[i].gone = make(chan struct{})
	}
	s.remotes = all
	return s, nil
}

// All returns the remotes by name. One whose line has expired unused is none.
func (s *Store) All() []Remote {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.remotes), s.expired)
}

func (s *Store) expired(r Remote) bool { return !r.Joined() && s.now() >= r.ExpiresMS }

// ByPin returns the remote that has joined with a key.
func (s *Store) ByPin(pin keys.RemotePin) (Remote, bool) {
	return s.find(func(r Remote) bool { return r.Joined() && r.Pin == pin })
}

// Open reports whether a token is there for somebody to join with. It takes the same time wherever it is.
func (s *Store) Open(id keys.TokenID) bool {
	_, ok := s.find(func(r Remote) bool { return !r.Joined() && r.token.ID.Equal(id) && !s.expired(r) })
	return ok
}

func (s *Store) find(is func(Remote) bool) (found Remote, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.remotes {
		if is(r) {
			found, ok = r, true
		}
	}
	return found, ok
}

// Add makes room for a remote and returns the token that it joins with until expiresMS. One of the same name that has
// not joined is replaced; one that has is [ErrExists].
func (s *Store) Add(name string, rights Rights, expiresMS int64) (keys.Token, error) {
	token, err := keys.NewToken(rand.Reader)
	if err != nil {
		return keys.Token{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := slices.DeleteFunc(slices.Clone(s.remotes), func(r Remote) bool { return s.expired(r) || !r.Joined() && r.Name == name })
	switch {
	case slices.ContainsFunc(kept, func(r Remote) bool { return r.Name == name }):
		return keys.Token{}, fmt.Errorf("remote %q %w; remove it first, or choose another name", name, ErrExists)
	case len(kept) >= MaxRemotes:
		return keys.Token{}, fmt.Errorf("%w (%d); remove one", ErrFull, MaxRemotes)
	}
	rights.Allow = slices.Clone(rights.Allow)
	r := Remote{
		Name: name, Rights: rights, Added: time.UnixMilli(s.now()).UTC(), ExpiresMS: expiresMS, token: token, gone: make(chan struct{}),
	}
	if err := s.write(append(kept, r)); err != nil {
		return keys.Token{}, err
	}
	return token, nil
}

// Join makes a key that of the remote whose token it proves to know, in one durable write. The same key may do so again:
// the answer may have been lost. Whatever else is [ErrRefused].
func (s *Store) Join(pin keys.RemotePin, router keys.RemotePin, binding, proof []byte) (Remote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := slices.ContainsFunc(s.remotes, func(r Remote) bool { return r.Pin == pin })
	for i, r := range s.remotes {
		if pin.IsZero() || s.now() >= r.ExpiresMS || !hmac.Equal(proof, Proof(r.token.Secret, binding, router, pin)) {
			continue
		}
		switch {
		case r.Pin == pin:
			return r, nil
		case r.Joined() || taken:
			return Remote{}, ErrRefused
		}
		all := slices.Clone(s.remotes)
		all[i].Pin = pin
		return all[i], s.write(all)
	}
	return Remote{}, ErrRefused
}

// Remove forgets a remote and closes its Gone.
func (s *Store) Remove(name string) (Remote, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.remotes, func(r Remote) bool { return r.Name == name })
	if i < 0 {
		return Remote{}, fmt.Errorf("remote %q: %w", name, ErrUnknown)
	}
	gone := s.remotes[i]
	if err := s.write(slices.Delete(slices.Clone(s.remotes), i, i+1)); err != nil {
		return Remote{}, err
	}
	close(gone.gone)
	return gone, nil
}

// write makes all the remotes there are, once they are on disk. The lock must be held.
func (s *Store) write(all []Remote) error {
	slices.SortFunc(all, func(a, b Remote) int { return strings.Compare(a.Name, b.Name) })
	if err := writeFile(s.path, all); err != nil {
		return fmt.Errorf("writing %q: %w", s.path, err)
	}
	s.remotes = all
	return nil
}
