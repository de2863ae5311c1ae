package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testRemote = NewRemoteSecret(testBytes(0x60))

func testLine() RemoteLine {
	return RemoteLine{
		Router:    testRemote.Pin(),
		Token:     Token{ID: TokenID{1, 2, 3, 4, 5, 6}, Secret: TokenSecret([]byte("0123456789abcdef"))},
		ExpiresMS: 1700000900000,
		Addr:      "192.168.1.1:41373",
		Name:      "web",
	}
}

// The pin is what package x509 says of the same key, so that other programs find the same one.
func TestRemotePinIsOfTheSPKI(t *testing.T) {
	spki := must(x509.MarshalPKIXPublicKey(testRemote.Signer().Public()))
	if testRemote.Pin() != PinOf(spki) {
		t.Error("the pin is another")
	}
	if again := must(ParseRemotePin(testRemote.Pin().String())); again != testRemote.Pin() {
		t.Error("the text form gives another pin")
	}
	if (RemotePin{}).String() != "" || !(RemoteSecret{}).Pin().IsZero() || (RemoteSecret{}).Signer() != nil {
		t.Error("nothing set gives something")
	}
}

// TestRemoteLineLayout holds the line against the layout, written out by hand.
func TestRemoteLineLayout(t *testing.T) {
	pin := testRemote.Pin()
	raw := hex.EncodeToString(pin[:]) + "010203040506" + hex.EncodeToString([]byte("0123456789abcdef")) +
		"018bcff323a0" + "11" + hex.EncodeToString([]byte("192.168.1.1:41373")) + "03" + hex.EncodeToString([]byte("web"))
	want := "spad-remote1:" + encoding.EncodeToString(must(hex.DecodeString(raw)))
	got, err := testLine().Text()
	if err != nil || got != want {
		t.Fatalf("line %q, want %q (%v)", got, want, err)
	}
	back, err := ParseRemoteLine(" " + got + "\r\n")
	if diff := cmp.Diff(testLine(), back); diff != "" || err != nil || back.Token != testLine().Token {
		t.Errorf("line (-want +got):\n%s%v", diff, err)
	}
}

func TestBadRemoteLines(t *testing.T) {
	good := must(testLine().Text())
	raw, _ := decode(strings.TrimPrefix(good, "spad-remote1:"))
	changed := func(change func(*RemoteLine)) error {
		v := testLine()
		change(&v)
		_, err := v.Text()
		return err
	}
	parsed := func(line string) error { _, err := ParseRemoteLine(line); return err }
	for name, tt := range map[string]struct{ got, want error }{
		"empty":         {parsed(""), ErrRemoteLine},
		"another's":     {parsed(must(testInvite().Text())), ErrRole},
		"cut in base64": {parsed(good[:len(good)-1]), ErrRemoteLine},
		"cut":           {parsed("spad-remote1:" + encoding.EncodeToString(raw[:len(raw)-1])), ErrRemoteLine},
		"too long":      {parsed("spad-remote1:" + encoding.EncodeToString(append(bytes.Clone(raw), 0))), ErrRemoteLine},
		"nothing in it": {parsed("spad-remote1:"), ErrRemoteLine},
		"no pin":        {changed(func(v *RemoteLine) { v.Router = RemotePin{} }), ErrRemoteLine},
		"no address":    {changed(func(v *RemoteLine) { v.Addr = "192.168.1.1" }), ErrRemoteLine},
		"no name":       {changed(func(v *RemoteLine) { v.Name = "" }), ErrRemoteLine},
		"far expiry":    {changed(func(v *RemoteLine) { v.ExpiresMS = maxTime + 1 }), ErrRemoteLine},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%s: %v, want %v", name, tt.got, tt.want)
		}
	}
}

func TestRemoteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remote.key")
	made := must(GenerateRemote(rand.Reader))
	if err := WriteRemoteFile(path, made); err != nil {
		t.Fatal(err)
	}
	if back, err := ReadRemoteFile(path); err != nil || !back.Equal(made) || back.Equal(testRemote) {
		t.Errorf("read back: %v", err)
	}
	if err := WriteRemoteFile(path, testRemote); err == nil {
		t.Error("a key was overwritten")
	}
	if again := must(ParseRemoteSecret(made.Text())); !again.Equal(made) {
		t.Error("the text form gives another key")
	}
}

func TestRemoteSecretsHide(t *testing.T) {
	line := must(testLine().Text())
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s %q %x", testRemote, testRemote, testRemote, testRemote, testRemote, testRemote),
		fmt.Sprintf("%v %+v %#v %s %q %x", testLine(), testLine(), testLine(), testLine(), testLine(), testLine()),
	} {
		if strings.Contains(text, line[13:30]) || strings.Contains(text, testRemote.Text()[19:]) || strings.Contains(text, "6061") {
			t.Errorf("a secret shows in %q", text)
		}
	}
	if _, err := testRemote.MarshalText(); !errors.Is(err, ErrSecret) {
		t.Error(err)
	}
	if _, err := testLine().MarshalText(); !errors.Is(err, ErrSecret) {
		t.Error(err)
	}
}

func FuzzParseRemoteLine(f *testing.F) {
	textSeeds(f, must(testLine().Text()))
	f.Fuzz(func(t *testing.T, line string) {
		v, err := ParseRemoteLine(line)
		if err != nil {
			return
		}
		if again, err := v.Text(); err != nil || again != strings.TrimSpace(line) {
			t.Fatalf("%q parses and prints %q (%v)", line, again, err)
		}
	})
}
