package daemon

import (
	"io"
	"net"
	"testing"
	"time"

	"spad/keys"
	"spad/pkg/config"
	"spad/pkg/event"
	"spad/pkg/firewall/firewalltest"
)

// BenchmarkTold reports how long a door takes while a webhook is told of it whose receiver never answers, and a program is run
// that never ends, against the same without anybody who is told, in turns.
func BenchmarkTold(b *testing.B) {
	firewalltest.NewLab(b) // skips where there are no namespaces
	a := newArrivals(b)
	silent := must(net.Listen("tcp", "127.0.0.1:0"))
	b.Cleanup(func() { silent.Close() })
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
		}
	}()
	secret := must(keys.ParseWebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
	cfg := &config.Config{
		Webhooks: []config.Webhook{{
			Name: "page", URL: "http://" + silent.Addr().String(), Secret: secret, Events: event.Kinds(), Timeout: time.Minute,
		}},
		Execs: []config.Exec{{Name: "sleep", Command: []string{"/bin/sleep", "600"}, Events: event.Kinds(), Timeout: time.Hour}},
	}
	s := must(openSinks(cfg, b.TempDir(), "test", a.bus))
	b.Cleanup(func() { s.close() })
	page, sleep := s.webhooks["page"], s.hooks["sleep"]
	const turn = 20 // so that few are slowed down by what was written for the others
	var told, alone []time.Duration
	for b.Loop() {
		for range turn {
			told = append(told, a.knock(b))
		}
		page.detach()
		sleep.detach()
		for range turn {
			alone = append(alone, a.knock(b))
		}
		page.detach, sleep.detach = a.bus.Attach(page.box), a.bus.Attach(sleep.hook)
	}
	b.ReportMetric(median(told), "us/told")
	b.ReportMetric(median(alone), "us/alone")
	b.ReportMetric(median(told)/median(alone), "ratio")
}
