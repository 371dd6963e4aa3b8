package market

import (
	"math"
	"math/bits"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Price says what the epoch that ended was worth: rents[i] is what uses[i] owes
// above its energy, in nanocredits (1e-9 micro-$J). With S units sold above the
// floor, a wallet that used x of them pays the area under the score-depth
// curve of the others' demand over [S-x, S): what those units were worth to
// whoever would have had them. It takes O(n) and allocates nothing.
func (m *Market) Price(e Epoch, uses []Use, rents []unit.Wide) Outcome {
	e.check()
	if len(rents) != len(uses) {
		panicf("market: %d uses, room for %d rents", len(uses), len(rents))
	}
	m.reset()
	s := m.tally(&e, uses)
	m.curve.build(m, s)
	out := Outcome{
		Demand: s.demand, Used: s.used, Misdelivered: m.misdelivered(),
		Spot: e.Base, Marginal: m.curve.marginal(s),
	}
	out.Spot += min(e.perCoreSecond(out.Marginal, s), math.MaxInt64-e.Base)
	clear(rents)
	if s.fits {
		return out
	}
	for i := range uses {
		if u := &uses[i]; u.Used > u.Floor { // most losers: nothing above the floor
			rents[i] = m.rent(&e, u)
		}
	}
	return out
}

// sold sums up an epoch that ended.
type sold struct {
	demand, used unit.CoreTime // all of it
	energy       int64         // nanojoules that the demand would take, by class; 0 when not limited
	amount       int64         // S: what was sold above the floor, in the commodity
	widest       int64         // greatest single demand above the floor, in the commodity
	fits         bool          // everybody could have had everything
}

// part is one use as the market sees it: what it wanted and used above its
// floor, in the commodity of the epoch.
type part struct {
	want, used int64
}

// amount is t of core time in the commodity of the epoch.
func (e *Epoch) amount(t unit.CoreTime, w unit.Microwatts) int64 {
	if e.Unit == Watts {
		return energyOf(t, w)
	}
	return int64(t)
}

// mostDemand of one wallet counts: 13 days on one core, more than any machine
// has in an epoch, and little enough that sums of it stay exact.
const mostDemand = unit.CoreTime(1 << 50)

// times returns what u wanted and used, and how much of that was floor.
func (u *Use) times() (want, used, floor unit.CoreTime) {
	want = max(u.Used, min(u.Demand, mostDemand))
	return want, u.Used, min(u.Used, u.Floor)
}

func (e *Epoch) part(u *Use) part {
	want, used, floor := u.times()
	return part{want: e.amount(want-floor, u.Energy), used: e.amount(used-floor, u.Energy)}
}

// tally fills the book with what was wanted and finds S: the supply, if
// everything wanted fits in it, else what was really delivered of it.
func (m *Market) tally(e *Epoch, uses []Use) sold {
	var s sold
	var floors, used int64 // in the commodity
	limited := e.Watts > 0
	for i := range uses {
		u := &uses[i]
		if int64(u.Used)|int64(u.Demand)|int64(u.Floor)|int64(u.Energy) < 0 || uint(u.Score) >= Buckets || u.Used > mostDemand {
			panicf("market: use by %d: wants %d ns, used %d, floor %d, %d uW, bucket %d",
				u.ID, u.Demand, u.Used, u.Floor, u.Energy, u.Score)
		}
		want, ran, floor := u.times()
		p := part{int64(want - floor), int64(ran - floor)}
		c := &m.cells[u.Score]
		if c.demand == 0 {
			m.book.set(u.Score)
		}
		c.demand = min(c.demand+want-floor, huge)
		c.used += ran - floor
		s.demand = min(s.demand+want, huge)
		s.used += ran
		if limited {
			s.energy = min(s.energy+energyOf(want, u.Energy), huge)
		}
		if e.Unit == Watts {
			p = e.part(u)
			floors += energyOf(floor, u.Energy)
		} else {
			floors += int64(floor)
		}
		used += p.used
		s.widest = max(s.widest, p.want)
		c.amount = min(c.amount+p.want, huge)
	}
	s.fits = s.demand <= e.Cores && (!limited || s.energy <= e.allowance())
	supply := int64(e.Cores)
	if e.Unit == Watts {
		supply = e.allowance()
	}
	s.amount = max(0, supply-floors)
	if !s.fits {
		s.amount = min(s.amount, used)
	}
	return s
}

// misdelivered is the time that went to lower scores while higher ones still
// wanted some: what was used in excess of filling the same total from the top.
func (m *Market) misdelivered() unit.CoreTime {
	left, wrong := unit.CoreTime(0), unit.CoreTime(0)
	for b := m.book.atOrBelow(Buckets - 1); b >= 0; b = m.book.atOrBelow(b - 1) {
		left += m.cells[b].used
	}
	for b := m.book.atOrBelow(Buckets - 1); b >= 0; b = m.book.atOrBelow(b - 1) {
		c := &m.cells[b]
		due := min(c.demand, left)
		left -= due
		wrong += max(0, c.used-due)
	}
	return wrong
}

// perCoreSecond turns a score into a rate. A score per joule becomes the rate
// of a core-second of the demand's mean watts.
func (e *Epoch) perCoreSecond(b Bucket, s sold) unit.Rate {
	if e.Unit != Watts || s.demand == 0 {
		return b.Floor()
	}
	mean := unit.MulDivSat(s.energy, 1_000_000, int64(s.demand))
	return unit.Rate(unit.MulDivSat(int64(b.Floor()), mean, 1_000_000))
}

// rent is the area under the others' curve over the units u used, at most its
// own score over them: nobody pays more than it bid.
func (m *Market) rent(e *Epoch, u *Use) unit.Wide {
	p := e.part(u)
	if p.used == 0 {
		return unit.Wide{}
	}
	c := &m.curve
	own := int(c.rank[u.Score])
	var area wide
	if p.used == p.want && c.sold-p.used > c.start[own] {
		// Who used all it wanted pays for what comes next: its own demand, taken
		// out before both ends, cancels out.
		area = c.upTo(c.sold + p.want).minus(c.whole)
	} else {
		area = c.areaWithout(own, p.want, c.sold).minus(c.areaWithout(own, p.want, max(0, c.sold-p.used)))
	}
	most := product(c.score[own], uint64(p.used))
	if most.less(area) {
		area = most
	}
	return unit.Wide{Hi: area.hi, Lo: area.lo}
}

// curve is the score-depth curve of an epoch, best score first, with its area.
type curve struct {
	sold  int64 // S
	n     int
	bin   [Buckets + 1]Bucket
	score [Buckets + 1]uint64 // its floor
	start [Buckets + 1]int64  // where the bucket's demand begins
	area  [Buckets + 1]wide   // under the curve up to there
	rank  [Buckets]int32      // of a bucket that is in use
	whole wide                // area up to S

	// index finds a bucket by position: cell c begins in bucket index[c].
	first int64
	shift uint
	index [indexCells + 1]int32
}

// indexCells cuts the part of the curve that can be asked for. With as many
// cells as buckets usually matter, a look-up takes a step or two.
const indexCells = 1024

// build reads the curve off the book. Behind the last bucket it goes on at
// score 0 for ever.
func (c *curve) build(m *Market, s sold) {
	c.sold, c.n = s.amount, 0
	at, area := int64(0), wide{}
	for b := m.book.atOrBelow(Buckets - 1); b >= 0; b = m.book.atOrBelow(b - 1) {
		amount := m.cells[b].amount
		c.rank[b] = int32(c.n)
		score := uint64(b.Floor())
		c.bin[c.n], c.score[c.n], c.start[c.n], c.area[c.n] = b, score, at, area
		at = min(at+amount, 2*huge)
		area = area.plus(product(score, uint64(amount)))
		c.n++
	}
	c.bin[c.n], c.score[c.n], c.start[c.n], c.area[c.n] = 0, 0, at, area
	c.buildIndex(s)
	c.whole = c.upTo(c.sold)
}

// buildIndex covers the positions from the first to the last that a rent can
// ask for: S less or plus the widest demand.
func (c *curve) buildIndex(s sold) {
	c.first = max(0, c.sold-s.widest)
	span := uint64(c.sold+s.widest-c.first) + 1
	c.shift = uint(max(0, bits.Len64(span)-bits.Len64(indexCells-1)))
	k := int32(0)
	for i := range c.index {
		at := uint64(c.first) + uint64(i)<<c.shift
		for int(k) < c.n && uint64(c.start[k+1]) <= at {
			k++
		}
		c.index[i] = k
	}
}

// at returns the bucket in which position p lies; c.n behind the last.
func (c *curve) at(p int64) int {
	cell := uint64(p-c.first) >> c.shift
	if p < c.first || cell >= indexCells {
		panicf("market: position %d is not indexed from %d by 2^%d", p, c.first, c.shift)
	}
	low, high := int(c.index[cell]), int(c.index[cell+1])
	for low < high {
		mid := (low + high + 1) / 2
		if c.start[mid] <= p {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

// upTo is the area under the whole curve up to position p.
func (c *curve) upTo(p int64) wide {
	k := c.at(p)
	return c.area[k].plus(product(c.score[k], uint64(p-c.start[k])))
}

// areaWithout is the area up to position p when a demand of want in the k-th
// bucket is taken out.
func (c *curve) areaWithout(k int, want, p int64) wide {
	if p <= c.start[k] {
		want = 0
	}
	return c.upTo(p + want).minus(product(c.score[k], uint64(want)))
}

// marginal is the best score that was not served.
func (c *curve) marginal(s sold) Bucket {
	if s.fits {
		return 0
	}
	return c.bin[c.at(c.sold)]
}

// wide is a 128-bit number whose arithmetic inlines. Areas stay below 2^127:
// a score below 2^63 over fewer than 2^63 units, of which S is sold.
type wide struct{ hi, lo uint64 }

func product(a, b uint64) wide {
	hi, lo := bits.Mul64(a, b)
	return wide{hi, lo}
}

func (w wide) plus(v wide) wide {
	lo, c := bits.Add64(w.lo, v.lo, 0)
	hi, _ := bits.Add64(w.hi, v.hi, c)
	return wide{hi, lo}
}

func (w wide) minus(v wide) wide {
	lo, b := bits.Sub64(w.lo, v.lo, 0)
	hi, _ := bits.Sub64(w.hi, v.hi, b)
	return wide{hi, lo}
}

func (w wide) less(v wide) bool {
	return w.hi < v.hi || w.hi == v.hi && w.lo < v.lo
}
