package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"spad/pkg/client"
)

// plan is what to ask of whom: the services, perhaps a router, and the request without both.
type plan struct {
	services []string
	router   string
	template client.Request
}

// visit is one request, and where its services stand on the command line.
type visit struct {
	client.Request
	at []int
}

// knocker carries out a plan, once or again and again, and reports.
type knocker struct {
	client *client.Client
	visits []visit
	size   int
	json   bool
	out    io.Writer
	errs   io.Writer
}

// newKnocker finds the router of each service. Nothing is sent if one is not found.
func newKnocker(c *cli.Context, cl *client.Client, p plan) (*knocker, error) {
	routers, err := cl.Routers()
	if err != nil {
		return nil, err
	}
	k := &knocker{client: cl, size: len(p.services), json: c.Bool("json"), out: c.App.Writer, errs: c.App.ErrWriter}
	for i, s := range p.services {
		r, err := client.Pick(routers, p.router, s)
		if err != nil {
			return nil, err
		}
		v := k.visit(r, p.template)
		v.Services = append(v.Services, s)
		v.at = append(v.at, i)
	}
	return k, nil
}

func (k *knocker) visit(r client.Router, template client.Request) *visit {
	for i := range k.visits {
		if k.visits[i].Router.Name == r.Name {
			return &k.visits[i]
		}
	}
	template.Router = r
	k.visits = append(k.visits, visit{Request: template})
	return &k.visits[len(k.visits)-1]
}

// answer is what became of one service.
type answer struct {
	client.Outcome
	router   client.Router
	err      error // explained; nil if it was granted
	noAnswer bool
}

type answers []answer

// all knocks at all routers at once, prints what became of each service in the order
// of the command line, and returns it.
func (k *knocker) all(ctx context.Context) answers {
	got := make(answers, k.size)
	var wg sync.WaitGroup
	first, others := k.visits[0], k.visits[1:]
	for _, v := range others {
		wg.Go(func() { v.send(ctx, k.client, got) })
	}
	first.send(ctx, k.client, got)
	wg.Wait()
	if ctx.Err() == nil { // else it was stopped, which is no news
		k.print(got)
	}
	return got
}

func (v visit) send(ctx context.Context, c *client.Client, got answers) {
	outcomes, err := c.Knock(ctx, v.Request)
	for i, at := range v.at {
		a := answer{Outcome: client.Outcome{Service: v.Services[i]}, router: v.Router, err: err, noAnswer: v.NoAnswer}
		if err == nil {
			a.Outcome = outcomes[i]
			if a.Outcome.Err() != nil {
				a.err = explain(v.Router, a.Outcome)
			}
		}
		got[at] = a
	}
}

// worst returns the exit code of the worst, as all has been said; nil if all is well.
func (got answers) worst() error {
	code := 0
	for _, a := range got {
		code = max(code, exitCode(a.err))
	}
	if code == 0 {
		return nil
	}
	return exitError(code)
}

// ttl returns the shortest time that a service was opened for; 0 if none is known.
func (got answers) ttl() (shortest time.Duration) {
	for _, a := range got {
		if t := a.ttl(); t > 0 && (shortest == 0 || t < shortest) {
			shortest = t
		}
	}
	return shortest
}

func (k *knocker) print(got answers) {
	said := make(map[string]bool) // what is wrong with all services is said once
	for _, a := range got {
		if a.err != nil && !said[a.err.Error()] {
			k.warn(message(a.err))
			said[a.err.Error()] = true
		}
		if a.err == nil && !k.json {
			fmt.Fprintln(k.out, a.text())
		}
	}
	if k.json {
		k.encode(got)
	}
}

func (k *knocker) warn(text string) { fmt.Fprintf(k.errs, "knock: %s\n", text) }

func (k *knocker) encode(got answers) {
	list := make([]jsonAnswer, 0, len(got))
	for _, a := range got {
		list = append(list, a.json())
	}
	_ = json.NewEncoder(k.out).Encode(list) // as with all output, a closed pipe is the reader's wish
}
