package market

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// member is one order of the marginal bucket.
type member struct {
	id    uint64
	index int32
	want  int64 // granules
	watts unit.Microwatts
	share int64 // granules
}

// Rank orders the coming epoch: who is served in full, who shares the margin,
// who has lost. out[i] belongs to orders[i]. It takes O(n), sorts only the
// marginal bucket (and nothing, where orders come in order of their ids), and
// allocates nothing once its scratch has grown.
func (m *Market) Rank(e Epoch, orders []Order, out []Allocation) {
	e.check()
	if len(out) != len(orders) {
		panicf("market: %d orders, room for %d allocations", len(orders), len(out))
	}
	m.reset()
	deposits := uint64(0)
	r := supply{time: e.Cores, energy: e.allowance()}
	sorted, last := true, uint64(0)
	m.marks = m.marks[:0]
	for i := range orders {
		o, a := &orders[i], &out[i]
		if i%stride == 0 {
			m.marks = append(m.marks, deposits)
		}
		sorted = sorted && o.ID >= last
		last = o.ID
		e.admit(o, a)
		if a.Time > 0 {
			deposits += uint64(o.Deposit)
			m.stand(a.Score, a.Time, r.energyOf(a.Time, o.Energy))
		}
	}
	m.grantFloor(&e, orders, out, deposits, sorted, &r)
	margin := m.serve(&r)
	m.assign(orders, out, margin)
	if margin >= 0 {
		m.shareMargin(&e, out, margin, r)
	}
}

// admit decides what can be decided about o alone. Time is its demand as far
// as its wallet reaches.
func (e *Epoch) admit(o *Order, a *Allocation) {
	if int64(o.Demand)|int64(o.Reserve)|int64(o.Energy)|int64(o.Deposit) < 0 { // any of them
		panicf("market: order %d wants %d ns at a reserve of %d, %d uW, deposit %d",
			o.ID, o.Demand, o.Reserve, o.Energy, o.Deposit)
	}
	*a = Allocation{}
	switch {
	case !o.Solvent:
		a.Class, a.Refusal = Frozen, Insolvent
		return
	case o.Bid < o.Reserve:
		a.Class, a.Refusal = Frozen, BelowReserve
		return
	}
	above := o.Bid - o.Reserve
	if e.Unit == Watts {
		above = perJoule(above, o.Energy)
	}
	a.Score = BucketOf(above)
	a.Cap = o.affords(e.backing(o), max(o.Demand, e.Cores))
	switch {
	case o.Demand == 0:
		a.Refusal = NoDemand
	case o.Demand > a.Cap:
		a.Time, a.Refusal = a.Cap, WalletBinds
	default:
		a.Time = o.Demand
	}
}

// backing is the price at which a wallet has to cover its demand: its bid, but
// never more than twice the last spot (so that a high bid does not shrink what
// it can buy), and never less than its own reserve.
func (e *Epoch) backing(o *Order) unit.Rate {
	return max(o.Reserve, min(o.Bid, 2*min(e.Spot, huge)))
}

// affords returns the core time that o's balance buys at p, or NoCap if that is
// at least most.
func (o *Order) affords(p unit.Rate, most unit.CoreTime) unit.CoreTime {
	balance := uint64(max(o.Balance, 0))
	needHi, needLo := bits.Mul64(uint64(p), uint64(most))
	haveHi, haveLo := bits.Mul64(balance, uint64(unit.CoreSecond))
	if needHi < haveHi || needHi == haveHi && needLo <= haveLo {
		return NoCap
	}
	q, _ := bits.Div64(haveHi, haveLo, uint64(p))
	return unit.CoreTime(q)
}

// supply is what is left to sell.
type supply struct {
	time   unit.CoreTime
	energy int64 // nanojoules; huge when not limited
}

// energyOf is what t takes out of the allowance; nothing, where there is none.
func (s *supply) energyOf(t unit.CoreTime, e unit.Microwatts) int64 {
	if s.energy == huge {
		return 0
	}
	return energyOf(t, e)
}

// stand puts demand into the book.
func (m *Market) stand(b Bucket, t unit.CoreTime, energy int64) {
	c := &m.cells[b]
	if c.demand == 0 {
		m.book.set(b)
	}
	c.demand = min(c.demand+min(t, huge), huge)
	c.amount = min(c.amount+energy, huge)
}

// serve takes supply off from the best score down and returns the first bucket
// that cannot be served in full, or -1. What is left for it stays in r.
func (m *Market) serve(r *supply) Bucket {
	b := m.book.atOrBelow(Buckets - 1)
	for ; b >= 0; b = m.book.atOrBelow(b - 1) {
		c := &m.cells[b]
		if c.demand > r.time || c.amount > r.energy {
			return b
		}
		r.time -= c.demand
		if r.energy != huge {
			r.energy -= c.amount
		}
	}
	return -1
}

// assign gives every order its class, and everybody above the margin its whole
// demand.
func (m *Market) assign(orders []Order, out []Allocation, margin Bucket) {
	m.tied = m.tied[:0]
	for i := range out {
		a := &out[i]
		if a.Class != Idle || a.Refusal == NoDemand {
			continue
		}
		switch {
		case a.Score > margin:
			a.Class = Served
		case a.Score == margin:
			o := &orders[i]
			want := int64((a.Time - a.floorTime()) / m.granule)
			a.Class, a.Time = Margin, a.floorTime()
			m.tied = append(m.tied, member{id: o.ID, index: int32(i), want: want, watts: o.Energy})
		default:
			a.Class, a.Time, a.Refusal = Loser, a.floorTime(), Outbid
			a.Tier = uint8(min(Tiers-1, uint(margin-a.Score)/PerOctave))
		}
	}
}

// shareMargin divides what is left pro rata of demand in the marginal bucket.
func (m *Market) shareMargin(e *Epoch, out []Allocation, margin Bucket, r supply) {
	byID := func(a, b member) int { return cmp.Compare(a.id, b.id) }
	if !slices.IsSortedFunc(m.tied, byID) {
		slices.SortFunc(m.tied, byID)
	}
	want := int64(0)
	for i := range m.tied {
		want += m.tied[i].want
	}
	left := min(want, int64(r.time/m.granule))
	if c := &m.cells[margin]; c.amount > r.energy {
		left = min(left, unit.MulDiv(want, r.energy, c.amount))
	}
	for m.ration(left, want, e.Offset); ; m.ration(left, want, e.Offset) {
		// Rounding up a hot member and down a cool one can pass the allowance
		// by a few granules' energy: then a little less is sold.
		over := m.energyOfShares(&r) - r.energy
		if over <= 0 {
			break
		}
		left -= min(left, 1+unit.MulDiv(over, want, m.cells[margin].amount))
	}
	for i := range m.tied {
		t := &m.tied[i]
		a := &out[t.index]
		a.Time += unit.CoreTime(t.share) * m.granule
		a.Refusal = Rationed
		if left == 0 {
			a.Class, a.Refusal = Loser, Outbid
		}
	}
}

func (m *Market) energyOfShares(r *supply) int64 {
	sum := int64(0)
	for i := range m.tied {
		t := &m.tied[i]
		sum += r.energyOf(unit.CoreTime(t.share)*m.granule, t.watts)
	}
	return sum
}

// ration divides left granules over want granules of demand by systematic
// rounding: with cumulative demand C and one offset u, uniform in [0, want),
// member k gets floor((C_k*left+u)/want) - floor((C_(k-1)*left+u)/want). That
// is its exact share rounded down or up, additive in its demand, so that many
// names get in expectation what one name gets.
func (m *Market) ration(left, want int64, offset uint64) {
	if want == 0 {
		return
	}
	carried, _ := bits.Mul64(offset, uint64(want))
	for i := range m.tied {
		t := &m.tied[i]
		hi, lo := bits.Mul64(uint64(t.want), uint64(left))
		lo, c := bits.Add64(lo, carried, 0)
		q, rest := bits.Div64(hi+c, lo, uint64(want))
		t.share, carried = int64(q), rest
	}
}
