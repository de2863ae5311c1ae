package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

func testRescue() Rescue {
	return must(GenerateRescue(strings.NewReader("0123456789abcdef"), testRouter.Public(), "home.example.net:41372"))
}

func TestRescueRows(t *testing.T) {
	v := testRescue()
	rows, err := v.Rows()
	if err != nil {
		t.Fatal(err)
	}
	// 71 bytes are 114 letters, seven rows of seventeen.
	if len(rows) != 7 || len(rows[0]) != 24 {
		t.Errorf("rows: %q", rows)
	}
	var letters string
	for _, row := range rows {
		letters += strings.ReplaceAll(row, "-", "")[:rowData]
	}
	raw := "\x16" + string(must(hex.DecodeString("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"))) + "0123456789abcdef" + "home.example.net:41372"
	if want := rescueEncoding.EncodeToString([]byte(raw)); strings.TrimRight(letters, "0") != strings.TrimRight(want, "0") {
		t.Errorf("letters %s, want %s", letters, want)
	}
	if want := NewDeviceSecret(sha256.Sum256([]byte("knock rescue key 10123456789abcdef"))); !v.Device().Equal(want) {
		t.Error("another device key")
	}
	hand := strings.ToUpper(strings.NewReplacer("-", " ", "0", "o", "1", "l").Replace(strings.Join(rows, "\n")))
	for name, text := range map[string]string{"rows": strings.Join(rows, "\n"), "one line": strings.Join(rows, "-"), "by hand": hand} {
		back, err := ParseRescue(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if back.Addr != v.Addr || back.Router != v.Router || !back.Device().Equal(v.Device()) {
			t.Errorf("%s: another key came back", name)
		}
	}
}

// A slip of the pen is found in its row, and nothing that was typed is in the error.
func TestRescueSlips(t *testing.T) {
	rows := must(testRescue().Rows())
	change := func(f func([]string) []string) string { return strings.Join(f(slices.Clone(rows)), "\n") }
	for name, c := range map[string]struct{ text, says string }{
		"nothing":           {"", "rows are missing after row 0"},
		"a wrong letter":    {change(func(r []string) []string { r[2] = swap(r[2], 3); return r }), "row 3 is mistyped"},
		"letters exchanged": {change(func(r []string) []string { r[4] = r[4][1:2] + r[4][:1] + r[4][2:]; return r }), "row 5 is mistyped"},
		"rows exchanged":    {change(func(r []string) []string { r[0], r[1] = r[1], r[0]; return r }), "row 1 is mistyped"},
		"a row left out":    {change(func(r []string) []string { return slices.Delete(r, 3, 4) }), "row 4 is mistyped"},
		"the end left out":  {change(func(r []string) []string { return r[:6] }), "rows are missing after row 6"},
		"half a row":        {change(func(r []string) []string { r[6] = r[6][:10]; return r }), "row 7 is too short"},
		"a row too many":    {change(func(r []string) []string { return append(r, r[0]) }), "more after row 7"},
		"no letters":        {strings.Repeat("ü", 40), "row 1 is mistyped"},
	} {
		_, err := ParseRescue(c.text)
		if !errors.Is(err, ErrRescue) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, row := range rows {
			if strings.Contains(err.Error(), row[:4]) {
				t.Errorf("%s: the error repeats the key", name)
			}
		}
	}
}

// swap exchanges a letter for another.
func swap(row string, at int) string {
	other := "0"
	if row[at] == '0' {
		other = "1"
	}
	return row[:at] + other + row[at+1:]
}

// Every single wrong letter is found.
func TestRescueFindsEveryWrongLetter(t *testing.T) {
	rows := must(testRescue().Rows())
	for i, row := range rows {
		for at := range row {
			if row[at] == '-' {
				continue
			}
			wrong := slices.Clone(rows)
			wrong[i] = swap(row, at)
			if _, err := ParseRescue(strings.Join(wrong, "")); err == nil {
				t.Errorf("row %d, letter %d", i+1, at)
			}
		}
	}
}

// A row that was mistyped is typed again, and the rest goes on.
func TestRescueReader(t *testing.T) {
	var r RescueReader
	rows := must(testRescue().Rows())
	for i, row := range rows {
		if r.Missing() == 0 {
			t.Errorf("nothing is missing before row %d", i+1)
		}
		if err := r.Add(swap(row, 0)); err == nil {
			t.Errorf("row %d: a wrong letter is taken", i+1)
		}
		if err := r.Add(row); err != nil {
			t.Error(err)
		}
	}
	if v, err := r.Rescue(); err != nil || r.Missing() != 0 || !v.Device().Equal(testRescue().Device()) {
		t.Errorf("%d missing, %v", r.Missing(), err)
	}
}

func TestRescueRefusesWhatCantBe(t *testing.T) {
	for name, addr := range map[string]string{"no port": "home", "nothing": ""} {
		if _, err := GenerateRescue(strings.NewReader("0123456789abcdef"), testRouter.Public(), addr); !errors.Is(err, ErrRescue) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (Rescue{}).Rows(); !errors.Is(err, ErrRescue) || !(Rescue{}).Device().IsZero() {
		t.Errorf("the zero value: %v", err)
	}
	if _, err := GenerateRescue(strings.NewReader("short"), testRouter.Public(), "home:1"); err == nil {
		t.Error("a short secret")
	}
}

func TestRescueQR(t *testing.T) {
	var b bytes.Buffer
	if err := testRescue().WriteQR(&b); err != nil || b.Len() < 500 {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

func FuzzParseRescue(f *testing.F) {
	rows := must(testRescue().Rows())
	f.Add(strings.Join(rows, "\n"))
	f.Add(strings.ToUpper(strings.Join(rows, "")))
	f.Add(rows[0])
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseRescue(text)
		if err != nil {
			return
		}
		if again := must(v.Rows()); plainLetters(strings.Join(again, "")) != plainLetters(text) {
			t.Fatalf("%q parses and prints %q", text, again)
		}
	})
}
