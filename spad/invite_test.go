package main

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/control"
)

func TestExplainInvite(t *testing.T) {
	secret, err := keys.GenerateRouter(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	token, err := keys.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	expires := time.Now().Add(15 * time.Minute)
	line, err := keys.Invite{
		Router: secret.Public(), Token: token, ExpiresMS: expires.UnixMilli(), Addr: "home.example.net:41372", Device: "laptop",
	}.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, qr := range []bool{true, false} {
		var out strings.Builder
		if err := explainInvite(&out, control.Invite{Name: "laptop", Line: line, Expires: expires}, qr); err != nil {
			t.Fatal(err)
		}
		if drawn := strings.ContainsRune(out.String(), '▄'); drawn != qr {
			t.Errorf("with qr %v a code is drawn: %v", qr, drawn)
		}
		if !strings.HasSuffix(out.String(), "on laptop, in 15m at the latest, run: knock enroll LINE\n") {
			t.Errorf("got:\n%s", out.String())
		}
		if strings.Contains(out.String(), line) {
			t.Error("the line is repeated where it may be logged")
		}
	}
}
