package market

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The floor comes in slices of at least 1 ms: a shorter one is spent on
// switching to it. At most 64 of them an epoch: beyond that (64 cores) slices
// grow instead, so that granting them stays a small sort.
const (
	minSlice  = unit.CoreTime(time.Millisecond)
	maxSlices = 64
)

// stride: the deposits of those before every sixteenth order are noted, so that the
// floor's 64 turns are found without a walk past everybody.
const stride = 16

// golden is 2^64 divided by the golden ratio. Steps of it around a circle hit
// every arc in proportion to its length, and never leave an arc of share s
// alone for much longer than 1/s steps (three-distance theorem).
const golden = 0x9e3779b97f4a7c15

// rotation is whose turn it is on the floor. The wallets stand around a circle,
// each with an arc as long as its deposit; the phase steps around it, one step
// a slice. Splitting a deposit splits the arc and changes nothing.
type rotation struct {
	started bool
	phase   uint64        // position, as a fraction of the circle
	saved   unit.CoreTime // floor not yet sold because it was shorter than a slice
	turns   [maxSlices]uint64
}

// grantFloor takes the floor out of r before anything else is sold and gives
// it to wallets that want time, pro rata of their deposits. What a wallet is
// entitled to does not depend on its bid, except that it is at or above the
// reserve. It counts against the wallet's own demand; what its demand or its
// balance cannot take stays in the market.
func (m *Market) grantFloor(e *Epoch, orders []Order, out []Allocation, deposits uint64, sorted bool, r *supply) {
	f := &m.floor
	if !f.started {
		f.started, f.phase = true, e.Offset*golden
	}
	if deposits == 0 || e.Floor == 0 {
		f.saved = 0
		return
	}
	mean := unit.Microwatts(0)
	if e.Watts > 0 {
		mean = meanEnergy(orders, out, deposits)
	}
	size, n := f.slices(e, mean)
	turns := f.turns[:n]
	for i := range turns {
		turns[i], _ = bits.Mul64(f.phase, deposits)
		f.phase += golden
	}
	slices.Sort(turns)
	if n > 0 {
		m.lineUp(orders, sorted)
	}
	passed, next := uint64(0), 0
	for k := 0; next < n; k++ {
		i := k
		switch {
		case len(m.turn) > 0:
			i = int(m.turn[k])
		case k%stride == 0: // pass over those whom no turn hits
			for k/stride+1 < len(m.marks) && m.marks[k/stride+1] <= turns[next] {
				k += stride
			}
			i, passed = k, m.marks[k/stride]
		}
		if out[i].Time == 0 {
			continue
		}
		passed += uint64(orders[i].Deposit)
		won := unit.CoreTime(0)
		for ; next < n && turns[next] < passed; next++ {
			won += size
		}
		if won > 0 {
			m.grant(&orders[i], &out[i], won, r)
		}
	}
}

// slices returns the size and number of the slices of this epoch. Supply is
// what the cores give or the watts allow at mean energy, whichever is less.
func (f *rotation) slices(e *Epoch, mean unit.Microwatts) (size unit.CoreTime, n int) {
	sold := int64(e.Cores)
	if e.Watts > 0 && mean > 0 {
		sold = min(sold, unit.MulDivSat(e.allowance(), 1_000_000, int64(mean)))
	}
	f.saved += unit.CoreTime(unit.MulDiv(sold, int64(e.Floor), int64(unit.One)))
	f.saved = min(f.saved, e.Cores)
	n = int(min(f.saved/minSlice, maxSlices))
	if n == 0 {
		return 0, 0
	}
	size = f.saved / unit.CoreTime(n)
	f.saved -= size * unit.CoreTime(n)
	return size, n
}

// grant entitles o to won of floor. The forecast does not cut it, or declaring
// more demand than one has would buy floor; what is not wanted in the end goes
// to the next in line. Its energy is set aside in full.
func (m *Market) grant(o *Order, a *Allocation, won unit.CoreTime, r *supply) {
	won = min(won, o.affords(o.Reserve, won))
	energy := r.energyOf(won, o.Energy)
	if energy > r.energy {
		return
	}
	if r.energy != huge {
		r.energy -= energy
	}
	now := min(won, o.Demand)
	r.time -= now
	// What stands in the book for o is from now on what it wants above the floor.
	c, rest := &m.cells[a.Score], max(a.Time-now, 0)
	c.demand -= a.Time - rest
	c.amount -= r.energyOf(a.Time, o.Energy) - r.energyOf(rest, o.Energy)
	a.Floor, a.Time = won, max(a.Time, now)
}

// meanEnergy is the mean e-class of those the floor is for, by deposit.
func meanEnergy(orders []Order, out []Allocation, deposits uint64) unit.Microwatts {
	var hi, lo uint64
	for i := range orders {
		if out[i].Time > 0 {
			h, l := bits.Mul64(uint64(orders[i].Deposit), uint64(orders[i].Energy))
			var c uint64
			lo, c = bits.Add64(lo, l, 0)
			hi += h + c
		}
	}
	if hi >= deposits {
		return 0
	}
	q, _ := bits.Div64(hi, lo, deposits)
	return unit.Microwatts(q)
}

// lineUp puts the order by id into turn, or leaves it empty if orders come so.
func (m *Market) lineUp(orders []Order, sorted bool) {
	m.turn = m.turn[:0]
	if sorted {
		return
	}
	for i := range orders {
		m.turn = append(m.turn, int32(i))
	}
	slices.SortFunc(m.turn, func(a, b int32) int { return cmp.Compare(orders[a].ID, orders[b].ID) })
}
