package market

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The properties P1 to P12 of the design, on the whole mechanism: floor, ties,
// caps and leftovers included. Delivery is ideal; what leakage costs is in
// TestLeakageBoundsLies.

// TestP1Feasible: nothing is sold twice, to nobody more than it wants or can
// pay, and no watt above the allowance; whatever the inputs.
func TestP1Feasible(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := New(Config{})
		for range rapid.IntRange(1, 3).Draw(t, "epochs") {
			e, orders := drawEpoch(t), drawOrders(t)
			out := make([]Allocation, len(orders))
			m.Rank(e, orders, out)
			var sum, floors unit.CoreTime
			var energy int64
			for i, a := range out {
				o := orders[i]
				sum += a.Time
				floors += a.floorTime()
				if e.Watts > 0 {
					energy += energyOf(a.Time, o.Energy)
				}
				if a.Floor < 0 || a.Time > o.Demand || a.Time-a.floorTime() > a.Cap {
					t.Fatalf("order %+v gets %+v", o, a)
				}
				cost := sumOf(mul(o.Reserve, a.floorTime()), mul(max(o.Reserve, min(o.Bid, 2*e.Spot)), a.Time-a.floorTime()))
				have := new(big.Int).Mul(big64(int64(max(0, o.Balance))), big64(1e9))
				if cost.Cmp(have) > 0 {
					t.Fatalf("%v nanocredits are needed to back %+v, the wallet has %v", cost, a, have)
				}
			}
			// A cut at the reserve and one at the backing price may meet in the
			// same wallet; each order's energy is rounded down, so n of them
			// take up to n nJ more.
			if sum > e.Cores || e.Watts > 0 && energy > e.allowance() {
				t.Fatalf("sold %d of %d ns, %d of %d nJ", sum, e.Cores, energy, e.allowance())
			}
			if most := e.Cores*unit.CoreTime(e.Floor)/1_000_000 + ms; floors > most {
				t.Fatalf("floor of %d ns, more than %d", floors, most)
			}
		}
	})
}

// TestP2P3Bounds: energy is paid in full, rent never exceeds what the score
// offered, and so nobody pays above its bid unless it burns above its class.
func TestP2P3Bounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e, players := drawMarket(t, false)
		m := New(Config{})
		p := rankOnly(m, e, players)
		used := make([]unit.CoreTime, len(players))
		for i := range players { // any delivery at all
			used[i] = unit.CoreTime(rapid.Int64Range(0, int64(players[i].wants)).Draw(t, "used"))
		}
		p = p.settle(m, e, players, used)
		for i, pl := range players {
			rent, _ := new(big.Int).SetString(p.rents[i].String(), 10)
			most := mul(max(0, pl.Bid-pl.Reserve), used[i]-min(used[i], p.allocs[i].Floor))
			if p.allocs[i].Class == Frozen {
				most = new(big.Int)
			}
			if rent.Sign() < 0 || rent.Cmp(most) > 0 {
				t.Fatalf("player %d owes a rent of %v, its bid allows %v", i, rent, most)
			}
		}
	})
}

// deviations are the bids worth trying against others: just at, above and
// below every score in the market, the reserve, nothing and everything.
func deviations(e Epoch, players []player, i int) []unit.Rate {
	self := players[i].Order
	bids := []unit.Rate{0, self.Reserve, self.Reserve + 1, 1000 * base, self.Bid - self.Bid/50, self.Bid + self.Bid/50}
	for _, o := range players {
		above := max(0, o.Bid-o.Reserve)
		if e.Unit == Watts {
			above = unit.Rate(unit.MulDiv(int64(above), int64(self.Energy), int64(o.Energy)))
		}
		width := above/64 + 1
		bids = append(bids, self.Reserve+above, self.Reserve+above+width, self.Reserve+max(0, above-width))
	}
	return bids
}

// lieGain plays the market once honestly and once with player i lying.
func lieGain(m *Market, e Epoch, players []player, i int, lie func(*player)) *big.Int {
	before := play(m.anew(), e, players).utility(i, players[i])
	lying := slices.Clone(players)
	lie(&lying[i])
	after := play(m.anew(), e, lying).utility(i, players[i])
	return after.Sub(after, before)
}

// slack is what rounding to whole nanoseconds can be worth: one of them for
// every player, at the highest value around.
func slack(players []player) *big.Int {
	most := unit.Rate(0)
	for _, p := range players {
		most = max(most, p.value)
	}
	return mul(most, unit.CoreTime(2*len(players)))
}

// TestP4NoProfitableLie searches bids and quantities. On values that lie on
// bucket floors no lie pays; on raw ones it gains less than a bucket's width.
func TestP4NoProfitableLie(t *testing.T) {
	t.Parallel()
	for _, exact := range []bool{true, false} {
		name := "raw values"
		if exact {
			name = "bucket values"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := New(Config{})
			rapid.Check(t, func(t *rapid.T) {
				e, players := drawMarket(t, exact)
				i := rapid.IntRange(0, len(players)-1).Draw(t, "liar")
				allowed := slack(players)
				if !exact {
					allowed.Add(allowed, mul((players[i].value-players[i].Reserve)*11/1000, players[i].wants))
				}
				for range 12 {
					bid := rapid.SampledFrom(deviations(e, players, i)).Draw(t, "bid")
					scale := unit.CoreTime(rapid.SampledFrom([]int{100, 100, 50, 0, 150, 400}).Draw(t, "percent of demand"))
					gain := lieGain(m, e, players, i, func(p *player) {
						p.Bid = bid
						p.wants = p.wants * scale / 100
						p.Demand = p.Demand * scale / 100
					})
					if gain.Cmp(allowed) > 0 {
						t.Fatalf("player %d gains %v (allowed %v) by bidding %d for %d %% of its demand\nepoch %+v\nplayers %+v",
							i, gain, allowed, bid, scale, e, players)
					}
				}
			})
		})
	}
}

// split replaces player i by names that share its demand and its deposit.
// parts are weights; bids are the names' own.
func split(players []player, i int, parts []int64, bids []unit.Rate) (all []player, names []int) {
	whole := players[i]
	total := times(parts...)
	if total == 0 {
		parts[0], total = 1, times(parts...)+1
	}
	all = slices.Delete(slices.Clone(players), i, i+1)
	for k, part := range parts {
		name := whole
		name.ID = uint64(1000 + k)
		if k%2 == 0 {
			name.ID = uint64(k)
		}
		name.Bid = bids[k]
		share := func(v int64) int64 { return unit.MulDiv(v, part, total) }
		name.wants = unit.CoreTime(share(int64(whole.wants)))
		name.Demand = unit.CoreTime(share(int64(whole.Demand)))
		name.Deposit = unit.Credits(share(int64(whole.Deposit)))
		names = append(names, len(all))
		all = append(all, name)
	}
	return all, names
}

// evenFloor replaces the slices of the floor by what they come to on average:
// each deposit's exact share. It lets P5 be checked without chance.
func evenFloor(e Epoch, players []player) (Epoch, []unit.CoreTime) {
	var deposits int64
	for _, p := range players {
		if p.Bid >= p.Reserve && p.Demand > 0 {
			deposits += int64(p.Deposit)
		}
	}
	floors := make([]unit.CoreTime, len(players))
	for i, p := range players {
		if deposits > 0 && p.Bid >= p.Reserve && p.Demand > 0 {
			supply := int64(e.Cores)
			if e.Watts > 0 { // as if everybody were as hot as the hottest
				supply = e.allowance() / 6
			}
			f := unit.MulDiv(supply/50, int64(p.Deposit), deposits)
			floors[i] = unit.CoreTime(f)
		}
	}
	e.Floor = 0
	return e, floors
}

func playEven(m *Market, e Epoch, players []player) played {
	e, floors := evenFloor(e, players)
	p := rankOnly(m, e, players)
	for i := range p.allocs {
		p.allocs[i].Floor = floors[i]
	}
	return p.settle(m, e, players, ideal(e, players, p.allocs))
}

// TestP5NoProfitableFalseNames splits one player into up to 12 names with any
// bids, placed before and behind everybody in the canonical order.
func TestP5NoProfitableFalseNames(t *testing.T) {
	t.Parallel()
	m := New(Config{})
	rapid.Check(t, func(t *rapid.T) {
		e, players := drawMarket(t, true)
		i := rapid.IntRange(0, len(players)-1).Draw(t, "splitter")
		n := rapid.IntRange(2, 12).Draw(t, "names")
		parts := rapid.SliceOfN(rapid.Int64Range(0, 5), n, n).Draw(t, "parts")
		bids := rapid.SliceOfN(rapid.SampledFrom(append(deviations(e, players, i), players[i].Bid)), n, n).Draw(t, "bids")
		truth := players[i]
		before := playEven(m, e, players).utility(i, truth)
		all, names := split(players, i, parts, bids)
		p := playEven(m, e, all)
		after := new(big.Int)
		for _, k := range names {
			after.Add(after, p.utility(k, all[k]))
		}
		gain := after.Sub(after, before)
		allowed := slack(all)
		allowed.Mul(allowed, big.NewInt(2)) // demands and deposits are split into whole units too
		if gain.Cmp(allowed) > 0 {
			t.Fatalf("player %d gains %v (allowed %v) as %d names with bids %v\nepoch %+v\nplayers %+v",
				i, gain, allowed, n, bids, e, players)
		}
	})
}

// TestP6MonotoneInTheBid: raising a bid never costs allocation, as long as the
// wallet does not bind. Systematic rounding in another bucket can cost one
// granule; where watts cut core sales, one for every member of the margin.
func TestP6MonotoneInTheBid(t *testing.T) {
	t.Parallel()
	m := New(Config{})
	rapid.Check(t, func(t *rapid.T) {
		e, orders := drawEpoch(t), drawOrders(t)
		if len(orders) == 0 {
			return
		}
		i := rapid.IntRange(0, len(orders)-1).Draw(t, "raiser")
		orders[i].Balance = rich
		allowed := DefaultGranule
		if e.Watts > 0 {
			allowed *= unit.CoreTime(len(orders) + 1)
		}
		out := make([]Allocation, len(orders))
		last := unit.CoreTime(0)
		for range 6 {
			m.anew().Rank(e, orders, out)
			if out[i].Time < last-allowed {
				t.Fatalf("order %d gets %d ns at a bid of %d, and got %d below it", i, out[i].Time, orders[i].Bid, last)
			}
			last = max(last, out[i].Time)
			orders[i].Bid += unit.Rate(rapid.Int64Range(0, 20_000_000).Draw(t, "raise"))
		}
	})
}

// TestP7EqualBidsEqualShares: within one granule above the floor, and within
// one slice of the floor in any epoch.
func TestP7EqualBidsEqualShares(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e, orders := drawEpoch(t), drawOrders(t)
		if len(orders) < 2 {
			return
		}
		e.Floor = unit.PPM(rapid.SampledFrom([]int64{0, 20_000}).Draw(t, "floor"))
		i, j := 0, rapid.IntRange(1, len(orders)-1).Draw(t, "twin")
		id := orders[j].ID
		orders[j] = orders[i]
		orders[j].ID = id
		out := make([]Allocation, len(orders))
		New(Config{}).Rank(e, orders, out)
		a, b := out[i], out[j]
		allowed := DefaultGranule
		if a.Floor != b.Floor {
			allowed += max(a.Floor, b.Floor)
		}
		if diff := max(a.Time-b.Time, b.Time-a.Time); diff > allowed || a.Score != b.Score {
			t.Fatalf("twins get %+v and %+v", a, b)
		}
	})
}

// TestP8OrderIndependence: the order of submission changes nothing.
func TestP8OrderIndependence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e, players := drawMarket(t, false)
		rng := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "shuffle")))
		m, n := New(Config{}), New(Config{})
		for range 3 {
			p := play(m, e, players)
			shuffled := slices.Clone(players)
			rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			q := rankOnly(n, e, shuffled)
			used := make([]unit.CoreTime, len(players))
			for k, pl := range shuffled { // as delivered in the first world
				i := slices.IndexFunc(players, func(p player) bool { return p.ID == pl.ID })
				if q.allocs[k] != p.allocs[i] {
					t.Fatalf("order %d gets %+v, and in another order of submission %+v", pl.ID, p.allocs[i], q.allocs[k])
				}
				used[k] = p.uses[i].Used
			}
			q = q.settle(n, e, shuffled, used)
			for k, pl := range shuffled {
				i := slices.IndexFunc(players, func(p player) bool { return p.ID == pl.ID })
				if q.rents[k] != p.rents[i] {
					t.Fatalf("order %d owes %v, and in another order of submission %v", pl.ID, p.rents[i], q.rents[k])
				}
			}
			if diff := cmp.Diff(p.out, q.out); diff != "" {
				t.Fatalf("outcomes differ:\n%s", diff)
			}
			e.Offset += 0x1234567812345678
		}
	})
}

// TestP9NoOverdraft: a wallet pays for an epoch at most what it had, plus, if
// the price it pays has risen above what it had to back (twice the last spot),
// the difference for what it used above its floor. The difference is rent, and
// never more than the bid allows: who pays it is settled in the demon.
func TestP9NoOverdraft(t *testing.T) {
	t.Parallel()
	m := New(Config{})
	rapid.Check(t, func(t *rapid.T) {
		e, players := drawMarket(t, false)
		m.anew()
		for i := range players {
			players[i].Balance = unit.Credits(rapid.Int64Range(0, 3_000_000).Draw(t, "balance"))
		}
		for range rapid.IntRange(1, 5).Draw(t, "epochs") {
			p := play(m, e, players)
			for i := range players {
				pl := &players[i]
				used, above := p.uses[i].Used, p.uses[i].Used-min(p.uses[i].Used, p.allocs[i].Floor)
				pay := sumOf(mul(pl.Reserve, used), p.rentOf(i))
				allowed := mul(1_000_000_000, unit.CoreTime(pl.Balance))
				backed := max(pl.Reserve, min(pl.Bid, 2*e.Spot))
				if excess := new(big.Int).Sub(p.rentOf(i), mul(backed-pl.Reserve, above)); excess.Sign() > 0 {
					if excess.Cmp(mul(max(0, pl.Bid-backed), above)) > 0 {
						t.Fatalf("player %d owes %v above what it backed, its bid allows %v", i, excess, mul(pl.Bid-backed, above))
					}
					allowed.Add(allowed, excess)
				}
				if pay.Cmp(allowed) > 0 {
					t.Fatalf("player %d with %d owes %v nanocredits: %+v, %+v", i, pl.Balance, pay, p.allocs[i], p.uses[i])
				}
				pay.Div(pay, big64(1_000_000_000))
				pl.Balance = max(0, pl.Balance-unit.Credits(pay.Int64()))
				pl.Solvent = pl.Balance > 0
			}
			e.Spot = p.out.Spot
			e.Offset += golden
		}
	})
}

// TestP11Welfare: with the floor given, what the ranking delivers is worth at
// least 98.9 % of the best possible (values are raw, so buckets hide some).
func TestP11Welfare(t *testing.T) {
	t.Parallel()
	m := New(Config{})
	rapid.Check(t, func(t *rapid.T) {
		e, players := drawMarket(t, false)
		p := play(m.anew(), e, players)
		have, best := new(big.Int), new(big.Int)
		type chunk struct {
			density *big.Rat // worth per unit of what is scarce
			amount  unit.CoreTime
			above   unit.Rate
			watts   unit.Microwatts
		}
		var chunks []chunk
		room, energy := e.Cores, e.allowance()
		for i, pl := range players {
			floor := min(p.uses[i].Used, p.allocs[i].Floor)
			room -= floor
			if e.Watts > 0 {
				energy -= energyOf(floor, pl.Energy)
			}
			above := pl.value - pl.Reserve
			have.Add(have, mul(above, p.uses[i].Used-floor))
			density := big.NewRat(int64(above), 1)
			if e.Unit == Watts {
				density.Quo(density, big.NewRat(int64(pl.Energy), 1))
			}
			chunks = append(chunks, chunk{density, pl.wants - floor, above, pl.Energy})
		}
		slices.SortFunc(chunks, func(a, b chunk) int { return b.density.Cmp(a.density) })
		for _, c := range chunks {
			take := min(c.amount, room)
			if e.Watts > 0 {
				take = min(take, unit.CoreTime(unit.MulDiv(energy, 1_000_000, int64(c.watts))))
				energy -= energyOf(take, c.watts)
			}
			room -= take
			best.Add(best, mul(c.above, take))
		}
		// have >= 98.9 % of best, less the nanoseconds that rounding leaves.
		bound := new(big.Int).Div(new(big.Int).Mul(best, big64(989)), big64(1000))
		if sumOf(have, slack(players)).Cmp(bound) < 0 {
			t.Fatalf("delivered worth %v of a possible %v\nepoch %+v\nplayers %+v", have, best, e, players)
		}
	})
}

// TestP12SameSeedSameResult: a market is a function of what it was given.
func TestP12SameSeedSameResult(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m, n := New(Config{}), New(Config{})
		n.Price(epoch50(1, 0), []Use{{Score: 2000, Demand: 90 * ms, Used: 50 * ms}}, make([]unit.Wide, 1)) // prices leave no trace
		for range 3 {
			e, players := drawMarket(t, false)
			p, q := play(m, e, players), play(n, e, players)
			if !slices.Equal(p.allocs, q.allocs) || !slices.Equal(p.rents, q.rents) || p.out != q.out {
				t.Fatalf("two markets with the same history differ")
			}
		}
	})
}
