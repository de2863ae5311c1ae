package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// webhookPrefix begins the text form of a webhook's secret.
const webhookPrefix = "whsec_"

// The bounds of a webhook's secret in bytes, as Standard Webhooks has them.
const (
	minWebhook = 24
	maxWebhook = 64
)

// webhookRemedy says how a webhook's secret is made.
const webhookRemedy = `make one with: (umask 077; echo "whsec_$(head -c 32 /dev/urandom | base64)" > FILE), and give it to the receiver`

const hiddenWebhook = "whsec_(hidden)"

// WebhookSecret is what a router and the receiver of its webhook share: it signs each delivery. It is comparable.
type WebhookSecret struct{ s string }

// ParseWebhookSecret reads the text form: whsec_ and the base64, with padding, of 24 to 64 bytes. Its error is an
// [ErrText] and never repeats the text.
func ParseWebhookSecret(text string) (WebhookSecret, error) {
	body, ok := strings.CutPrefix(text, webhookPrefix)
	if !ok {
		return WebhookSecret{}, fmt.Errorf("%w: a webhook's secret begins with %s", ErrText, webhookPrefix)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(body)
	if err != nil || base64.StdEncoding.EncodeToString(b) != body { // the decoder skips line ends
		return WebhookSecret{}, fmt.Errorf("%w: behind %s the secret is not base64 with its padding", ErrText, webhookPrefix)
	}
	if len(b) < minWebhook || len(b) > maxWebhook {
		return WebhookSecret{}, fmt.Errorf("%w: a webhook's secret has %d to %d bytes, not %d", ErrText, minWebhook, maxWebhook, len(b))
	}
	return WebhookSecret{string(b)}, nil
}

// ReadWebhookFile reads a file that holds a webhook's secret, in the same way as [ReadRouterFile].
func ReadWebhookFile(path string) (WebhookSecret, error) {
	const name = "a webhook's secret"
	data, err := readOwned(path, name, webhookRemedy)
	if err != nil {
		return WebhookSecret{}, err
	}
	text, err := onlyLine(data)
	if err != nil {
		return WebhookSecret{}, fmt.Errorf("reading %s %q: %w; %s", name, path, err, webhookRemedy)
	}
	k, err := ParseWebhookSecret(text)
	if err != nil {
		return WebhookSecret{}, fmt.Errorf("reading %s %q: %w; %s", name, path, err, webhookRemedy)
	}
	return k, nil
}

// Sign returns the webhook-signature of a delivery: "v1," and the base64 of HMAC-SHA256 over its id, its time in seconds
// since 1970 and its body, with points between them.
func (k WebhookSecret) Sign(id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, []byte(k.s))
	mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// IsZero reports whether no secret is set.
func (k WebhookSecret) IsZero() bool { return k == WebhookSecret{} }

// Text returns the secret's text form.
func (k WebhookSecret) Text() string {
	return webhookPrefix + base64.StdEncoding.EncodeToString([]byte(k.s))
}

func (k WebhookSecret) String() string { return hiddenWebhook }

// GoString returns a placeholder.
func (k WebhookSecret) GoString() string { return hiddenWebhook }

// Format prints a placeholder, whatever the verb.
func (k WebhookSecret) Format(f fmt.State, _ rune) { fmt.Fprint(f, hiddenWebhook) }

// LogValue returns a placeholder.
func (k WebhookSecret) LogValue() slog.Value { return slog.StringValue(hiddenWebhook) }

// MarshalText fails: a secret is never marshalled.
func (k WebhookSecret) MarshalText() ([]byte, error) { return nil, ErrSecret }
