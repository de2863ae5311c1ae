package keys

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestParseWebhookSecret(t *testing.T) {
	text := func(n int) string {
		return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n)))
	}
	for _, tt := range []struct {
		name, text, want string // what the error says
	}{
		{"shortest", text(24), ""},
		{"longest", text(64), ""},
		{"padded", text(25), ""},
		{"too short", text(23), "not 23"},
		{"too long", text(65), "not 65"},
		{"no prefix", strings.TrimPrefix(text(24), "whsec_"), "begins with whsec_"},
		{"empty", "", "begins with whsec_"},
		{"padding left out", strings.TrimRight(text(25), "="), "not base64"},
		{"other alphabet", "whsec_" + strings.Repeat("_", 32), "not base64"},
		{"line end within", text(24)[:20] + "\n" + text(24)[20:], "not base64"},
		{"bits behind the end", "whsec_" + strings.Repeat("A", 33) + "B==", "not base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := ParseWebhookSecret(tt.text)
			if tt.want == "" {
				if err != nil || k.Text() != tt.text || k.IsZero() {
					t.Errorf("%v", err)
				}
				return
			}
			if !errors.Is(err, ErrText) || !strings.Contains(err.Error(), tt.want) || !k.IsZero() {
				t.Errorf("%v", err)
			}
			if len(tt.text) > 6 && strings.Contains(err.Error(), tt.text[6:]) {
				t.Error("the error repeats the secret")
			}
		})
	}
}

// The example of the Standard Webhooks libraries (standardwebhooks/libraries, the test of sign in each language).
func TestWebhookSign(t *testing.T) {
	k, err := ParseWebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := k.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 999), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s", got)
	}
}

func TestWebhookSecretHides(t *testing.T) {
	k, err := ParseWebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "k", k)
	shown := log.String() + fmt.Sprintf("%v %+v %#v %s %x %q %d", k, k, k, k, k, k, k) + fmt.Sprint(struct{ K WebhookSecret }{k})
	for _, secret := range []string{k.s, "MfKQ9r8", fmt.Sprintf("%x", k.s)} {
		if strings.Contains(shown, secret) {
			t.Errorf("shown: %s", shown)
		}
	}
	if _, err := json.Marshal(k); !errors.Is(err, ErrSecret) {
		t.Error(err)
	}
}

func TestReadWebhookFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes here")
	}
	path := filepath.Join(t.TempDir(), "secret")
	if _, err := ReadWebhookFile(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make one with") {
		t.Error(err)
	}
	const text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for _, tt := range []struct {
		name, content string
		mode          fs.FileMode
		want          error
	}{
		{"good", "# for the page\n" + text + "\n", 0o600, nil},
		{"open to all", text, 0o644, ErrInsecure},
		{"empty", "", 0o600, ErrText},
		{"another text", "hunter2", 0o600, ErrText},
		{"two", text + "\n" + text, 0o600, ErrText},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := errors.Join(os.WriteFile(path, []byte(tt.content), 0o600), os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
			k, err := ReadWebhookFile(path)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatal(err)
			}
			if err == nil && k.Text() != text || err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s, %v", k.Text(), err)
			}
		})
	}
}
