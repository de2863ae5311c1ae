package config

import (
	"strings"
	"testing"
)

func TestRemote(t *testing.T) {
	for text, want := range map[string]string{ // of the problem
		"192.168.1.1:41373":    "",
		"0.0.0.0:41373":        "",
		"[::]:41373":           "",
		"[2001:db8::1]:65535":  "",
		"":                     "is no address and port",
		":41373":               `"0.0.0.0:41373" for every one`,
		"192.168.1.1":          "is no address and port",
		"192.168.1.1:0":        "is no address and port",
		"192.168.1.1:65536":    "is no address and port",
		"router.lan:41373":     "is no address and port",
		"[fe80::1%eth0]:41373": "others can connect to",
		"[::ffff:1.2.3.4]:1":   "others can connect to",
		"224.0.0.1:1":          "others can connect to",
	} {
		c, err := Parse("f", []byte("listen = ':1'\nremote = '"+text+"'\n"))
		switch {
		case want == "" && (err != nil || c.Remote.String() != text):
			t.Errorf("%q: %v, %v", text, c, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "f:2: remote: ")):
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if c, err := Parse("f", []byte("listen = ':1'\n")); err != nil || c.Remote.IsValid() {
		t.Errorf("it is on by default: %v", err)
	}
}
