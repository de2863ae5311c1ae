package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// record is the memory for one device key and router. Times and offset are milliseconds.
type record struct {
	// Offset is the router's clock minus this device's; it means something if Known.
	Known  bool
	Offset int64
	Boot   string // the boot id the offset was learned in
	// Last is the last time used in a packet, or the router's time adopted after that.
	Last int64
	// Answered is the highest time that was answered with another status than clock off.
	Answered int64
	// Era counts adoptions of the router's time as Last. Only a packet of the present
	// era may cause one: two families are told clock off at once, and the second
	// adoption would take back a time that the first one's retry has used.
	Era uint64
}

// maxTime leaves room below the 48 bits of a packet's time for later packets of a
// device whose clock is beyond them.
const maxTime = 1<<48 - 1<<20

// stamp is a time that was taken for one packet.
type stamp struct {
	ms  int64
	era uint64
}

// memory is the clock memory for one device key and router.
type memory struct {
	folder *folder
	system System
	device keys.DevicePublic
	router keys.RouterPublic
}

// next takes the time for one packet. It is on disk when next returns.
func (m *memory) next(ctx context.Context) (s stamp, err error) {
	err = m.update(ctx, func(r *record) error {
		t := min(m.system.Now().UnixMilli()+r.Offset, maxTime)
		t = max(t, r.Last+1, r.Answered+1)
		if t >= 1<<48 {
			return errors.New("this device's clock is beyond the year 10889; set it")
		}
		r.Last = t
		s = stamp{t, r.Era}
		return nil
	})
	return s, err
}

// reading is what an authentic answer tells about the router's clock.
type reading struct {
	status   wire.Status
	routerMS int64
	at       time.Time // this device's clock when it came
	rtt      time.Duration
}

// learn takes the offset from an answer. With clock off it also adopts the router's
// time as last time used, never below what was answered otherwise.
func (m *memory) learn(ctx context.Context, s stamp, a reading) error {
	boot := m.system.BootID()
	return m.update(ctx, func(r *record) error {
		r.Known, r.Boot = true, boot
		r.Offset = a.routerMS + (a.rtt / 2).Milliseconds() - a.at.UnixMilli()
		switch {
		case a.status != wire.ClockOff:
			r.Answered = max(r.Answered, s.ms)
		case s.era == r.Era:
			r.Last = max(a.routerMS, r.Answered)
			r.Era++
		}
		return nil
	})
}

// lost reports whether neither the system's clock nor an offset can be relied on:
// the router should be asked for the time before anything else.
func (m *memory) lost(ctx context.Context) (bool, error) {
	if m.system.Synchronised() {
		return false, nil
	}
	known, boot := false, m.system.BootID()
	err := m.folder.locked(ctx, func() error {
		c, err := m.load()
		if err == nil {
			known = c.own.Known && c.own.Boot == boot && boot != ""
		}
		return err
	})
	return !known, err
}

func (m *memory) update(ctx context.Context, change func(*record) error) error {
	return m.folder.locked(ctx, func() error {
		c, err := m.load()
		if err != nil {
			return err
		}
		if err := change(&c.own); err != nil {
			return err
		}
		if err := m.store(c); err != nil {
			return fmt.Errorf("writing %q, which must be done before a packet is sent: %w", m.path(), bare(err))
		}
		return nil
	})
}
