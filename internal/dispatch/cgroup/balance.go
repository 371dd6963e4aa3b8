package cgroup

import (
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/market"
)

// Shape of the weights. All of it was measured on a 2-core VM with 50 ms
// epochs; doc.go has the reasons.
const (
	lagGain   = 2.0 // exponent per core-epoch of lag; higher overshoots one scheduling slice
	lagReach  = 2.0 // bound of the exponent: a weight moves by at most e^2 = 7.4 times
	lagMemory = 2.0 // core-epochs remembered; more makes recovery from an impossible share slow

	classStep = 8    // served over margin
	loserStep = 128  // the lowest class of winners over all losers of tier 0 together
	tierStep  = 8    // between tiers of losers
	lastTier  = 3    // four tiers
	headroom  = 2    // base weights stay below max/headroom, so that lag can raise them
	tolerance = 0.03 // a weight within 3 % of the written one is not written

	// Nor one that is off by less than a part of all weights together, which is
	// that part of the machine, while it is within a quarter of the written one:
	// in a crowd nobody's share is known or wanted to 3 %, and a write costs what
	// re-pricing ten wallets does. The lag adds up what is missed, until it tells.
	crowdShare = 1.0 / 400
	crowdReach = 0.25

	// A floor slice is the least a loser is run for; a scheduler that looks
	// once a tick (1-4 ms) cannot give less.
	floorSlice = float64(time.Millisecond)
	// A loser runs over its slice by up to a tick on each of two processors.
	// More negative debt than that is leftovers, which cost no floor, unless
	// winners went short in that epoch: a loser that was lifted after a second in
	// the queue has run for 20 to 28 ms at once (EEVDF pays the lag it has saved
	// up), and would have 5 to 9 % of a core instead of its floor of one.
	floorExcess  = -8 * float64(time.Millisecond)
	floorOverrun = 2 // epochs

	peakDecay = 2 * time.Second // how long a large share keeps the scale where it is
)

// span is the range of weights of a layout.
type span struct {
	least, most int64
	usual       int64 // what the kernel gives a new group
	idle        bool  // below least there is cpu.idle
	narrow      bool  // a kernel before 6.6: see narrowest
}

// Kernels before EEVDF (6.6). CFS remembers what a group ran in its own
// virtual time, which passes faster the lighter it is, and does not rescale it
// when the weight changes: a loser that ran one 4 ms tick at a thousandth of
// the winners' weight waits 4 s after it has become rich (12 s in the dying
// lane, measured with cpu.idle on 6.1). So there the classes are closer, and
// losers share a part of the largest weight that is never tiny.
const (
	narrowStep  = 2    // served over margin
	narrowShare = 64   // the largest weight over all losers together
	narrowest   = 1024 // the largest weight over any loser
)

// spanV1 and spanV2 are the ranges of cpu.shares and cpu.weight.
func spanV1() span { return span{least: 2, most: 262144, usual: 1024} }
func spanV2() span { return span{least: 1, most: 10000, usual: 100, idle: true} }

// standing is what the balance remembers of one slot: the share in force since
// the last epoch and how far delivery is behind it.
type standing struct {
	live    bool
	class   market.Class
	lifted  bool    // a loser that is being given its floor slice
	granted float64 // ns per epoch, in force
	lag     float64 // owed minus delivered, in core-epochs
	debt    float64 // of a loser: floor owed, in ns of core time
}

// target is what a slot's group should be set to.
type target struct {
	weight int64
	idle   bool
	keep   bool // leave the weight as it is
}

// balance turns shares into weights. It is pure: it touches no file.
type balance struct {
	span  span
	slots []standing
	gain  float64 // weight per ns granted to a group served in full
	slack int64   // difference of weights that is not worth a write
	peak  float64 // largest share lately, in ns of served time
	tier  [lastTier + 1]float64
	width float64       // the lowest class of winners, in ns of served time, in powers of two
	rises time.Duration // how long it has been much larger
}

// step is the weight of the served over that of the margin.
func (b *balance) step() float64 {
	if b.span.narrow {
		return narrowStep
	}
	return classStep
}

func (b *balance) open(slot int) {
	for len(b.slots) <= slot {
		b.slots = append(b.slots, standing{})
	}
	b.slots[slot] = standing{live: true}
}

func (b *balance) close(slot int) {
	if slot < len(b.slots) {
		b.slots[slot] = standing{}
	}
}

func (b *balance) at(slot int) *standing {
	if slot < 0 || slot >= len(b.slots) || !b.slots[slot].live {
		return nil
	}
	return &b.slots[slot]
}

// settle closes the epoch that just ended: it finds what each slot was owed of
// the time that was really delivered, and moves the lags.
func (b *balance) settle(elapsed time.Duration, shares []dispatch.Share) {
	if elapsed <= 0 {
		return
	}
	level := b.level(shares)
	least := floorExcess
	if b.short(shares) > floorSlice {
		least = min(least, -floorOverrun*float64(elapsed))
	}
	for i := range shares {
		s := b.at(shares[i].Slot)
		if s == nil {
			continue
		}
		used := float64(shares[i].Used)
		want := max(float64(shares[i].Demand), used)
		owed := min(level*s.granted, want)
		switch s.class {
		case market.Served, market.Margin:
			s.lag = clamp(s.lag+(owed-used)/float64(elapsed), lagMemory)
			if want == 0 {
				s.lag /= 2 // it slept: what it was owed is going stale
			}
		case market.Loser:
			s.debt = min(max(s.debt+owed-used, min(least, s.debt)), float64(elapsed))
		case market.Idle, market.Frozen:
		}
	}
}

// short is what winners wanted in the epoch that ended and did not get.
func (b *balance) short(shares []dispatch.Share) float64 {
	sum := 0.0
	for i := range shares {
		if s := b.at(shares[i].Slot); s != nil && (s.class == market.Served || s.class == market.Margin) {
			sum += max(0, min(s.granted, float64(shares[i].Demand))-float64(shares[i].Used))
		}
	}
	return sum
}

// level solves sum(min(level*granted, wanted)) = delivered for level: the
// multiple of its grant that each slot would have got if the time that was
// really delivered had been divided by the grants, nobody getting more than
// it wanted. It makes the lags independent of how late the epoch was and of
// what processes outside the market took. Newton from the left on a concave
// function: it ends in a few rounds, and never overshoots.
func (b *balance) level(shares []dispatch.Share) float64 {
	delivered := 0.0
	for i := range shares {
		s := b.at(shares[i].Slot)
		if s == nil {
			continue
		}
		switch s.class {
		case market.Served, market.Margin:
			delivered += float64(shares[i].Used)
		case market.Loser:
			delivered += min(float64(shares[i].Used), s.granted)
		case market.Idle, market.Frozen:
		}
	}
	level := 0.0
	for range 12 {
		filled, open := 0.0, 0.0
		for i := range shares {
			s := b.at(shares[i].Slot)
			if s == nil || s.granted == 0 {
				continue
			}
			want := float64(max(shares[i].Demand, shares[i].Used))
			if level*s.granted >= want {
				filled += want
			} else {
				filled += level * s.granted
				open += s.granted
			}
		}
		if open == 0 || filled >= delivered*(1-1e-9) {
			break
		}
		level += (delivered - filled) / open
	}
	return level
}

// survey takes the coming epoch's shares and fixes the scale of its weights.
func (b *balance) survey(elapsed time.Duration, shares []dispatch.Share) {
	var top, served, margin, all float64
	var losers [lastTier + 1]float64
	for i := range shares {
		s := b.at(shares[i].Slot)
		if s == nil {
			continue
		}
		s.class, s.granted = market.Class(shares[i].Class), float64(max(shares[i].Granted, 0))
		switch s.class {
		case market.Served:
			top, served = max(top, s.granted), served+s.granted
		case market.Margin:
			top, margin = max(top, s.granted/b.step()), margin+s.granted/b.step()
		case market.Loser:
			losers[min(shares[i].Tier, lastTier)]++
			all++
			s.lifted = s.debt >= floorSlice || s.lifted && s.debt > 0
		case market.Idle, market.Frozen:
		}
		if s.class != market.Loser {
			// Nothing is owed to a winner. What it ran over as a loser stays: a
			// winner that is metered by ticks asks for 48 ms of 50 in every other
			// epoch, and the loser shares the margin in between.
			s.debt, s.lifted = min(s.debt, 0), false
		}
	}
	b.rescale(elapsed, top)
	b.slack = int64(b.gain * (served + margin) * crowdShare)
	if margin == 0 {
		margin = served
	}
	b.narrow(elapsed, margin)
	total := b.gain * b.width / loserStep
	for t := range b.tier {
		b.tier[t] = total / powerAbove(max(losers[t], 1))
		if b.span.narrow {
			least := max(1.0/narrowShare/powerAbove(max(all, 1)), 1.0/narrowest)
			b.tier[t] = max(b.tier[t], b.gain*b.peak*least)
		}
		total /= tierStep
	}
}

// rescale moves the scale in powers of two and only when it has to: a new
// scale means that every weight is written again.
func (b *balance) rescale(elapsed time.Duration, top float64) {
	b.peak = max(top, b.peak*(1-min(float64(elapsed)/float64(peakDecay), 1)))
	most := float64(b.span.most)
	if b.peak > 0 {
		if at := b.gain * b.peak; at > most/headroom || at < most/headroom/8 {
			b.gain = powerAbove(most / headroom / 4 / b.peak)
		}
	}
	if b.gain == 0 { // nobody has been granted anything yet
		b.gain = most / headroom / float64(max(elapsed, time.Millisecond))
	}
}

// narrow follows the lowest class of winners, to whom the losers are losers:
// down at once, up only when it stays up.
func (b *balance) narrow(elapsed time.Duration, lowest float64) {
	if lowest <= 0 {
		return
	}
	if lowest < 4*b.width {
		b.rises = 0
	} else {
		b.rises += elapsed
	}
	if lowest < b.width || b.width == 0 || b.rises > peakDecay {
		b.width, b.rises = powerAbove(lowest)/2, 0
	}
}

// aim says what one share's group should be set to. It follows survey.
func (b *balance) aim(share *dispatch.Share) target {
	s := b.at(share.Slot)
	if s == nil {
		return target{keep: true}
	}
	weight := 0.0
	switch s.class {
	case market.Idle, market.Frozen:
		// Who wants nothing keeps the weight it had: it does not run, and when
		// it wakes it is ranked within an epoch.
		return target{keep: true}
	case market.Served:
		weight = b.gain * s.granted * correction(s.lag)
	case market.Margin:
		weight = b.gain * s.granted / b.step() * correction(s.lag)
	case market.Loser:
		if s.lifted {
			weight = b.gain * s.debt // the floor is taken out first, beside the served
			break
		}
		tier := min(share.Tier, lastTier)
		weight = b.tier[tier]
		if b.span.narrow {
			break
		}
		if b.span.idle && (tier == lastTier || weight < float64(b.span.least)) {
			return target{weight: b.span.least, idle: true}
		}
		if tier == lastTier {
			weight = 0
		}
	}
	w := min(max(int64(weight+0.5), b.span.least), b.span.most)
	return target{weight: w}
}

// near reports whether a written weight may stay although another is wanted.
func near(written, wanted int64) bool {
	d := written - wanted
	return float64(max(d, -d)) <= tolerance*float64(written)
}

// minor reports whether a written weight may stay because the difference is less
// than slack, and not much of the weight itself.
func minor(written, wanted, slack int64) bool {
	d := max(written-wanted, wanted-written)
	return written > 0 && d <= slack && float64(d) <= crowdReach*float64(written)
}

func correction(lag float64) float64 { return math.Exp(clamp(lagGain*lag, lagReach)) }

func clamp(v, bound float64) float64 { return min(max(v, -bound), bound) }

// powerAbove is the least power of two that is not below v > 0.
func powerAbove(v float64) float64 {
	fraction, exponent := math.Frexp(v)
	if fraction == 0.5 {
		return v
	}
	return math.Ldexp(1, exponent)
}
