package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/event"
	"spad/pkg/event/hook"
	"spad/pkg/event/outbox"
	"spad/pkg/event/webhook"
)

// sinkGrace is how long events of the last moment have to go out when the daemon stops. What a webhook's receiver has not
// taken over by then goes out after the next start.
const sinkGrace = 2 * time.Second

// maxCA bounds a file of certificates; those of a whole system have 200 KB.
const maxCA = 4 << 20

// sinks are the webhooks and programs that are told of events.
type sinks struct {
	bus   *event.Bus
	dir   string          // of the outboxes, one folder each
	agent string          // how webhooks call themselves
	log   *slog.Logger    // that nobody waits for: who holds a lock of ours may be about to open a door
	grace context.Context // ends when hooks must be done
	end   context.CancelFunc
	tasks sync.WaitGroup

	mu       sync.Mutex
	webhooks map[string]*webhookSink
	hooks    map[string]*hookSink
	closed   bool
}

// webhookSink is a webhook that runs, with what it was made of.
type webhookSink struct {
	made   webhookFiles
	box    *outbox.Outbox
	hook   *webhook.Webhook
	detach func()
	stop   func() // waits until nothing is under way
}

// hookSink is a program that is run for events.
type hookSink struct {
	made   config.Exec
	hook   *hook.Hook
	detach func()
	stop   func() // does not wait: it finishes what it has
}

// webhookFiles is a webhook's configuration and what stood in its files.
type webhookFiles struct {
	config.Webhook
	secret keys.WebhookSecret
	ca     string
}

// sinkPlan is what a configuration wants, with everything done that can fail.
type sinkPlan struct {
	webhooks []webhookFiles
	hooks    []config.Exec
	boxes    map[string]*outbox.Outbox // of webhooks that are new
}

// CheckSinks reads the files that a configuration's webhooks name and looks at the programs for events. The error says what is
// wrong with each.
func CheckSinks(cfg *config.Config) error {
	_, err := planSinks(cfg)
	return err
}

func planSinks(cfg *config.Config) (p sinkPlan, err error) {
	for _, w := range cfg.Webhooks {
		f, e := readWebhook(cfg, w)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("webhook %q: %w", w.Name, e))
		}
		p.webhooks = append(p.webhooks, f)
	}
	for _, x := range cfg.Execs {
		if e := hook.Check(x.Command[0]); e != nil {
			err = errors.Join(err, fmt.Errorf("exec %q: %w", x.Name, e))
		}
		p.hooks = append(p.hooks, x)
	}
	return p, err
}

// readWebhook reads the files of one webhook.
func readWebhook(cfg *config.Config, w config.Webhook) (f webhookFiles, err error) {
	f.Webhook, f.secret = w, w.Secret
	if w.SecretFile != "" {
		f.secret, err = keys.ReadWebhookFile(w.SecretFile)
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; give it to the user that spad runs as, for the service: chown spad %s", err, w.SecretFile)
		}
		if err != nil {
			return f, err
		}
	} else if info, err := os.Stat(cfg.Path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return f, fmt.Errorf("%w: %s holds its secret, and its mode %04o lets others in; mend it with: chmod 600 %s, or use secret_file",
			keys.ErrInsecure, cfg.Path, info.Mode().Perm(), cfg.Path)
	}
	if w.CAFile == "" {
		return f, nil
	}
	ca, err := os.ReadFile(w.CAFile)
	if err != nil {
		return f, err
	}
	if f.ca = string(ca); len(ca) > maxCA || !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return f, fmt.Errorf("%s holds no certificate; write those that may vouch for the receiver, as PEM", w.CAFile)
	}
	return f, nil
}

// openSinks starts what a configuration wants.
func openSinks(cfg *config.Config, state, version string, bus *event.Bus) (*sinks, error) {
	s := &sinks{
		bus: bus, dir: filepath.Join(state, "outbox"), agent: "spad/" + version, log: bus.Log(),
		webhooks: map[string]*webhookSink{}, hooks: map[string]*hookSink{},
	}
	s.grace, s.end = context.WithCancel(context.Background())
	p, err := s.plan(cfg)
	if err != nil {
		return nil, err
	}
	s.apply(p)
	return s, nil
}

// plan does everything that can fail about taking a configuration over. Then comes apply, or drop.
func (s *sinks) plan(cfg *config.Config) (sinkPlan, error) {
	p, err := planSinks(cfg)
	if err != nil {
		return p, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.boxes = map[string]*outbox.Outbox{}
	for _, w := range p.webhooks {
		if s.webhooks[w.Name] == nil {
			if err := s.open(p, w); err != nil {
				p.drop()
				return p, err
			}
		}
	}
	return p, nil
}

func (s *sinks) open(p sinkPlan, w webhookFiles) error {
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making the folder of outboxes: %w", err)
	}
	box, err := outbox.Open(outbox.Options{Dir: filepath.Join(s.dir, w.Name), Kinds: w.Events, Log: s.log})
	p.boxes[w.Name] = box
	return err
}

// drop undoes a plan.
func (p sinkPlan) drop() {
	for _, b := range p.boxes {
		if b != nil {
			_ = b.Close() // nothing is in it that is not on disk
		}
	}
}

// apply makes it so. What has not changed goes on undisturbed, but for a webhook whose receiver said that it is gone: that is
// asked again.
func (s *sinks) apply(p sinkPlan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // a reload that was under way when the daemon stopped
		p.drop()
		return
	}
	wanted := map[string]bool{}
	for _, w := range p.webhooks {
		wanted[w.Name] = true
		s.applyWebhook(w, p.boxes[w.Name])
	}
	for name, w := range s.webhooks {
		if !wanted[name] {
			s.remove(name, w)
		}
	}
	s.applyHooks(p.hooks)
}

func (s *sinks) applyWebhook(f webhookFiles, box *outbox.Outbox) {
	old := s.webhooks[f.Name]
	if old != nil && reflect.DeepEqual(old.made, f) && !old.hook.Stats().Gone {
		return
	}
	w := &webhookSink{made: f, box: box}
	if old != nil {
		old.stop()
		w.box, w.detach = old.box, old.detach
		w.box.SetKinds(f.Events)
	} else {
		w.detach = s.bus.Attach(box)
	}
	w.hook = webhook.New(webhook.Options{
		Name: f.Name, URL: f.URL, Secret: f.secret, Roots: roots(f.ca), Timeout: f.Timeout, Outbox: w.box, Log: s.log, Agent: s.agent,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.tasks.Go(func() {
		defer close(ended)
		if err := w.hook.Run(ctx); err != nil {
			s.log.Error("webhook has ended", "webhook", f.Name, "err", err)
		}
	})
	w.stop = func() { cancel(); <-ended }
	s.webhooks[f.Name] = w
}

// roots are the certificates of a file, or nil for the system's.
func roots(pem string) *x509.CertPool {
	if pem == "" {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(pem)) // planSinks has seen to it
	return pool
}

// remove ends a webhook that the configuration names no more. Its outbox stays: it may come back.
func (s *sinks) remove(name string, w *webhookSink) {
	w.detach()
	w.stop()
	if n := w.box.Stats().Waiting; n > 0 {
		s.log.Warn("webhook is no longer configured, what waits is kept in case it comes back", "webhook", name, "waiting", n,
			"dir", filepath.Join(s.dir, name))
	}
	if err := w.box.Close(); err != nil {
		s.log.Error("events of a webhook are lost", "webhook", name, "err", err)
	}
	delete(s.webhooks, name)
}

func (s *sinks) applyHooks(wanted []config.Exec) {
	old := s.hooks
	s.hooks = map[string]*hookSink{}
	for _, x := range wanted {
		if h := old[x.Name]; h != nil && reflect.DeepEqual(h.made, x) {
			s.hooks[x.Name] = h
			delete(old, x.Name)
			continue
		}
		s.hooks[x.Name] = s.startHook(x)
	}
	for _, h := range old {
		h.detach()
		h.stop()
	}
}

func (s *sinks) startHook(x config.Exec) *hookSink {
	h := &hookSink{made: x, hook: hook.New(hook.Options{Name: x.Name, Command: x.Command, Kinds: x.Events, Timeout: x.Timeout, Log: s.log})}
	h.detach = s.bus.Attach(h.hook)
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	s.tasks.Go(func() { _ = h.hook.Run(ctx, s.grace) }) // it has no errors but those it logs
	return h
}

// close ends all sinks, which have a moment for what waits.
func (s *sinks) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	late := time.AfterFunc(sinkGrace, s.end)
	defer late.Stop()
	for _, h := range s.hooks {
		h.detach()
		h.stop()
	}
	var err error
	for _, w := range s.webhooks {
		w.detach()
		w.drain(s.grace)
		w.stop()
		err = errors.Join(err, w.box.Close())
	}
	s.tasks.Wait()
	s.end()
	return err
}

// drain waits until all is delivered, the receiver is found not to answer, or ctx ends.
func (w *webhookSink) drain(ctx context.Context) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for failed := w.hook.Stats().Failed; w.box.Stats().Waiting > 0; {
		if now := w.hook.Stats(); now.Down || now.Gone || now.Failed > failed {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// counts adds what became of events to the counters of the status.
func (s *sinks) counts(all map[string]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, w := range s.webhooks {
		box, hook := w.box.Stats(), w.hook.Stats()
		all["webhook "+name+": delivered"] = hook.Delivered
		all["webhook "+name+": waiting"] = uint64(box.Waiting)
		all["webhook "+name+": failed attempts"] = hook.Failed
		all["webhook "+name+": lost"] = box.Lost
	}
	for name, h := range s.hooks {
		stats := h.hook.Stats()
		all["exec "+name+": run"] = stats.Run
		all["exec "+name+": waiting"] = uint64(stats.Waiting)
		all["exec "+name+": failed"] = stats.Failed
		all["exec "+name+": lost"] = stats.Lost
	}
}
