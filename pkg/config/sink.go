package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spad/keys"
	"spad/pkg/event"
)

// Bounds of the time that a receiver of events has, and the default.
const (
	DefaultSinkTimeout = 10 * time.Second
	MinSinkTimeout     = time.Second
	MaxSinkTimeout     = 5 * time.Minute
)

// Webhook is an endpoint that events are delivered to.
type Webhook struct {
	Name       string
	URL        string             // https, or http to loopback; it may hold a token, so nothing repeats it
	Secret     keys.WebhookSecret // zero if it is in the file
	SecretFile string             // a path, made absolute in the way of KeyFile; empty if Secret is set
	Events     []event.Kind       // in the order of event.Kinds
	CAFile     string             // certificates that may vouch for the endpoint; empty: the system's
	Timeout    time.Duration      // of one attempt
}

// Exec is a program that is run for events.
type Exec struct {
	Name    string
	Command []string // an absolute path and arguments
	Events  []event.Kind
	Timeout time.Duration // of one run
}

// webhooks reads all webhooks.
func (t table) webhooks() []Webhook {
	var all []Webhook
	for _, in := range t.tables("webhook", webhookKind) {
		in.checkName("webhook")
		w := Webhook{Name: in.name(), URL: in.url(), Events: in.events()}
		w.Secret, w.SecretFile = in.secret()
		w.CAFile = in.pathOf("ca_file", "page-ca.pem")
		w.Timeout, _ = in.duration("timeout", DefaultSinkTimeout, MinSinkTimeout, MaxSinkTimeout)
		all = append(all, w)
	}
	return all
}

// url reads where a webhook goes. What is wrong is said without repeating it.
func (t table) url() string {
	const example = "https://page.example.net/events"
	const remedy = `write an address such as "` + example + `"`
	text, ok := t.text("url", example)
	if _, present := t.keys["url"]; !present {
		t.bad("url", "is missing", fmt.Sprintf("write where events go, such as url = %q", example))
	}
	if !ok {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		t.bad("url", "is no address of a web page", remedy)
	case u.Port() != "" && !validPort(u.Port()):
		t.bad("url", "has no port from 1 to 65535", remedy)
	case u.User != nil:
		t.bad("url", "has a user's name or password", "leave it out: the receiver knows spad by the signature")
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		t.bad("url", "has a part behind #, which is never sent", "leave it out")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		t.bad("url", "is http to another machine, where anybody on the way could read and change events", "use https")
	case u.Scheme != "https" && u.Scheme != "http":
		t.bad("url", "is neither https nor http", remedy)
	}
	return text
}

func validPort(text string) bool {
	_, ok := parsePort(text)
	return ok
}

// loopback says whether a host is this machine for sure.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// secret reads what a webhook signs with: the secret or the path of its file.
func (t table) secret() (keys.WebhookSecret, string) {
	_, inline := t.keys["secret"]
	_, inFile := t.keys["secret_file"]
	file := t.pathOf("secret_file", "page.secret")
	text, ok := t.text("secret", "whsec_…")
	switch {
	case inline && inFile:
		t.bad("secret", "stands beside secret_file", "keep one of the two")
	case !inline && !inFile:
		t.bad("secret_file", "is missing, so that the receiver could not know who sends", `write secret_file = "page.secret"`)
	}
	if path, isText := t.keys["secret_file"].(string); isText && strings.HasPrefix(path, "whsec_") {
		t.bad("secret_file", "is the secret itself", "write it to a file of its own (chmod 600), and the path of that file here")
	}
	if !ok {
		return keys.WebhookSecret{}, file
	}
	secret, err := keys.ParseWebhookSecret(text)
	if err != nil {
		t.bad("secret", plain(err.Error()), "take what the receiver shows, or use secret_file")
	}
	return secret, file
}

// pathOf reads a path, which is relative to the folder of the configuration.
func (t table) pathOf(key, example string) string {
	path, ok := t.text(key, example)
	if !ok {
		return ""
	}
	if path == "" || strings.Contains(path, "\x00") {
		t.bad(key, quote(path)+" is no path", fmt.Sprintf("drop the line, or write such as %s = %q", key, example))
	}
	return keyPath(t.file, path)
}

// execs reads all programs that are run for events.
func (t table) execs() []Exec {
	var all []Exec
	for _, in := range t.tables("exec", execKind) {
		in.checkName("program")
		e := Exec{Name: in.name(), Command: in.command(), Events: in.events()}
		e.Timeout, _ = in.duration("timeout", DefaultSinkTimeout, MinSinkTimeout, MaxSinkTimeout)
		all = append(all, e)
	}
	return all
}

// command reads a program and its arguments, of which two may be the same.
func (t table) command() []string {
	const example = "/usr/local/bin/on-event"
	list, _ := value[[]any](t, "command", fmt.Sprintf("a list of the program and its arguments, such as command = [%q]", example))
	t.wanted("command", fmt.Sprintf("[%q]", example))
	var command []string
	for i, v := range list {
		text, isText := v.(string)
		switch {
		case !isText:
			t.badItem("command", i, "one of the list is "+typeOf(v), "write texts in quotes")
		case strings.Contains(text, "\x00"):
			t.badItem("command", i, "holds a zero byte", "drop it")
		case i == 0 && (!filepath.IsAbs(text) || filepath.Clean(text) != text):
			t.badItem("command", i, quote(text)+" is no absolute path", fmt.Sprintf("write the whole path, such as %q; there is no shell and no search", example))
		}
		command = append(command, text)
	}
	return command
}

// quiet are the kinds that nobody gets who does not ask for them: an accepted knock has an event for the door it opens.
var quiet = []event.Kind{event.KnockAccepted}

// events reads which kinds of events are wanted. That some are lost is always told.
func (t table) events() []event.Kind {
	kinds := slices.DeleteFunc(event.Kinds(), func(k event.Kind) bool { return k == event.EventsLost })
	if _, present := t.keys["events"]; !present {
		return slices.DeleteFunc(kinds, func(k event.Kind) bool { return slices.Contains(quiet, k) })
	}
	t.wanted("events", `["opened", "closed", "expired"]`)
	var words []string
	for _, k := range kinds {
		words = append(words, string(k))
	}
	var wanted []string
	for _, item := range t.texts("events", "opened") {
		switch near := nearest(item.text, words); {
		case slices.Contains(words, item.text):
			wanted = append(wanted, item.text)
		case item.text == string(event.EventsLost):
			t.badItem("events", item.i, quote(item.text)+" is always told", "drop it")
		case near != "":
			t.badItem("events", item.i, "unknown event "+quote(item.text), fmt.Sprintf("did you mean %q?", near))
		default:
			t.badItem("events", item.i, "unknown event "+quote(item.text), "events are: "+strings.Join(words, ", "))
		}
	}
	return slices.DeleteFunc(kinds, func(k event.Kind) bool { return !slices.Contains(wanted, string(k)) })
}
