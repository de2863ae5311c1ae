package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"spad/keys"
	"spad/pkg/wire"
)

// clocks is clocks.json: what is remembered per device key and router. It is read and
// written under the lock for each packet, so that the times used strictly increase
// across goroutines, processes and restarts.
type clocks struct {
	Version int      `json:"version"`
	Clocks  []record `json:"clocks"`
}

const clocksVersion = 1

// record is the memory for one device key and router. Times and offset are milliseconds.
type record struct {
	Device keys.DevicePublic `json:"device"`
	Router keys.RouterPublic `json:"router"`
	// Offset is the router's clock minus this device's; it means something if Known.
	Known  bool   `json:"known"`
	Offset int64  `json:"offset_ms"`
	Boot   string `json:"boot"` // the boot id the offset was learned in
	// Last is the last time used in a packet, or the router's time adopted after that.
	Last int64 `json:"last_ms"`
	// Answered is the highest time that was answered with another status than clock off.
	Answered int64 `json:"answered_ms"`
	// Era counts adoptions of the router's time as Last. Only a packet of the present
	// era may cause one: two families are told clock off at once, and the second
	// adoption would take back a time that the first one's retry has used.
	Era uint64 `json:"era"`
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
			r := c.record(m.device, m.router)
			known = r.Known && r.Boot == boot && boot != ""
		}
		return err
	})
	return !known, err
}

func (m *memory) path() string { return m.folder.file("clocks.json") }

func (m *memory) update(ctx context.Context, change func(*record) error) error {
	return m.folder.locked(ctx, func() error {
		c, err := m.load()
		if err != nil {
			return err
		}
		if err := change(c.record(m.device, m.router)); err != nil {
			return err
		}
		data, err := json.MarshalIndent(c, "", "\t")
		if err == nil {
			err = replace(m.path(), append(data, '\n'))
		}
		if err != nil {
			return fmt.Errorf("writing %q, which must be done before a packet is sent: %w", m.path(), bare(err))
		}
		return nil
	})
}

func (m *memory) load() (*clocks, error) {
	data, err := readPrivate(m.path())
	if errors.Is(err, fs.ErrNotExist) {
		return &clocks{Version: clocksVersion}, nil
	}
	if err != nil {
		return nil, configErrorf("reading %q: %w", m.path(), err)
	}
	var c clocks
	if err := json.Unmarshal(data, &c); err != nil || c.Version != clocksVersion {
		return nil, configErrorf("%q is damaged or of a later version; remove it, and the clocks are learned anew", m.path())
	}
	return &c, nil
}

// record returns the record of a key and router, a new one if need be.
func (c *clocks) record(d keys.DevicePublic, r keys.RouterPublic) *record {
	for i := range c.Clocks {
		if c.Clocks[i].Device == d && c.Clocks[i].Router == r {
			return &c.Clocks[i]
		}
	}
	c.Clocks = append(c.Clocks, record{Device: d, Router: r})
	return &c.Clocks[len(c.Clocks)-1]
}
