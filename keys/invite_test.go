package keys

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func testInvite() Invite {
	return Invite{
		Router:    testRouter.Public(),
		Token:     Token{ID: TokenID{1, 2, 3, 4, 5, 6}, Secret: TokenSecret([]byte("0123456789abcdef"))},
		ExpiresMS: 1700000900000,
		Addr:      "home.example.net:41372",
		Device:    "laptop",
		Services:  []string{"nas", "ssh"},
	}
}

// TestInviteLayout holds the line against the layout, written out by hand.
func TestInviteLayout(t *testing.T) {
	raw := "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254" + "010203040506" + hex.EncodeToString([]byte("0123456789abcdef")) +
		"018bcff323a0" + "16" + hex.EncodeToString([]byte("home.example.net:41372")) + "06" + hex.EncodeToString([]byte("laptop")) +
		"02" + "03" + hex.EncodeToString([]byte("nas")) + "03" + hex.EncodeToString([]byte("ssh"))
	want := "knock1:" + encoding.EncodeToString(must(hex.DecodeString(raw)))
	got, err := testInvite().Text()
	if err != nil || got != want {
		t.Fatalf("line %q, want %q (%v)", got, want, err)
	}
	for _, line := range []string{got, "  " + got + "\r\n"} {
		back, err := ParseInvite(line)
		if err != nil {
			t.Fatal(err)
		}
		if back.Token != testInvite().Token {
			t.Error("token differs")
		}
		if diff := cmp.Diff(testInvite(), back); diff != "" {
			t.Errorf("invite (-want +got):\n%s", diff)
		}
	}
}

func TestInviteValues(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Invite)
		good   bool
	}{
		"as it is":            {func(*Invite) {}, true},
		"no services":         {func(v *Invite) { v.Services = nil }, true},
		"255 services":        {func(v *Invite) { v.Services = manyServices(255) }, true},
		"256 services":        {func(v *Invite) { v.Services = manyServices(256) }, false},
		"service with group":  {func(v *Invite) { v.Services = []string{"group:family"} }, false},
		"IPv4":                {func(v *Invite) { v.Addr = "203.0.113.7:1" }, true},
		"IPv6":                {func(v *Invite) { v.Addr = "[2001:db8::1]:65535" }, true},
		"IPv6 with a zone":    {func(v *Invite) { v.Addr = "[fe80::1%eth0]:1" }, false},
		"garbage in []":       {func(v *Invite) { v.Addr = "[::x]:1" }, false},
		"brackets in vain":    {func(v *Invite) { v.Addr = "[home]:1" }, false},
		"no port":             {func(v *Invite) { v.Addr = "home.example.net" }, false},
		"empty port":          {func(v *Invite) { v.Addr = "home:" }, false},
		"port 0":              {func(v *Invite) { v.Addr = "home:0" }, false},
		"port 65536":          {func(v *Invite) { v.Addr = "home:65536" }, false},
		"port with a zero":    {func(v *Invite) { v.Addr = "home:01" }, false},
		"port by name":        {func(v *Invite) { v.Addr = "home:ssh" }, false},
		"no host":             {func(v *Invite) { v.Addr = ":1" }, false},
		"host with an escape": {func(v *Invite) { v.Addr = "ho\x1bme:1" }, false},
		"host like an option": {func(v *Invite) { v.Addr = "-oProxy:1" }, false},
		"host of dots":        {func(v *Invite) { v.Addr = ".home:1" }, false},
		"longest host":        {func(v *Invite) { v.Addr = strings.Repeat("a", 253) + ":1" }, true},
		"host too long":       {func(v *Invite) { v.Addr = strings.Repeat("a", 254) + ":1" }, false},
		"no address":          {func(v *Invite) { v.Addr = "" }, false},
		"no device":           {func(v *Invite) { v.Device = "" }, false},
		"bad device":          {func(v *Invite) { v.Device = "My Laptop" }, false},
		"no router":           {func(v *Invite) { v.Router = RouterPublic{} }, false},
		"expiry below 1970":   {func(v *Invite) { v.ExpiresMS = -1 }, false},
		"last expiry":         {func(v *Invite) { v.ExpiresMS = maxTime }, true},
		"expiry too late":     {func(v *Invite) { v.ExpiresMS = maxTime + 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := testInvite()
			c.change(&v)
			line, err := v.Text()
			if !c.good {
				if !errors.Is(err, ErrInvite) || line != "" {
					t.Errorf("line %q, error %v, want %v", line, err, ErrInvite)
				}
				if err := v.WriteQR(new(bytes.Buffer)); !errors.Is(err, ErrInvite) {
					t.Errorf("QR code: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v, must(ParseInvite(line))); diff != "" {
				t.Errorf("invite (-written +read):\n%s", diff)
			}
		})
	}
}

func manyServices(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("service-%d", i))
	}
	return names
}

func TestInviteRefuses(t *testing.T) {
	good := must(testInvite().Text())
	raw, _ := decode(strings.TrimPrefix(good, "knock1:"))
	line := func(change func(b []byte) []byte) string {
		return "knock1:" + encoding.EncodeToString(change(bytes.Clone(raw)))
	}
	at := func(i int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[i:], v); return b }
	}
	for name, c := range map[string]struct {
		line string
		want error
		says string
	}{
		"empty":              {"", ErrInvite, "starts with knock1:"},
		"a word":             {"hello", ErrInvite, "starts with knock1:"},
		"capitals":           {strings.ToUpper(good), ErrInvite, "starts with knock1:"},
		"another version":    {"knock2:" + good[7:], ErrInvite, "starts with knock1:"},
		"prefix only":        {"knock1:", ErrInvite, "cut short"},
		"a router key":       {testRouter.Public().String(), ErrRole, "this is a router key; an invite starts with knock1:"},
		"a device key":       {testDevice.Public().String(), ErrRole, "this is a device key"},
		"padded":             {good + "=", ErrInvite, "garbled"},
		"broken in two":      {good[:40] + "\n" + good[40:], ErrInvite, "garbled"},
		"a blank inside":     {good[:40] + " " + good[40:], ErrInvite, "garbled"},
		"other alphabet":     {good[:40] + "+" + good[41:], ErrInvite, "garbled"},
		"one byte more":      {line(func(b []byte) []byte { return append(b, 0) }), ErrInvite, "too long"},
		"weak router key":    {line(at(0, make([]byte, 32)...)), ErrWeak, "router key"},
		"device in capitals": {line(at(84, 'L')), ErrInvite, "device name"},
		"service of a dash":  {line(at(92, '-')), ErrInvite, "service name"},
		"host with a blank":  {line(at(61, ' ')), ErrInvite, "host:port"},
		"one service less":   {line(at(90, 1)), ErrInvite, "too long"},
		"one service more":   {line(at(90, 3)), ErrInvite, "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := ParseInvite(c.line)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v that says %q", err, c.want, c.says)
			}
			if !cmp.Equal(v, Invite{}) {
				t.Error("an invite all the same")
			}
			echoes(t, err, good)
		})
	}
}

func TestInviteCutAnywhere(t *testing.T) {
	good := must(testInvite().Text())
	for n := range len(good) {
		if _, err := ParseInvite(good[:n]); !errors.Is(err, ErrInvite) {
			t.Errorf("cut to %d characters: %v", n, err)
		}
	}
}

func TestWriteQR(t *testing.T) {
	var b bytes.Buffer
	if err := testInvite().WriteQR(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) != utf8.RuneCountInString(lines[0]) || strings.Trim(line, "█▄▀ ") != "" {
			t.Fatalf("line %d of the code: %q", i, line)
		}
	}
	if width := utf8.RuneCountInString(lines[0]); width < 40 || width > 80 {
		t.Errorf("code is %d columns wide; a terminal has 80", width)
	}
	if err := testInvite().WriteQR(broken{}); !errors.Is(err, errBroken) {
		t.Errorf("broken writer: %v", err)
	}
}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

// TestWriteQRLimits finds the invite with the most services that has a code.
func TestWriteQRLimits(t *testing.T) {
	drawn := 0
	for n := range 256 {
		v := testInvite()
		v.Services = manyServices(n)
		text := must(v.Text())
		if near := len(text) > maxQR-100 && len(text) <= maxQR+100; !near && n%16 != 0 {
			continue // drawing a large code takes a while
		}
		err := v.WriteQR(new(bytes.Buffer))
		if fits := len(text) <= maxQR; fits != (err == nil) {
			t.Fatalf("%d characters: %v", len(text), err)
		}
		if err == nil {
			drawn = n
		}
	}
	if drawn < 64 || drawn == 255 {
		t.Errorf("codes up to %d services", drawn)
	}
}
