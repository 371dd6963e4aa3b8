package physics

import (
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// updateSlack is how much older than its reading a counter's value may be: RAPL
// updates about every millisecond, with jitter. Without it two readings in
// quick succession would look like a jump whenever an update falls between.
const updateSlack = 4 * time.Millisecond

// excess is how far beyond the physical maximum an increment may go before it
// is clamped: boost clocks exceed the rated power for seconds.
const excess = 2

// Counter turns the readings of one hardware energy counter, which may wrap,
// jump, run backwards, vanish and come back, into energy that only grows and
// never by more than the hardware can burn. Each thing it had to mend is a
// fault. The zero value is a counter that never wraps and has no known maximum.
//
// In order, an increment is:
//
//   - refused, with the baseline kept, if no time has passed: the next reading
//     accounts for it (a fault if time ran backwards);
//   - zero, with the baseline kept, if the counter fell by no more than one
//     increment's maximum: registers of several domains are not updated
//     together, and what is lost comes back with the next rise (a fault);
//   - the modular difference, if the counter fell, has a range, and the result
//     is physically possible: a wrap, which is normal;
//   - zero, from a new baseline, if the counter fell otherwise: it was reset (a
//     fault);
//   - the maximum, if the counter rose by more than that (a fault).
//
// Several wraps between two readings can't be told from one. Where the time
// between them allows a second wrap, the increment is a lower bound and a fault.
type Counter struct {
	Range   uint64          // microjoules after which it starts again at 0; 0 = never
	Maximum unit.Microwatts // physical maximum; 0 = unknown, nothing is clamped

	total  unit.Microjoules
	last   uint64
	at     unit.Instant
	faults uint64
	based  bool
}

// Advance takes the raw value in microjoules read at now and returns the energy
// counted since the first reading.
func (c *Counter) Advance(now unit.Instant, raw uint64) unit.Microjoules {
	if !c.based {
		c.rebase(now, raw)
		c.based = true
		return c.total
	}
	elapsed := now.Sub(c.at)
	if elapsed <= 0 {
		if elapsed < 0 {
			c.faults++
		}
		return c.total
	}
	bound := c.bound(elapsed)
	switch {
	case raw >= c.last:
		c.count(raw-c.last, bound)
	case c.Range > 0 && c.last < c.Range && c.Range-c.last+raw <= bound:
		c.count(c.Range-c.last+raw, bound)
	case c.last-raw <= bound && bound != math.MaxUint64:
		c.faults++
		c.at = now
		return c.total
	default:
		c.faults++
	}
	if c.Range > 0 && bound != math.MaxUint64 && bound >= c.Range {
		c.faults++
	}
	c.rebase(now, raw)
	return c.total
}

// Lost tells the counter that its file or register went away: the next reading
// is a new baseline, and what was burnt in between is not counted.
func (c *Counter) Lost() {
	c.based = false
	c.faults++
}

// Total is the energy counted so far.
func (c *Counter) Total() unit.Microjoules { return c.total }

// Faults is how often the counter had to be mended.
func (c *Counter) Faults() uint64 { return c.faults }

func (c *Counter) rebase(now unit.Instant, raw uint64) {
	c.at, c.last = now, raw
}

// count adds an increment, cut to bound and to what the total can hold.
func (c *Counter) count(increment, bound uint64) {
	room := uint64(math.MaxInt64 - c.total)
	if limit := min(bound, room); increment > limit {
		c.faults++
		increment = limit
	}
	c.total += unit.Microjoules(increment)
}

// bound is the most that the hardware can burn in elapsed, with some excess.
func (c *Counter) bound(elapsed time.Duration) uint64 {
	if c.Maximum <= 0 {
		return math.MaxUint64
	}
	limit := unit.MulDivSat(int64(c.Maximum), int64(min(elapsed, math.MaxInt64-updateSlack)+updateSlack), int64(time.Second))
	return uint64(min(limit, math.MaxInt64/excess)) * excess
}
