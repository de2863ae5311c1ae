package keys

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
)

// Secrets of every kind show their name only, however they are asked, and encode to nothing.
func TestSecretsAreHidden(t *testing.T) {
	router, err := GenerateRouter(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	remote, err := GenerateRemote(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rescue, err := GenerateRescue(rand.Reader, router.Public(), "home.example.net:41372")
	if err != nil {
		t.Fatal(err)
	}
	webhook, err := ParseWebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	for want, v := range map[string]interface {
		fmt.Stringer
		fmt.GoStringer
		fmt.Formatter
		slog.LogValuer
	}{
		"[remote secret]": remote, "[rescue key]": rescue, "whsec_(hidden)": webhook, "[remote line]": RemoteLine{},
	} {
		got := []string{v.String(), v.GoString(), v.LogValue().String(), fmt.Sprintf("%x", v)}
		for _, text := range got {
			if text != want {
				t.Errorf("%s shows %q", want, got)
				break
			}
		}
	}
	for name, v := range map[string]interface{ MarshalText() ([]byte, error) }{"rescue": rescue, "line": RemoteLine{}} {
		if text, err := v.MarshalText(); !errors.Is(err, ErrSecret) || text != nil {
			t.Errorf("a %s encodes to %q, %v", name, text, err)
		}
	}
}

func TestRemotePinEncodes(t *testing.T) {
	remote, err := GenerateRemote(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pin := remote.Pin()
	text, err := json.Marshal(pin)
	if err != nil {
		t.Fatal(err)
	}
	var back RemotePin
	if err := json.Unmarshal(text, &back); err != nil || back != pin {
		t.Errorf("%s is read as %v, %v", text, back, err)
	}
	if _, err := (RemotePin{}).MarshalText(); !errors.Is(err, ErrZero) {
		t.Errorf("no pin encodes: %v", err)
	}
	if err := back.UnmarshalText([]byte("spad-remote-pin:x")); err == nil {
		t.Error("what is no pin is read as one")
	}
	var none RemoteSecret
	if none.Text() != "" || none.Equal(remote) || !none.Equal(RemoteSecret{}) || !remote.Equal(remote) {
		t.Error("no key is some key")
	}
	if _, err := ParseRemoteSecret("spad-remote-secret:x"); err == nil {
		t.Error("what is no secret is read as one")
	}
}
