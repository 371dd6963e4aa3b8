package demon

import (
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// queue is the last ranking as one of its orders sees it. It reads the demon's
// scratch, which holds that ranking until the next tick.
type queue struct {
	d      *Demon
	orders []market.Order
	allocs []market.Allocation
	own    int           // index of the order; -1 = not ranked yet
	time   unit.CoreTime // that it wants, whatever its pacing made of that
	energy int64         // the same, in nanojoules
}

// queueOf finds w's order in the last ranking.
func (d *Demon) queueOf(w *workload) *queue {
	s := &d.scratch
	q := &queue{d: d, own: -1}
	if d.epoch > 0 && len(s.allocs) >= len(s.orders) {
		q.orders, q.allocs = s.orders, s.allocs
	}
	for i := range q.orders {
		if q.orders[i].ID == w.id {
			q.own = i
		}
	}
	q.time = unit.CoreTime(unit.MulDiv(int64(w.desire), int64(d.length), int64(unit.One)))
	q.energy = nanojoules(q.time, w.watts)
	return q
}

// standing is the rank of the own order among those that want to run, and how
// many those are.
func (q *queue) standing() (rank, ranked int) {
	if q.own < 0 {
		return 0, q.competitors(-1)
	}
	own := &q.allocs[q.own]
	if own.Class == market.Frozen || q.time == 0 {
		return 0, q.competitors(-1)
	}
	return 1 + q.competitors(own.Score), 1 + q.competitors(-1)
}

// competitors counts the other orders with a score above b that want to run.
func (q *queue) competitors(b market.Bucket) int {
	n := 0
	for i := range q.orders {
		if q.competes(i) && q.allocs[i].Score > b {
			n++
		}
	}
	return n
}

// competes reports whether order i is another's and wants to run.
func (q *queue) competes(i int) bool { return i != q.own && q.effective(i) > 0 }

// effective is what order i stands for: its demand as far as its wallet
// reaches, which is nowhere for one that is insolvent or below its reserve.
func (q *queue) effective(i int) unit.CoreTime { return min(q.orders[i].Demand, q.allocs[i].Cap) }

// above reports whether somebody stands higher than b, beside whether somebody
// else stands in it.
func (q *queue) above(b market.Bucket) bool { return q.competitors(b) > 0 }

func (q *queue) beside(b market.Bucket) bool { return q.competitors(b-1) > q.competitors(b) }

// enough reports whether got is all of wanted, but for the floor and for what
// an epoch may miss.
func (q *queue) enough(got, wanted int64) bool {
	most := unit.One - nearly - min(q.d.cfg.Floor, unit.One-nearly)
	return got >= unit.MulDiv(wanted, int64(most), int64(unit.One))
}

// fits reports whether the own demand is served at score b, if cores are for
// sale: with everybody at b and above, whose order among equals is not known.
func (q *queue) fits(b market.Bucket, cores unit.CoreTime) bool {
	return q.fitsTime(b, cores) && q.fitsEnergy(b)
}

func (q *queue) fitsTime(b market.Bucket, cores unit.CoreTime) bool {
	time := int64(0)
	for i := range q.orders {
		if q.competes(i) && q.allocs[i].Score >= b {
			time = sum(time, int64(q.effective(i)))
		}
	}
	return q.room(time, int64(q.time), int64(cores))
}

func (q *queue) fitsEnergy(b market.Bucket) bool {
	if q.d.cfg.Watts <= 0 {
		return true
	}
	energy := int64(0)
	for i := range q.orders {
		if q.competes(i) && q.allocs[i].Score >= b {
			energy = sum(energy, nanojoules(q.effective(i), q.orders[i].Energy))
		}
	}
	return q.room(energy, q.energy, nanojoules(unit.CoreTime(q.d.length), q.d.cfg.Watts))
}

// room reports whether enough of own fits beside taken in what is for sale above
// the floor.
func (q *queue) room(taken, own, sold int64) bool {
	free := sold - unit.MulDivCeil(sold, int64(q.d.cfg.Floor), int64(unit.One)) - taken
	return own <= free || free >= 0 && q.enough(free, own)
}

// needed is the lowest bid that is served in full: it has to pass somebody, so
// the scores just above the others' are the only ones to try.
func (q *queue) needed() unit.Price {
	if q.own < 0 || !q.fits(market.Buckets, q.d.supply) {
		return 0
	}
	best := market.Bucket(market.Buckets)
	if q.fits(0, q.d.supply) {
		best = 0
	}
	for i := range q.orders {
		if !q.competes(i) {
			continue
		}
		// Buckets 1 to 63 hold no score.
		b := max(q.allocs[i].Score+1, market.PerOctave)
		if b < best && q.fits(b, q.d.supply) {
			best = b
		}
	}
	if best >= market.Buckets {
		return 0
	}
	return q.bidFor(best)
}

// bidFor is the lowest multiple of the base price with which the own order
// stands at b.
func (q *queue) bidFor(b market.Bucket) unit.Price {
	o := q.orders[q.own]
	above := int64(b.Floor())
	if q.d.unitNow == market.Watts { // a score per joule
		above = mulDivUp(above, int64(max(o.Energy, 1)), 1_000_000)
	}
	rate := sum(int64(o.Reserve), above)
	base := int64(q.d.base())
	if base <= 0 {
		return 0
	}
	p := unit.Price(mulDivUp(rate, int64(unit.Times), base))
	// Multiple and Absolute round each in its own way: one step at most.
	if o.Bid = price.Absolute(p, q.d.base()); o.Bid < o.Reserve || q.scoreOf(&o) < b {
		p++
	}
	return p
}

// scoreOf is what the market makes of an order's bid in the running epoch.
func (q *queue) scoreOf(o *market.Order) market.Bucket {
	above := max(0, o.Bid-o.Reserve)
	if q.d.unitNow == market.Watts {
		above = unit.Rate(unit.MulDivSat(int64(above), 1_000_000, int64(max(o.Energy, 1))))
	}
	return market.BucketOf(above)
}

// nanojoules is the energy of t at p.
func nanojoules(t unit.CoreTime, p unit.Microwatts) int64 {
	return unit.MulDivSat(int64(t), int64(p), int64(time.Second)/1000)
}

// sum adds two amounts that are not negative, up to the greatest there is.
func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// mulDivUp is a*b/c rounded up, as far as int64 reaches.
func mulDivUp(a, b, c int64) int64 {
	if unit.MulDivSat(a, b, c) == math.MaxInt64 {
		return math.MaxInt64
	}
	q, rest := unit.MulDivRem(a, b, c)
	return sum(q, min(rest, 1))
}
