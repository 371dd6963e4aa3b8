package price

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	// Lowest and Highest bound the grid factor whatever the tariff says: a
	// wrong decimal point must not make work free or end every wallet.
	Lowest  = unit.One / 10
	Highest = unit.One * 10

	// slew is the most the factor moves in a minute, relative to itself: ln(1.1)
	// in short steps compounds to 10 % a minute. A budget made at one price
	// should not be gone before its owner sees another.
	slew = unit.PPM(95_310)

	// stride is the longest single step, so that the factor compounds nearly
	// the same way however rarely it is asked for.
	stride = time.Second

	// settled is how long slewing from any factor to any other takes at most:
	// ln(100) / ln(1.1) is 48.4 minutes.
	settled = 50 * time.Minute
)

// Grid is the grid factor g over time: the last known tariff, within bounds,
// approached by at most 10 % a minute, and 1 again (at the same pace) when the
// tariff is no longer valid. The zero value is a grid without a tariff: 1.
//
// g is part of the price of an interval that is already over, so ask for it
// only on the edges of settlement windows and use one answer for the window.
type Grid struct {
	target  unit.PPM
	until   unit.Instant // target is valid up to here
	offset  unit.PPM     // factor in force - 1, so that the zero value is 1
	at      unit.Instant // of the factor in force
	rest    int64        // of the last step, see step
	known   bool
	started bool
	clamped uint64
}

// GridFrom is a grid without a tariff whose factor at now is factor, within bounds:
// that of an earlier process. Without one (0) it is 1.
func GridFrom(now unit.Instant, factor unit.PPM) Grid {
	if factor == 0 {
		factor = unit.One
	}
	return Grid{offset: min(max(factor, Lowest), Highest) - unit.One, at: now, started: true}
}

// Observe takes a tariff seen at now: a factor that is valid until validUntil.
// A factor out of bounds is cut to them and counted. What is no longer valid at
// now is ignored.
func (g *Grid) Observe(now unit.Instant, factor unit.PPM, validUntil unit.Instant) {
	if validUntil <= now {
		return
	}
	g.Factor(now)
	bounded := min(max(factor, Lowest), Highest)
	if bounded != factor {
		g.clamped++
	}
	g.target, g.until, g.known = bounded, validUntil, true
}

// Factor is g at now. A now before the last one changes nothing.
func (g *Grid) Factor(now unit.Instant) unit.PPM {
	switch {
	case !g.started:
		g.at, g.started = now, true
	case now <= g.at:
	case g.known && g.until < now:
		g.slewTo(g.target, max(g.at, g.until))
		g.known = false
		g.slewTo(unit.One, now)
	case g.known:
		g.slewTo(g.target, now)
	default:
		g.slewTo(unit.One, now)
	}
	return unit.One + g.offset
}

// Stale says whether there is no valid tariff at now, so that the factor is 1
// or on its way back to it.
func (g *Grid) Stale(now unit.Instant) bool {
	return !g.known || g.until < now
}

// Clamped is how many tariffs were out of bounds.
func (g *Grid) Clamped() uint64 { return g.clamped }

// slewTo moves the factor towards target from g.at to now.
func (g *Grid) slewTo(target unit.PPM, now unit.Instant) {
	if now.Sub(g.at) > settled {
		g.offset, g.rest, g.at = target-unit.One, 0, now
		return
	}
	for g.at < now {
		d := min(now.Sub(g.at), stride)
		g.step(target, d)
		g.at = g.at.Add(d)
	}
}

// step moves the factor by at most slew * d, and keeps what is less than one
// ppm for the next step: in 100 ms at 0.1x it is 15.9 ppm.
func (g *Grid) step(target unit.PPM, d time.Duration) {
	factor := unit.One + g.offset
	distance := max(target-factor, factor-target)
	if distance == 0 {
		g.rest = 0
		return
	}
	perMinute := slew.Of(int64(factor))
	limit, rest := unit.MulDivRem(perMinute, int64(d), int64(time.Minute))
	if g.rest += rest; g.rest >= int64(time.Minute) {
		g.rest -= int64(time.Minute)
		limit++
	}
	move := min(distance, unit.PPM(limit))
	if target < factor {
		move = -move
	}
	g.offset += move
}
