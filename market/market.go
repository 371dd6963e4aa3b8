package market

import (
	"math"
	"math/bits"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// DefaultGranule is the step in which the marginal bucket is shared. A larger
// one makes equal bids differ by more (P7); a smaller one is below what any
// clock of the kernel delivers.
const DefaultGranule = unit.CoreTime(1000)

// Config of a Market. The zero value is useful.
type Config struct {
	Granule unit.CoreTime // of the marginal bucket; 0 = DefaultGranule
}

// cell is what an epoch knows about one bucket.
type cell struct {
	demand unit.CoreTime // for sale above the floor, in core time
	amount int64         // the same in the commodity of the epoch (Price) or in energy (Rank)
	used   unit.CoreTime
}

// Market ranks before an epoch and prices after it. It keeps the rotation of
// the floor and its scratch between calls, and is not safe for concurrent use.
type Market struct {
	granule unit.CoreTime
	floor   rotation

	book  bitmap
	cells [Buckets]cell
	tied  []member // the marginal bucket in canonical order
	turn  []int32  // orders by id, where they do not come so
	marks []uint64 // deposits of those before every stride-th order
	curve curve
}

// New returns an empty market.
func New(cfg Config) *Market {
	if cfg.Granule < 0 {
		panicf("market: granule of %d ns", cfg.Granule)
	}
	if cfg.Granule == 0 {
		cfg.Granule = DefaultGranule
	}
	return &Market{granule: cfg.Granule}
}

// reset empties the cells that the last call filled.
func (m *Market) reset() {
	for b := m.book.atOrBelow(Buckets - 1); b >= 0; b = m.book.atOrBelow(b - 1) {
		m.cells[b] = cell{}
	}
	m.book = bitmap{}
}

// huge is where depths stop growing: more demand than any supply, and little
// enough that no sum of two of them leaves int64.
const huge = math.MaxInt64 / 4

// energyOf is the energy that t of core time takes at e, in nanojoules,
// rounded down. Nanojoules, because then energy times a score per joule is in
// nanocredits, as core time times a rate is.
func energyOf(t unit.CoreTime, e unit.Microwatts) int64 {
	hi, lo := bits.Mul64(uint64(t), uint64(e))
	if hi == 0 {
		return int64(lo / 1_000_000)
	}
	if hi >= 1_000_000 {
		return huge
	}
	q, _ := bits.Div64(hi, lo, 1_000_000)
	return int64(min(q, huge))
}

// allowance is the energy that an epoch may sell, in nanojoules; huge when it
// is not limited.
func (e *Epoch) allowance() int64 {
	if e.Watts <= 0 {
		return huge
	}
	return energyOf(unit.CoreTime(e.Length), e.Watts)
}

// perJoule turns what a bid is worth above its reserve, per core-second, into what it
// is worth per joule (micro-$J per J), so that of two equal bids the cooler wins.
func perJoule(above unit.Rate, e unit.Microwatts) unit.Rate {
	return unit.Rate(unit.MulDivSat(int64(above), 1_000_000, int64(max(e, 1))))
}

// check refuses what no caller may ask.
func (e *Epoch) check() {
	if e.Length < 0 || e.Cores < 0 || e.Watts < 0 || e.Floor < 0 || e.Floor > unit.One || e.Spot < 0 || e.Base < 0 {
		panicf("market: epoch of %v, %d ns, %d uW, floor %d ppm, spot %d, base %d",
			e.Length, e.Cores, e.Watts, e.Floor, e.Spot, e.Base)
	}
	if e.Unit == Watts && e.Watts == 0 {
		panicf("market: watts are sold but not limited")
	}
}
