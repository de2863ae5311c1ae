package keys

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"strings"
	"testing"
)

// must returns v, or stops the test binary: none of its errors can happen with good arguments.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// testBytes counts up from a start, 32 bytes.
func testBytes(start byte) (b [32]byte) {
	for i := range b {
		b[i] = start + byte(i)
	}
	return b
}

func unhex(text string) [32]byte { return [32]byte(must(hex.DecodeString(text))) }

var (
	testRouter = must(NewRouterSecret(testBytes(0x20)))
	testDevice = NewDeviceSecret(testBytes(0x40))
)

func TestKnownKeys(t *testing.T) {
	if got, want := testRouter.Public().Bytes(), unhex("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"); got != want {
		t.Errorf("router's public key %x, want %x", got, want)
	}
	if got, want := testDevice.Public().Bytes(), unhex("2543b92ff1095511476adc8369db6ddc933665a11978dda1404ee1066ca9559d"); got != want {
		t.Errorf("device's public key %x, want %x", got, want)
	}
}

// forms is each role's text form and a parser that prints what it read.
var forms = map[string]struct {
	text  string
	parse func(string) (string, error)
}{
	"router public": {"knock-router:NYBy1jZYgNGu6jKa35EhODhR7SGijjt16WXQ0s0WYlQ", func(s string) (string, error) {
		k, err := ParseRouterPublic(s)
		return k.String(), err
	}},
	"router secret": {"knock-router-secret:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8", func(s string) (string, error) {
		k, err := ParseRouterSecret(s)
		return k.Text(), err
	}},
	"device public": {"knock-device:JUO5L_EJVRFHatyDadtt3JM2ZaEZeN2hQE7hBmypVZ0", func(s string) (string, error) {
		k, err := ParseDevicePublic(s)
		return k.String(), err
	}},
	"device secret": {"knock-device-secret:QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8", func(s string) (string, error) {
		k, err := ParseDeviceSecret(s)
		return k.Text(), err
	}},
}

func TestTextForms(t *testing.T) {
	for name, f := range forms {
		t.Run(name, func(t *testing.T) {
			if got, err := f.parse(f.text); err != nil || got != f.text {
				t.Errorf("parsed and printed: %q, %v", got, err)
			}
		})
	}
}

func TestTextFormsRefuse(t *testing.T) {
	for name, f := range forms {
		prefix, body, _ := strings.Cut(f.text, ":")
		prefix += ":"
		for bad, c := range map[string]struct {
			text string
			want error
			says string
		}{
			"empty":          {"", ErrText, "starts with " + prefix},
			"no prefix":      {body, ErrText, "starts with " + prefix},
			"capitals":       {strings.ToUpper(prefix) + body, ErrText, "starts with " + prefix},
			"prefix only":    {prefix, ErrText, "cut short"},
			"cut":            {f.text[:len(f.text)-1], ErrText, "cut short"},
			"long":           {f.text + "A", ErrText, "too long"},
			"padded":         {f.text + "=", ErrText, "too long"},
			"padding inside": {f.text[:len(f.text)-1] + "=", ErrText, "garbled"},
			"line break":     {f.text + "\n", ErrText, "too long"},
			"break inside":   {f.text[:len(f.text)-2] + "\n" + f.text[len(f.text)-1:], ErrText, "garbled"},
			"leading blank":  {" " + f.text, ErrText, "starts with"},
			"other alphabet": {prefix + strings.Repeat("+", 43), ErrText, "garbled"},
			"not ASCII":      {prefix + "é" + body[2:], ErrText, "garbled"},
			"trailing bits":  {f.text[:len(f.text)-1] + next(f.text[len(f.text)-1]), ErrText, "garbled"},
			"invite":         {"knock1:" + body, ErrRole, "this is an invite"},
		} {
			t.Run(name+"/"+bad, func(t *testing.T) {
				got, err := f.parse(c.text)
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want %v that says %q", err, c.want, c.says)
				}
				if got != "" {
					t.Errorf("a key all the same: %q", got)
				}
				echoes(t, err, body)
			})
		}
	}
}

// next is the character after this one in the alphabet: it differs in the lowest bit, which 43 characters don't use.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, c)+1:][:1]
}

// echoes fails if an error repeats eight characters of a text.
func echoes(t *testing.T, err error, text string) {
	t.Helper()
	for i := range len(text) - 8 {
		if err != nil && strings.Contains(err.Error(), text[i:i+8]) {
			t.Errorf("error %q repeats what it was given", err)
			return
		}
	}
}

func TestOtherRole(t *testing.T) {
	says := map[string]string{
		"router public": "this is a router key;", "router secret": "this is a router's secret key;",
		"device public": "this is a device key;", "device secret": "this is a device's secret key;",
	}
	for want, f := range forms {
		for given, other := range forms {
			if want == given {
				continue
			}
			_, err := f.parse(other.text)
			if !errors.Is(err, ErrRole) || !strings.Contains(err.Error(), says[given]) {
				t.Errorf("%s for %s: %v", given, want, err)
			}
			echoes(t, err, other.text[strings.Index(other.text, ":"):])
		}
	}
	if _, err := ParseDevicePublic(forms["router public"].text); !strings.Contains(err.Error(), "this is a router key; a device key starts with knock-device:") {
		t.Errorf("router key for a device key: %v", err)
	}
}

// weakX25519 are all encodings below 2^255 of points of small order, on the curve and its twist.
var weakX25519 = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

func TestWeakRouterKeys(t *testing.T) {
	for _, text := range weakX25519 {
		for _, top := range []byte{0, 0x80} {
			b := unhex(text)
			b[31] |= top
			if k, err := NewRouterPublic(b); !errors.Is(err, ErrWeak) || !k.IsZero() {
				t.Errorf("%x: %v", b, err)
			}
			if _, err := ParseRouterPublic(routerPublic.format(b)); !errors.Is(err, ErrWeak) {
				t.Errorf("text of %x: %v", b, err)
			}
			if shared, err := testRouter.ECDH(b); !errors.Is(err, ErrWeak) || shared != [32]byte{} {
				t.Errorf("ECDH with %x: %v", b, err)
			}
		}
	}
	if _, err := NewRouterPublic(testBytes(0x33)); err != nil {
		t.Errorf("a good key: %v", err)
	}
}

// weakEd25519 are the points of small order in every encoding that decodes, and what is
// refused besides: no point, and a point of large order in its second encoding.
var weakEd25519 = []string{
	"0100000000000000000000000000000000000000000000000000000000000000", // order 1
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // order 2
	"0000000000000000000000000000000000000000000000000000000000000000", // order 4
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // order 8
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"0100000000000000000000000000000000000000000000000000000000000080", // x = 0 with a sign
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y + p
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"0200000000000000000000000000000000000000000000000000000000000000", // no point
	"f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // y = 3, a point of large order, + p
}

func TestWeakDeviceKeys(t *testing.T) {
	for _, text := range weakEd25519 {
		b := unhex(text)
		if k, err := NewDevicePublic(b); !errors.Is(err, ErrWeak) || !k.IsZero() {
			t.Errorf("%x: %v", b, err)
		}
		if _, err := ParseDevicePublic(devicePublic.format(b)); !errors.Is(err, ErrWeak) {
			t.Errorf("text of %x: %v", b, err)
		}
	}
	three := [32]byte{3}
	if _, err := NewDevicePublic(three); err != nil {
		t.Errorf("y = 3 in its one encoding: %v", err)
	}
}

func TestECDH(t *testing.T) {
	other := must(NewRouterSecret(testBytes(0x60)))
	a, b := must(testRouter.ECDH(other.Public().Bytes())), must(other.ECDH(testRouter.Public().Bytes()))
	if a != b || a == [32]byte{} {
		t.Errorf("%x and %x", a, b)
	}
}

func TestSign(t *testing.T) {
	msg := []byte("a message")
	sig := testDevice.Sign(msg)
	k := testDevice.Public()
	if !k.Verify(msg, sig[:]) {
		t.Error("own signature refused")
	}
	if k.Verify([]byte("another"), sig[:]) || k.Verify(msg, sig[:63]) || k.Verify(msg, nil) {
		t.Error("bad signature accepted")
	}
	if NewDeviceSecret(testBytes(0x41)).Public().Verify(msg, sig[:]) || (DevicePublic{}).Verify(msg, sig[:]) {
		t.Error("accepted by another key")
	}
}

// What package keys signs is what crypto/ed25519 signs, bit for bit.
func TestSignIsEd25519(t *testing.T) {
	random := mathrand.NewChaCha8(testBytes(0))
	for i := range 300 {
		var s [32]byte
		random.Read(s[:])
		msg := make([]byte, i)
		random.Read(msg)
		theirs, ours := ed25519.NewKeyFromSeed(s[:]), NewDeviceSecret(s)
		if public := ours.Public().Bytes(); !bytes.Equal(public[:], theirs[32:]) {
			t.Fatalf("seed %x: public key %x, want %x", s, public, theirs[32:])
		}
		if sig := ours.Sign(msg); !bytes.Equal(sig[:], ed25519.Sign(theirs, msg)) {
			t.Fatalf("seed %x, message %x: signature %x, want %x", s, msg, sig, ed25519.Sign(theirs, msg))
		}
	}
}

// A router key is weak if and only if X25519 with it is all zero.
func TestWeakIsWhatX25519Refuses(t *testing.T) {
	scalar := must(ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, 32)))
	check := func(b [32]byte) {
		t.Helper()
		_, err := exchange(scalar, b)
		if got, want := weak(b), err != nil; got != want {
			t.Errorf("%x: weak is %v, want %v", b, got, want)
		}
	}
	random := mathrand.NewChaCha8(testBytes(1))
	for _, text := range weakX25519 {
		for bit := range 256 {
			b := unhex(text)
			check(b)
			b[bit/8] ^= 1 << (bit % 8)
			check(b)
		}
	}
	for range 300 {
		var b [32]byte
		random.Read(b[:])
		check(b)
	}
}

func TestGenerate(t *testing.T) {
	seed := testBytes(0x20)
	if k := must(GenerateRouter(bytes.NewReader(seed[:]))); !k.Equal(testRouter) {
		t.Error("router key is not that of its random bytes")
	}
	seed = testBytes(0x40)
	if k := must(GenerateDevice(bytes.NewReader(seed[:]))); !k.Equal(testDevice) {
		t.Error("device key is not that of its random bytes")
	}
	if token := must(NewToken(bytes.NewReader(seed[:]))); token.ID != TokenID(seed[:6]) || token.Secret != TokenSecret(seed[6:22]) {
		t.Error("token is not that of its random bytes")
	}
	if must(GenerateRouter(rand.Reader)).Equal(must(GenerateRouter(rand.Reader))) {
		t.Error("two router keys are equal")
	}
	short := bytes.NewReader(seed[:20])
	for name, f := range map[string]func(io.Reader) error{
		"router": func(r io.Reader) error { _, err := GenerateRouter(r); return err },
		"device": func(r io.Reader) error { _, err := GenerateDevice(r); return err },
		"token":  func(r io.Reader) error { _, err := NewToken(r); return err },
	} {
		short.Reset(seed[:20])
		if err := f(short); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s of 20 random bytes: %v", name, err)
		}
	}
}

func TestEqual(t *testing.T) {
	router, device := must(NewRouterSecret(testBytes(0x21))), NewDeviceSecret(testBytes(0x41))
	for name, c := range map[string]struct{ got, want bool }{
		"router, same":         {testRouter.Equal(must(NewRouterSecret(testBytes(0x20)))), true},
		"router, other":        {testRouter.Equal(router), false},
		"router, zero":         {testRouter.Equal(RouterSecret{}), false},
		"router, both zero":    {RouterSecret{}.Equal(RouterSecret{}), true},
		"router public, same":  {testRouter.Public().Equal(testRouter.Public()), true},
		"router public, other": {testRouter.Public().Equal(router.Public()), false},
		"device, same":         {testDevice.Equal(NewDeviceSecret(testBytes(0x40))), true},
		"device, other":        {testDevice.Equal(device), false},
		"device, zero":         {DeviceSecret{}.Equal(testDevice), false},
		"device, both zero":    {DeviceSecret{}.Equal(DeviceSecret{}), true},
		"device public, same":  {testDevice.Public().Equal(testDevice.Public()), true},
		"device public, other": {testDevice.Public().Equal(device.Public()), false},
		"token id, same":       {TokenID{1}.Equal(TokenID{1}), true},
		"token id, other":      {TokenID{1}.Equal(TokenID{2}), false},
		"token secret, same":   {TokenSecret{1}.Equal(TokenSecret{1}), true},
		"token secret, other":  {TokenSecret{1}.Equal(TokenSecret{2}), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %t", name, c.got)
		}
	}
}

func TestZeroKeys(t *testing.T) {
	if s := (RouterPublic{}).String() + (DevicePublic{}).String() + (RouterSecret{}).Text() + (DeviceSecret{}).Text(); s != "" {
		t.Errorf("zero keys print %q", s)
	}
	if !(RouterSecret{}).Public().IsZero() || !(DeviceSecret{}).Public().IsZero() {
		t.Error("a zero secret has a public key")
	}
	if _, err := (RouterSecret{}).ECDH(testBytes(9)); !errors.Is(err, ErrZero) {
		t.Errorf("ECDH: %v", err)
	}
	for _, v := range []any{RouterPublic{}, DevicePublic{}} {
		if _, err := json.Marshal(v); !errors.Is(err, ErrZero) {
			t.Errorf("marshalling a zero %T: %v", v, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a zero key signs")
		}
	}()
	(DeviceSecret{}).Sign(nil)
}

func TestPublicKeysInJSON(t *testing.T) {
	type both struct {
		Router RouterPublic
		Device DevicePublic
	}
	want := both{testRouter.Public(), testDevice.Public()}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got both
	if err := json.Unmarshal(data, &got); err != nil || got != want {
		t.Errorf("read back from %s: %v, %v", data, got, err)
	}
	swapped := strings.NewReplacer("Router", "Device", "Device", "Router").Replace(string(data))
	if err := json.Unmarshal([]byte(swapped), &got); !errors.Is(err, ErrRole) {
		t.Errorf("swapped: %v", err)
	}
}

// secrets is everything that must not show itself, and what would give each away.
func secrets() (values map[string]any, traces []string) {
	token := must(NewToken(strings.NewReader("ZqXw7!kJ9#vB2@mN5%tR8&")))
	inv := testInvite()
	inv.Token = token
	for _, b := range [][]byte{token.ID[:], token.Secret[:], testDevice.key()[:32], testRouter.key().Bytes()} {
		traces = append(traces, string(b[:5]), hex.EncodeToString(b[:5]), strings.ToUpper(hex.EncodeToString(b[:5])),
			encoding.EncodeToString(b)[:6], strings.Trim(fmt.Sprint(b[:5]), "[]"), strings.Trim(fmt.Sprintf("%#v", b[:5]), "[]byte{}"))
	}
	return map[string]any{
		"router": testRouter, "device": testDevice, "token": token, "id": token.ID, "secret": token.Secret, "invite": inv,
		"pointers": []any{&testRouter, &testDevice, &token, &token.ID, &token.Secret, &inv},
		"nested":   struct{ R, D, T, I any }{testRouter, testDevice, token, inv},
		"hidden": struct {
			r RouterSecret
			d DeviceSecret
		}{testRouter, testDevice}, // fmt can't call the methods of unexported fields
		"map": map[string]any{"k": testDevice, "t": token.Secret},
	}, traces
}

func reveals(t *testing.T, how, text string, traces []string) {
	t.Helper()
	for _, trace := range traces {
		if strings.Contains(text, trace) {
			t.Errorf("%s shows %q: %s", how, trace, text)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	values, traces := secrets()
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "%T"} {
			reveals(t, verb+" of "+name, fmt.Sprintf(verb, v), traces)
		}
		if name == "router" || name == "device" || name == "hidden" { // fmt asks no method about %p, and tokens are arrays
			reveals(t, "%p of "+name, fmt.Sprintf("%p", v), traces)
		}
		reveals(t, "Sprint of "+name, fmt.Sprint(v), traces)
		reveals(t, "error of "+name, fmt.Errorf("failed: %v", v).Error(), traces)
	}
	for want, v := range map[string]interface {
		fmt.Stringer
		fmt.GoStringer
	}{
		"[router secret]": testRouter, "[device secret]": testDevice, "[token]": Token{}, "[token id]": TokenID{1}, "[token secret]": TokenSecret{1}, "[invite]": testInvite(),
	} {
		if v.String() != want || v.GoString() != want || fmt.Sprintf("%x", v) != want {
			t.Errorf("%s prints %q, %q, %x", want, v.String(), v.GoString(), v)
		}
	}
}

func TestSecretsDoNotMarshal(t *testing.T) {
	values, traces := secrets()
	for name, v := range values {
		data, err := json.Marshal(v)
		reveals(t, "JSON of "+name, string(data), traces)
		if err != nil {
			reveals(t, "error of JSON of "+name, err.Error(), traces)
		}
		if name != "hidden" && !errors.Is(err, ErrSecret) {
			t.Errorf("JSON of %s: error %v, want %v", name, err, ErrSecret)
		}
	}
}

func TestSecretsDoNotLog(t *testing.T) {
	values, traces := secrets()
	for name, v := range values {
		var b bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
			slog.New(h).Info("a line", "value", v)
			slog.New(h).With("value", v).Info("a line", slog.Group("group", "value", v))
		}
		reveals(t, "log of "+name, b.String(), traces)
	}
	for want, v := range map[string]slog.LogValuer{
		hiddenRouter: testRouter, hiddenDevice: testDevice, hiddenToken: Token{}, hiddenTokenID: TokenID{}, hiddenTokenSecret: TokenSecret{}, hiddenInvite: testInvite(), hiddenRescue: testRescue(),
	} {
		if got := v.LogValue().String(); got != want {
			t.Errorf("logs %q, want %q", got, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "7": true, "nas": true, "my-nas-2": true, "a-": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "A": false, "a_b": false, "a.b": false, "a b": false, "é": false, "a\n": false, "a\x00": false, "a/b": false,
		strings.Repeat("a", 33): false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %t", name, got)
		}
	}
}
