package client

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// invited returns a scene whose device has no key yet, and an invite to it.
func invited(t *testing.T) (*scene, keys.Invite) {
	s := newScene(t)
	if err := os.Remove(s.folder.file("device.key")); err != nil {
		t.Fatal(err)
	}
	token, err := keys.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.router.token = token
	return s, keys.Invite{
		Router: s.router.secret.Public(), Token: token, ExpiresMS: time.Now().Add(15 * time.Minute).UnixMilli(),
		Addr: "Home.example.net:41372", Device: "laptop", Services: []string{"nas"},
	}
}

func (s *scene) enroll(t *testing.T, v keys.Invite, name string) (Router, error) {
	t.Helper()
	s.world.names[v.Addr[:len(v.Addr)-6]] = s.world.names["home.example.net"]
	r, out, err := s.Enroll(context.Background(), v, name, Both)
	if err == nil {
		err = out.Err()
	}
	return r, err
}

func (s *scene) names(t *testing.T) string {
	t.Helper()
	routers, err := s.Routers()
	if err != nil {
		t.Fatal(err)
	}
	return names(routers)
}

func TestEnroll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := invited(t)
		s.system.skew, s.system.unsync = -10*year, true
		r, err := s.enroll(t, v, "")
		if err != nil || r.Name != "home.example.net" || s.names(t) != "home.example.net" {
			t.Fatalf("%+v, %v; stored: %s", r, err, s.names(t))
		}
		k, made, err := s.Device()
		if err != nil || made {
			t.Fatalf("the key was not stored: %v", err)
		}
		first := s.router.arrivals()[0]
		if first.Key != k.Public() || first.Op != wire.OpEnroll {
			t.Errorf("enrolled %+v", first.Message)
		}
		// The answer gave the clock offset: neither hello nor clock off is needed.
		s.router.device = k.Public()
		s.router.forget()
		out, err := s.Knock(context.Background(), Request{Router: r, Services: []string{"nas"}})
		if err != nil || out[0].Err() != nil {
			t.Fatalf("%+v, %v", out, err)
		}
		for _, op := range s.router.ops() {
			if op != wire.OpOpen {
				t.Errorf("sent %v", op)
			}
		}
		if n := len(s.router.arrivals()); n != 2 {
			t.Errorf("%d packets, want one in each family", n)
		}
	})
}

func TestEnrollAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := invited(t)
		silentRouter := func(int, wire.Message) wire.Answer { return wire.Answer{Status: noReply} }
		friendly := s.router.decide
		s.router.decide = silentRouter
		if _, err := s.enroll(t, v, ""); !errors.Is(err, ErrNoAnswer) || s.names(t) != "" {
			t.Errorf("answer lost: %v; stored: %q", err, s.names(t))
		}
		key, made, err := s.Device()
		if err != nil || made {
			t.Fatalf("the key was not kept: %v", err)
		}
		s.router.decide = friendly
		for _, name := range []string{"", "", "casa", ""} {
			if _, err := s.enroll(t, v, name); err != nil {
				t.Errorf("again as %q: %v", name, err)
			}
		}
		if got := s.names(t); got != "casa" {
			t.Errorf("stored as %q, want the last name given, once", got)
		}
		for _, a := range s.router.arrivals() {
			if a.Key != key.Public() {
				t.Error("another key was enrolled")
			}
		}
	})
}

func TestEnrollRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := invited(t)
		if _, err := s.enroll(t, v, "home"); err != nil {
			t.Fatal(err)
		}
		s.router.forget()
		other := v
		other.Router = routerKey(t, 9)
		if _, err := s.enroll(t, other, "home"); !errors.As(err, new(*ConfigError)) {
			t.Errorf("a name that is taken: %v", err)
		}
		if _, err := s.enroll(t, v, "a b"); !errors.As(err, new(*ConfigError)) {
			t.Errorf("no name: %v", err)
		}
		if n := len(s.router.arrivals()); n != 0 {
			t.Errorf("%d packets left", n)
		}
		for _, status := range []wire.Status{wire.Failed, wire.Busy} {
			s.router.decide = func(int, wire.Message) wire.Answer { return wire.Answer{Status: status} }
			var got *StatusError
			if _, err := s.enroll(t, v, "new"); !errors.As(err, &got) || got.Status != status || s.names(t) != "home" {
				t.Errorf("%v: %v; stored: %q", status, err, s.names(t))
			}
		}
	})
}

func TestEnrollNeedsAGoodKeyFile(t *testing.T) {
	s, v := invited(t)
	if err := os.WriteFile(s.folder.file("device.key"), []byte("knock-device-secret:cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.enroll(t, v, ""); !errors.As(err, new(*ConfigError)) {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(s.folder.file("config.toml"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.enroll(t, v, ""); !errors.As(err, new(*ConfigError)) {
		t.Errorf("error %v", err)
	}
}

func TestNameTakenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := invited(t)
		s.router.decide = func(int, wire.Message) wire.Answer {
			other := Router{Name: "home", Addr: "other:1", Key: routerKey(t, 9)}
			if err := saveRouters(s.folder.file("config.toml"), []Router{other}); err != nil {
				t.Error(err)
			}
			return wire.Answer{Status: wire.Enrolled}
		}
		if _, err := s.enroll(t, v, "home"); !errors.As(err, new(*ConfigError)) {
			t.Errorf("error %v", err)
		}
		if got, _ := s.Routers(); len(got) != 1 || got[0].Addr != "other:1" {
			t.Errorf("stored: %+v", got)
		}
	})
}
