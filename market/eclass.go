package market

import (
	"math/bits"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The grid of energy classes: a quarter of an octave (19 %) a step. A coarser
// one ranks the cool and the hot alike; a finer one lets meter noise decide
// which of two identical twins runs.
const (
	classStep  = PerOctave / 4 // in buckets
	classDecay = 10 * time.Second
	// classWeight: the average takes in a fourth of each new reading, so that a
	// workload that turns hot is found out within a few windows of the meter.
	classWeight = 4
)

// EClass is the class of watts per core that a workload is ranked by. It
// follows what the workload burns, on a coarse grid with half a step of
// hysteresis, and decays to the node's mean while the workload does not run.
// The energy it is billed is metered, whatever its class.
type EClass struct {
	mean  unit.Microwatts
	level unit.Microwatts // averaged, when last seen
	seen  unit.Instant
	class Bucket // centre of the class in force
}

// NewEClass is the class of a newcomer: the node's.
func NewEClass(mean unit.Microwatts, now unit.Instant) EClass {
	mean = max(mean, 0)
	return EClass{mean: mean, level: mean, seen: now, class: BucketOf(unit.Rate(mean))}
}

// SetMean moves the node's mean.
func (c *EClass) SetMean(mean unit.Microwatts) { c.mean = max(mean, 0) }

// Observe takes what a core-second of the workload burnt in an epoch in which
// it ran.
func (c *EClass) Observe(now unit.Instant, e unit.Microwatts) {
	level := c.decayed(now)
	c.level = level + (max(e, 0)-level)/classWeight
	c.seen = max(c.seen, now)
	c.settle(c.level)
}

// Class returns the watts per core to rank by. The node's own class is its
// mean exactly; others stand a whole number of quarter octaves from it.
func (c *EClass) Class(now unit.Instant) unit.Microwatts {
	c.settle(c.decayed(now))
	if c.class == BucketOf(unit.Rate(c.mean)) {
		return c.mean
	}
	return unit.Microwatts(c.class.Floor())
}

// settle moves the class if level has left it by more than half a step.
func (c *EClass) settle(level unit.Microwatts) {
	at := BucketOf(unit.Rate(level))
	if off := at - c.class; off > -classStep && off < classStep {
		return
	}
	// The grid is centred on the mean, so that the node's class is one of it.
	origin := BucketOf(unit.Rate(c.mean))
	steps := (at - origin + classStep/2) / classStep
	if at < origin {
		steps = -((origin - at + classStep/2) / classStep)
	}
	c.class = max(0, min(origin+steps*classStep, Buckets-1))
}

// decayed is the average, moved towards the mean by the time since it was seen.
func (c *EClass) decayed(now unit.Instant) unit.Microwatts {
	away := time.Duration(max(0, now-c.seen))
	if c.level >= c.mean {
		return c.mean + unit.Microwatts(decay(int64(c.level-c.mean), away, classDecay))
	}
	return c.mean - unit.Microwatts(decay(int64(c.mean-c.level), away, classDecay))
}

// decay is v * exp(-t/tau), within one bucket (1.1 %).
func decay(v int64, t, tau time.Duration) int64 {
	// exp(-t/tau) = 2^(-n/64) with n = 64/ln(2) * t/tau; 64/ln(2) = 92.332.
	n := unit.MulDivSat(int64(t), 92_332, int64(tau)*1000)
	if n > 62*PerOctave {
		return 0
	}
	octaves, part := uint(n)/PerOctave, uint(n)%PerOctave
	// 2^(-part/64) = 2^((64-part)/64) / 2
	hi, lo := bits.Mul64(uint64(v), bucketStart[PerOctave-part])
	shift := 63 + octaves
	if shift >= 64 {
		return int64(hi >> (shift - 64))
	}
	return int64(hi<<(64-shift) | lo>>shift)
}
