package physics

import (
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Constants of the idle baseline.
const (
	// block is the time over which power is averaged before it may become a
	// minimum. Shorter blocks make the envelope follow the sensor's jitter
	// downwards; longer ones find fewer quiet moments.
	block = time.Second

	// bucket and buckets make the window of 10 minutes: idle power that has
	// risen (fans, a warmer room) is believed after that long.
	bucket  = 10 * time.Second
	buckets = 60

	// quiet is the default of Baseline.Quiet. A small machine at rest is below 5 %
	// of one core most seconds; a higher figure makes idle power too high.
	quiet = unit.MilliCores(50)
)

// Baseline is the idle power of the node: the rolling lower envelope of its
// power over the last 10 minutes.
//
// Only blocks in which next to nothing ran are taken for idle power. While
// there are none, the last estimate is kept (at first the prior, which is the
// sensor's own figure), but never above the least power seen in the window,
// idle or not: idle power can't exceed what the whole node burns. It is never
// computed as what utilisation leaves over, because that makes it fall to
// nothing under load. On a modelled source do not observe at all: the model's
// idle power is the prior, and it is exact.
//
// The zero value is ready, with a prior of 0.
type Baseline struct {
	Prior unit.Microwatts // idle power that the sensor declares; 0 = unknown
	Quiet unit.MilliCores // what may run while a block counts as idle; 0 = 5 % of a core

	resting unit.Microwatts // last found
	lowest  unit.Microwatts // least power in the window
	rested  bool            // resting was found
	seen    bool            // lowest was found
	ring    [buckets]envelope

	energy  unit.Microjoules // of the block that is being filled
	elapsed time.Duration
	busy    unit.CoreTime
}

// envelope holds the least powers of one bucket of time.
type envelope struct {
	index   int64 // bucket number since the clock's origin, plus one; 0 = empty
	lowest  unit.Microwatts
	resting unit.Microwatts // lowest of the quiet blocks; noPower if there are none
}

const noPower unit.Microwatts = math.MaxInt64

// NewBaseline is a baseline without a prior.
func NewBaseline() *Baseline { return new(Baseline) }

// Observe takes the node's energy and its busy core time (all cores, everything
// that ran) over the interval that ended at now.
func (b *Baseline) Observe(now unit.Instant, interval time.Duration, energy unit.Microjoules, busy unit.CoreTime) {
	if interval <= 0 || energy < 0 || busy < 0 {
		return // nothing can be learnt from it
	}
	b.energy += energy
	b.elapsed += interval
	b.busy += busy
	if b.elapsed < block {
		return
	}
	power := unit.Microwatts(unit.MulDivSat(int64(b.energy), int64(time.Second), int64(b.elapsed)))
	still := quiet
	if b.Quiet > 0 {
		still = b.Quiet
	}
	resting := b.busy <= still.In(b.elapsed)
	b.energy, b.elapsed, b.busy = 0, 0, 0
	b.record(int64(now)/int64(bucket)+1, power, resting)
}

// Idle is the present estimate.
func (b *Baseline) Idle() unit.Microwatts {
	idle := max(0, b.Prior)
	if b.rested {
		idle = b.resting
	}
	if b.seen {
		idle = min(idle, b.lowest)
	}
	return idle
}

func (b *Baseline) record(index int64, power unit.Microwatts, resting bool) {
	e := &b.ring[uint64(index)%buckets]
	if e.index != index {
		*e = envelope{index: index, lowest: noPower, resting: noPower}
	}
	e.lowest = min(e.lowest, power)
	if resting {
		e.resting = min(e.resting, power)
	}
	lowest, still := noPower, noPower
	for i := range b.ring {
		e := &b.ring[i]
		if e.index != 0 && e.index <= index && e.index > index-buckets {
			lowest, still = min(lowest, e.lowest), min(still, e.resting)
		}
	}
	b.lowest, b.seen = lowest, true
	if still != noPower {
		b.resting, b.rested = still, true
	}
}
