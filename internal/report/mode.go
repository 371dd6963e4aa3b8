package report

import (
	"fmt"
	"time"
)

// Modes of enforcement that do nothing to a workload.
const (
	observedOnly = "observe"
	warnedOnly   = "warn"
)

// Mode is how far the market goes with a workload and, if it only looks on, what it
// would have done.
type Mode struct {
	Enforce     string `json:"enforce"`           // observe, warn or on
	WouldReason string `json:"would_stop_reason"` // why it would have been stopped, the last time
	WouldAt     int64  `json:"would_stop_wall_ns"`
	WouldStill  bool   `json:"would_stop_still"` // it would be stopped now
}

// free reports whether nothing is done to the workload.
func (m *Mode) free() bool { return m.Enforce == observedOnly || m.Enforce == warnedOnly }

// state is what a living workload that nothing is done to is called.
func (m *Mode) state() string {
	if m.Enforce == warnedOnly {
		return "warned only"
	}
	return "observed"
}

// would is when and why it would have been stopped; false if it would not have been.
func (m *Mode) would(now time.Time) (text string, is bool) {
	if !m.free() || m.WouldReason == "" {
		return "", false
	}
	text = fmt.Sprintf("%s: %s", clock(m.WouldAt, now), printable(m.WouldReason))
	if !m.WouldStill {
		text += ", until funded"
	}
	return text, true
}
