package policy

import (
	"errors"
	"time"
)

const day = 24 * 60 // minutes

// Hours are a part of every local day, from the minute From to before the minute To. To may be below From: over
// midnight.
type Hours struct {
	From int // minutes since midnight, 0 to 1439
	To   int // minutes since midnight, 0 to 1440, other than From
}

func (h Hours) check() error {
	if h.From < 0 || h.From >= day || h.To < 0 || h.To > day || h.From == h.To {
		return errors.New("hours: want two different times of day")
	}
	return nil
}

// left returns how long the hours last from a time on, which is read in its own zone; 0 outside of them.
func (h Hours) left(at time.Time) time.Duration {
	minute := at.Hour()*60 + at.Minute()
	days := 0
	if h.From < h.To {
		if minute < h.From || minute >= h.To {
			return 0
		}
	} else if minute >= h.From {
		days = 1 // they end tomorrow
	} else if minute >= h.To {
		return 0
	}
	since := time.Duration(minute)*time.Minute + time.Duration(at.Second())*time.Second + time.Duration(at.Nanosecond())
	left := time.Duration(h.To+days*day)*time.Minute - since
	if h.ends(at.Add(left)) {
		return left
	}
	// The clocks change before then: either the end comes an hour sooner or later, or its hour is skipped.
	left = time.Date(at.Year(), at.Month(), at.Day()+days, 0, h.To, 0, 0, at.Location()).Sub(at)
	if left > 0 && h.ends(at.Add(left)) {
		return left
	}
	_, change := at.ZoneBounds()
	return change.Sub(at)
}

// ends reports whether the clock shows the minute To.
func (h Hours) ends(at time.Time) bool { return at.Hour()*60+at.Minute() == h.To%day }
