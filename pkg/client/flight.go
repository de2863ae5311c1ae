package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"spad/pkg/wire"
)

// pauses are how long each packet's answer is awaited before the next packet leaves,
// and before the device gives up: packets at 0, 0.5 and 1.5 s, the end at 3 s.
var pauses = [...]time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond}

// jittered varies a pause by a tenth either way, so that devices that lost their
// packets at the same moment do not send the next ones at the same moment.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5)
}

// flight is one wish on its way to one address, until it has an answer or gives up.
type flight struct {
	*errand
	wish
	conn    Conn
	address netip.Addr // declared; the zero Addr if none
	left    func()     // called when the first packet has been sent

	sent      []packet
	corrected bool  // clock off was answered and the router's time adopted
	sendErr   error // of the last packet, if none has left yet
	result    Result
}

// packet is one that was sent.
type packet struct {
	wire.Waiter
	stamp
	left  time.Time // on the monotonic clock
	stale bool      // its time was taken before the clock was corrected
}

// letter is a datagram that came.
type letter struct {
	data []byte
	at   time.Time // on the monotonic clock
	wall time.Time // on the system clock
}

// verdict is what waiting for an answer has come to.
type verdict uint8

const (
	silence verdict = iota // nothing final came in time: send the next packet
	settled                // result is final
	again                  // the clock was corrected: start over
)

func (f *flight) run(ctx context.Context) Result {
	if f.noAnswer {
		defer f.conn.Close()
		f.result.Err = f.send(ctx)
		return f.result
	}
	mail := make(chan letter)
	reading, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { f.listen(reading, mail) })
	defer wg.Wait()
	defer f.conn.Close()
	defer stop()
	return f.attempts(ctx, mail)
}

func (f *flight) attempts(ctx context.Context, mail <-chan letter) Result {
	for n := 0; n < len(pauses); n++ {
		if err := f.send(ctx); err != nil && !errors.As(err, new(*unreachableError)) {
			f.result.Err = err // no time could be taken, or no packet made: no use in trying again
			return f.result
		}
		switch f.await(ctx, mail, jittered(pauses[n]), n == len(pauses)-1) {
		case settled:
			return f.result
		case again:
			n = -1
		}
		if ctx.Err() != nil {
			f.result.Err = ctx.Err()
			return f.result
		}
	}
	switch {
	case f.result.Answered: // busy to the end, or silence after clock off
	case f.sendErr != nil:
		f.result.Err = f.sendErr
	default:
		f.result.Err = ErrNoAnswer
	}
	return f.result
}

// send takes the time for a new packet, makes it and sends it.
func (f *flight) send(ctx context.Context) error {
	var s stamp
	err := ctx.Err()
	if err != nil { // nobody waits for it any more, so it shall not take effect either
		return err
	}
	if f.op != wire.OpEnroll {
		if s, err = f.memory.next(ctx); err != nil {
			return err
		}
	}
	data, w, err := f.seal(f.wish, s.ms, f.address)
	if err != nil {
		return fmt.Errorf("making the packet: %w", err)
	}
	f.sent = append(f.sent, packet{Waiter: w, stamp: s, left: time.Now()})
	err = f.write(data[:])
	f.left()
	if err == nil {
		f.sendErr = nil
		return nil
	}
	err = unreachable(f.result.Router, err)
	if len(f.sent) == 1 || f.sendErr != nil { // once one has left, what counts is the answer
		f.sendErr = err
	}
	return err
}

// write sends one datagram. A connected socket reports an ICMP message for an earlier
// one instead of sending: then the second try sends.
func (f *flight) write(data []byte) error {
	if _, err := f.conn.Write(data); err == nil {
		return nil
	}
	_, err := f.conn.Write(data)
	return err
}

// errorPause keeps a socket that only has errors to report from taking a whole core.
const errorPause = time.Millisecond

// listen hands over what comes, until the flight is over. ICMP errors are no reason to
// give up: anyone can send them.
func (f *flight) listen(ctx context.Context, mail chan<- letter) {
	buf := make([]byte, 2*wire.AnswerSize) // longer than an answer, so that a longer datagram shows
	for ctx.Err() == nil {
		n, err := f.conn.Read(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-ctx.Done():
			case <-time.After(errorPause):
			}
		case n == wire.AnswerSize:
			select {
			case <-ctx.Done():
			case mail <- letter{append([]byte(nil), buf[:n]...), time.Now(), f.system.Now()}:
			}
		}
	}
}

// await reads the mail for the time d. The last packet's busy is not waited out.
func (f *flight) await(ctx context.Context, mail <-chan letter, d time.Duration, last bool) verdict {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for {
		select {
		case <-ctx.Done():
			return silence
		case <-timeout.C:
			return silence
		case l := <-mail:
			if v := f.read(ctx, l, last); v != silence {
				return v
			}
		}
	}
}

// read looks whether a datagram answers one of the packets; all else is foreign.
func (f *flight) read(ctx context.Context, l letter, last bool) verdict {
	for i := range f.sent {
		p := &f.sent[i]
		a, err := p.OpenAnswer(l.data)
		if err != nil {
			continue
		}
		return f.answer(ctx, p, a, l, last)
	}
	return silence
}

// answer acts on an authentic answer.
func (f *flight) answer(ctx context.Context, p *packet, a wire.Answer, l letter, last bool) verdict {
	rtt := l.at.Sub(p.left)
	err := f.memory.learn(ctx, p.stamp, reading{a.Status, a.RouterMS, l.wall, rtt})
	if a.Status == wire.ClockOff && p.stale {
		return silence // a packet from before the correction; the one after it is on its way
	}
	f.take(a, rtt)
	switch {
	case a.Status == wire.ClockOff && f.op != wire.OpHello && !f.corrected:
		if err != nil { // what can't be remembered can't be used
			f.result.Err = err
			return settled
		}
		f.corrected = true
		for i := range f.sent {
			f.sent[i].stale = true
		}
		return again
	case a.Status == wire.Busy && !(last && p == &f.sent[len(f.sent)-1]):
		return silence
	}
	// That the clock could not be stored does not undo what the router did; the next
	// packet will fail over it.
	return settled
}

// take makes an answer the result.
func (f *flight) take(a wire.Answer, rtt time.Duration) {
	r := &f.result
	r.Answered, r.Status, r.Err, r.rtt = true, a.Status, nil, rtt
	r.TTL, r.Port, r.Seen = time.Duration(a.TTL)*time.Second, a.Port, a.Seen
	if !f.granted(a.Status) {
		r.Err = &StatusError{a.Status}
	}
}
