package sensor

import (
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// model computes energy from core time; see the package comment.
type model struct {
	about   Description
	busy    monotone // core time, nanoseconds
	elapsed monotone // wall time, nanoseconds
	cores   int64
	credit  int64 // core time that may yet be reported, nanoseconds; at least -cores*tick
	reading physics.Reading
}

func newModel(e estimate, cores int, why *host.Unavailable) *model {
	hint := why.Hint
	if e.source != physics.SourceCalibrated {
		// A measured figure narrows the band whatever else is in the way.
		hint = join(hint, calibrateHint)
	}
	return &model{
		cores: int64(max(cores, 1)),
		about: Description{
			Source: e.source, Modelled: true, Sigma: e.sigma,
			Reference: e.core, Idle: e.idle, Basis: e.basis,
			Why: why.Reason, Hint: hint,
		},
		reading: physics.Reading{Source: e.source, Sigma: e.sigma},
	}
}

const calibrateHint = "narrow it: set node.watts_per_core in the fleet file to what a busy core draws"

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; or " + b
}

// catchUp bounds how much core time a meter that fell silent may report late:
// 10 s of the whole machine. Anything beyond is a jump and a fault.
const catchUp = 10 * time.Second

// tick is how far metered core time may run ahead of the clock: meters update
// at scheduler ticks, at most 10 ms apart (HZ=100), so one read may come just
// before a tick and the next just after.
const tick = 20 * time.Millisecond

// Read computes the energy from both running totals at once, so that rounding
// never accumulates.
func (m *model) Read(now unit.Instant, busy unit.CoreTime) (physics.Reading, error) {
	before := m.elapsed.total
	m.elapsed.advance(int64(now), math.MaxInt64) // the clock has no bound of its own
	// No machine runs more core time than it has cores: credit grows with the
	// clock and is spent by core time.
	earned := unit.MulDivSat(m.cores, m.elapsed.total-before, 1)
	m.credit = min(m.credit+earned, m.cores*int64(catchUp))
	m.credit -= m.busy.advance(int64(busy), m.credit+m.cores*int64(tick))
	dynamic := unit.MulDivSat(int64(m.about.Reference), m.busy.total, int64(time.Second))
	idle := unit.MulDivSat(int64(m.about.Idle), m.elapsed.total, int64(time.Second))
	m.reading.At = now
	m.reading.Energy = unit.Microjoules(dynamic + idle)
	m.reading.Faults = m.busy.faults + m.elapsed.faults
	return m.reading, nil
}

// Describe says what the model is made of.
func (m *model) Describe() Description { return m.about }

// Close has nothing to release.
func (m *model) Close() error { return nil }

// monotone accumulates the increments of a total that should never run
// backwards or jump; when it does, that is a fault and creates nothing.
type monotone struct {
	last, total int64
	faults      uint64
	based       bool
}

// advance takes the next value and returns by how much the total grew: at most
// most, which is not negative.
func (t *monotone) advance(v, most int64) int64 {
	if !t.based {
		t.last, t.based = v, true
		return 0
	}
	step := v - t.last
	t.last = v
	if step < 0 || step > most {
		t.faults++
		step = min(max(step, 0), most)
	}
	t.total += step
	return step
}
