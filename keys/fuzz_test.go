package keys

import (
	"strings"
	"testing"
)

// textSeeds adds every key, some broken ones, and fails if there is none.
func textSeeds(f *testing.F, more ...string) {
	texts := append(more, "", "knock-router:", "knock1:")
	for _, form := range forms {
		texts = append(texts, form.text, form.text[:20], form.text+"\n", strings.ToUpper(form.text))
	}
	if len(forms) == 0 || len(texts) == 0 {
		f.Fatal("no seeds")
	}
	for _, text := range texts {
		f.Add(text)
	}
}

// fuzzText asserts that what parses prints the same text again.
func fuzzText(f *testing.F, name string) {
	textSeeds(f)
	form := forms[name]
	if again, err := form.parse(form.text); err != nil || again != form.text {
		f.Fatalf("the seed itself does not parse: %v", err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		again, err := form.parse(text)
		if err == nil && again != text {
			t.Fatalf("%q parses and prints %q", text, again)
		}
		if err != nil && again != "" {
			t.Fatalf("%q gives a key and an error", text)
		}
	})
}

func FuzzParseRouterPublic(f *testing.F) { fuzzText(f, "router public") }

func FuzzParseDevicePublic(f *testing.F) { fuzzText(f, "device public") }

func FuzzParseInvite(f *testing.F) {
	none, addr := testInvite(), testInvite()
	none.Services = nil
	addr.Addr = "[2001:db8::1]:1"
	textSeeds(f, must(testInvite().Text()), must(none.Text()), must(addr.Text()))
	f.Fuzz(func(t *testing.T, line string) {
		v, err := ParseInvite(line)
		if err != nil {
			return
		}
		again, err := v.Text()
		if err != nil || again != strings.TrimSpace(line) {
			t.Fatalf("%q parses and prints %q (%v)", line, again, err)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	textSeeds(f, string(fileText("router", testRouter.Public().String(), testRouter.Text())), "#\n"+testDevice.Text()+"\r\n")
	f.Fuzz(func(t *testing.T, data string) {
		for _, r := range []role{routerSecret, deviceSecret} {
			b, err := parseFile([]byte(data), r)
			if err != nil {
				continue
			}
			if text := r.format(b); !strings.Contains(data, text) {
				t.Fatalf("read %q from %q", text, data)
			}
			if again, err := parseFile([]byte("# comment\n"+r.format(b)+"\n"), r); err != nil || again != b {
				t.Fatalf("%q read again: %v", data, err)
			}
		}
	})
}
