package market

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Every numbered attack of market-attacks.md on the market, as a regression
// test on the whole mechanism. The numbers in the comments are what the attack
// gained before. Twins and respawns are in eclass_test.go, pacing and spite in
// pace_test.go.

// worth is what t costs at a multiple of the base price, in nanocredits.
func worth(p unit.Price, t unit.CoreTime) *big.Int {
	return mul(unit.Rate(unit.MulDiv(int64(base), int64(p), 1000)), t)
}

// x is a multiple of the base price.
func x(p unit.Price) unit.Rate { return unit.Rate(unit.MulDiv(int64(base), int64(p), 1000)) }

// plain is an honest player of the node's class who values a core-second at p.
func plain(id uint64, p unit.Price, wants unit.CoreTime) player {
	return honest(id, x(p), base, unit.Microwatts(base), wants)
}

// rentOf is what i owes above energy, in nanocredits.
func (p played) rentOf(i int) *big.Int {
	r, _ := new(big.Int).SetString(p.rents[i].String(), 10)
	return r
}

func near(t *testing.T, what string, have, want, tolerance *big.Int) {
	t.Helper()
	if off := new(big.Int).Sub(have, want); off.CmpAbs(tolerance) > 0 {
		t.Errorf("%s: %v, want %v +- %v", what, have, want, tolerance)
	}
}

// over plays the same players for many epochs and sums what the players of
// names used and gained.
func over(epochs int, e Epoch, seed uint64, players []player, names ...int) (used unit.CoreTime, gained *big.Int) {
	m, rng := New(Config{}), rand.New(rand.NewPCG(seed, seed))
	gained = new(big.Int)
	for range epochs {
		e.Offset = rng.Uint64()
		p := play(m, e, players)
		for _, i := range names {
			used += p.uses[i].Used
			gained.Add(gained, p.utility(i, players[i]))
		}
	}
	return used, gained
}

// --- 1. Floor and ties

// TestAttackFloorSplit: with 2 % to each workload, splitting paid in 97 % of
// markets. Splitting a deposit now buys the same floor, whatever the ids.
func TestAttackFloorSplit(t *testing.T) {
	t.Parallel()
	rivals := []player{plain(50, 8000, 50*ms), plain(60, 4000, 50*ms), plain(70, 4000, 50*ms)}
	const epochs = 3000
	e := epoch50(1, 0)
	for _, n := range []int{1, 2, 10, 30} {
		players, names := append([]player{}, rivals...), []int{}
		for k := range n {
			p := plain(uint64(40+k), 1500, 50*ms/unit.CoreTime(n)) // before, between and behind the rivals
			p.Deposit = 3_000_000 / unit.Credits(n)
			names = append(names, len(players))
			players = append(players, p)
		}
		used, _ := over(epochs, e, 5, players, names...)
		// Half of all deposits: half of 2 %. Several arcs round off separately,
		// each by less than two slices.
		want := unit.CoreTime(epochs) * ms / 2
		if off := max(used-want, want-used); off > unit.CoreTime(2*n+2)*ms {
			t.Errorf("%d names got %v of floor, want %v", n, time.Duration(used), time.Duration(want))
		}
	}
}

// TestAttackFloorInfeasible: 2 % each to 51 workloads was 102 % of the node.
func TestAttackFloorInfeasible(t *testing.T) {
	t.Parallel()
	for _, n := range []int{51, 1000, 10_000} {
		m, e := New(Config{}), epoch50(2, 99)
		orders, out := make([]Order, n), make([]Allocation, n)
		for i := range orders {
			orders[i] = plain(uint64(i), 2000, 50*ms).Order
		}
		for range 50 {
			m.Rank(e, orders, out)
			var floor, sum unit.CoreTime
			for _, a := range out {
				floor += a.floorTime()
				sum += a.Time
			}
			if floor > e.Cores/50+ms || sum > e.Cores {
				t.Fatalf("%d workloads: floor %d ns and %d ns in all, of %d", n, floor, sum, e.Cores)
			}
		}
	}
}

// TestAttackFloorForLosersOnly: a floor for those who won nothing made losing
// worth a lie (7 %). The entitlement does not depend on the bid at all.
func TestAttackFloorForLosersOnly(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 77)
	for range 40 {
		e.Offset += golden
		want := unit.CoreTime(-1)
		for _, bid := range []unit.Price{1000, 1500, 3999, 4000, 4001, 8000, 1 << 30} {
			players := []player{plain(1, 4000, 50*ms), plain(2, bid, 50*ms), plain(3, 2000, 50*ms)}
			p := rankOnly(New(Config{}), e, players)
			if want < 0 {
				want = p.allocs[1].Floor
			}
			if p.allocs[1].Floor != want {
				t.Fatalf("a bid of %d/1000 x has a floor of %d, a lower one had %d", bid, p.allocs[1].Floor, want)
			}
		}
	}
}

// TestAttackFloorByAge: fresh names have no claim that older ones have not:
// somebody who respawns every epoch gets no more floor than one who stays.
func TestAttackFloorByAge(t *testing.T) {
	t.Parallel()
	const epochs = 4000
	run := func(respawn bool) (used unit.CoreTime) {
		m, rng, e := New(Config{}), rand.New(rand.NewPCG(8, 8)), epoch50(1, 0)
		for epoch := range epochs {
			e.Offset = rng.Uint64()
			players := []player{plain(1, 8000, 50*ms), plain(5, 8000, 50*ms), plain(9, 8000, 50*ms), plain(7, 1500, 50*ms)}
			if respawn {
				players[3].ID = 10 + uint64(epoch)
			}
			used += play(m, e, players).uses[3].Used
		}
		return used
	}
	stays, respawns := run(false), run(true)
	if respawns > stays+stays/50 {
		t.Errorf("respawning got %v of floor, staying %v", time.Duration(respawns), time.Duration(stays))
	}
}

// TestFloorRotation: with equal deposits the longest wait for a slice is less
// than three rounds of the rotation.
func TestFloorRotation(t *testing.T) {
	t.Parallel()
	const n = 40
	m, e := New(Config{}), epoch50(1, 4242)
	players := []player{plain(1000, 20_000, 50*ms)}
	players[0].Deposit = 0
	for i := range n {
		players = append(players, plain(uint64(i), 1500, 50*ms))
	}
	dry := make([]int, n+1)
	for range 4000 {
		p := play(m, e, players)
		for i := 1; i <= n; i++ {
			if dry[i]++; p.uses[i].Used > 0 {
				dry[i] = 0
			}
			if dry[i] > 3*n {
				t.Fatalf("wallet %d waits for its slice for %d epochs; there are %d of them", i, dry[i], n)
			}
		}
	}
}

// TestAttackTieLottery: 40 of 340 equal users who are one person got 36 times
// a fair share by lottery. Systematic rounding is additive in demand.
func TestAttackTieLottery(t *testing.T) {
	t.Parallel()
	const epochs = 4000
	share := func(names int) float64 {
		e := Epoch{Length: 10 * time.Millisecond, Cores: 100_000, Spot: base, Base: base} // 100 units of 1 us
		players := make([]player, 0, 340)
		for i := range 300 {
			players = append(players, plain(uint64(1000+i), 2000, 40_000))
		}
		index := []int{}
		for k := range names {
			p := plain(uint64(k*37), 2000, 40_000/unit.CoreTime(names)/1000*1000)
			index = append(index, len(players))
			players = append(players, p)
		}
		m, rng, won := New(Config{}), rand.New(rand.NewPCG(3, 1)), unit.CoreTime(0)
		for range epochs {
			e.Offset = rng.Uint64()
			p := rankOnly(m, e, players)
			for _, i := range index {
				won += p.allocs[i].Time
			}
		}
		return float64(won) / epochs / 1000
	}
	for _, names := range []int{1, 10, 40} {
		if have := share(names); have < 0.29 || have > 0.37 { // fair: 100/301 = 0.332 units
			t.Errorf("%d names get %.3f units an epoch, fair is 0.332", names, have)
		}
	}
}

// TestAttackGroundIDs: ids can be chosen, the offset cannot: neither the first
// nor the last place in the canonical order is worth anything.
func TestAttackGroundIDs(t *testing.T) {
	t.Parallel()
	const epochs = 20_000
	m, rng := New(Config{}), rand.New(rand.NewPCG(5, 1))
	e := Epoch{Length: 10 * time.Millisecond, Cores: 10_000, Spot: base, Base: base} // 10 units for 31
	players := []player{plain(0, 2000, 40_000), plain(1<<63, 2000, 40_000)}
	for i := range 29 {
		players = append(players, plain(uint64(100+i), 2000, 40_000))
	}
	var first, last unit.CoreTime
	for range epochs {
		e.Offset = rng.Uint64()
		p := rankOnly(m, e, players)
		first += p.allocs[0].Time
		last += p.allocs[1].Time
	}
	for name, won := range map[string]unit.CoreTime{"first": first, "last": last} {
		if have := float64(won) / epochs / 1000; have < 0.30 || have > 0.345 { // 10/31 = 0.323
			t.Errorf("the %s id gets %.3f units an epoch, fair is 0.323", name, have)
		}
	}
}

// --- 2 and 8. Declared demand, ghosts, leftovers

// TestAttackGhost: a wallet that bids 1000x and sleeps freed its friend's way:
// half a core at the reserve, and the rival's rent fell from 5 to 0.
func TestAttackGhost(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	rival, job := plain(1, 10_000, 50*ms), plain(2, 5000, 50*ms)
	alone := play(New(Config{}), e, []player{rival, job})
	for _, c := range []struct {
		name  string
		every int // the ghost is busy in every n-th epoch
	}{{"always asleep", 0}, {"busy every 2nd", 2}, {"busy every 20th", 20}} {
		t.Run(c.name, func(t *testing.T) {
			ghost := plain(3, 1_000_000, 50*ms)
			m, gained := New(Config{}), new(big.Int)
			for epoch := range 40 {
				g := ghost
				if c.every == 0 || epoch%c.every != 0 {
					g.wants = 0
				}
				p := play(m, e, []player{rival, job, g})
				gained.Add(gained, p.utility(1, job))
				g.value = 0 // its work is worth nothing
				gained.Add(gained, p.utility(2, g))
				if g.wants == 0 && p.uses[1].Used != 0 {
					t.Fatalf("the attacker's job got %d ns", p.uses[1].Used)
				}
				if g.wants == 0 && p.rentOf(0).Cmp(alone.rentOf(0)) != 0 {
					t.Fatalf("the ghost moved the rival's rent from %v to %v", alone.rentOf(0), p.rentOf(0))
				}
			}
			if gained.Sign() > 0 {
				t.Errorf("the attacker gained %v", gained)
			}
		})
	}
}

// TestAttackGhostBelowWinner: a sleeping bid just below the winner raised its
// rent from 3.0 to 9.9.
func TestAttackGhostBelowWinner(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	winner, loser := plain(1, 10_000, 50*ms), plain(2, 3000, 50*ms)
	ghost := plain(3, 9900, 50*ms)
	ghost.wants = 0
	alone := play(New(Config{}), e, []player{winner, loser})
	haunted := play(New(Config{}), e, []player{winner, loser, ghost})
	if alone.rents[0] != haunted.rents[0] || alone.rents[0].IsZero() {
		t.Errorf("rent %v, with a ghost below %v", alone.rents[0], haunted.rents[0])
	}
}

// TestAttackShadeForLeftovers: with leftovers at the reserve, bidding just
// below winners who sleep half the time was the better bid in half of the
// markets. First units and leftovers now cost the same.
func TestAttackShadeForLeftovers(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	rng := rand.New(rand.NewPCG(9, 9))
	for trial := range 60 {
		firm := []player{plain(1, 6000, 50*ms), plain(2, 5000, 30*ms)}
		self := plain(3, 5000+unit.Price(rng.Int64N(4000)), 40*ms)
		total := map[unit.Price]*big.Int{}
		bids := []unit.Price{1000, 1100, 4900, 5900, 20_000}
		honestly := new(big.Int)
		m := New(Config{})
		for range 32 {
			for i := range firm {
				firm[i].wants = firm[i].Demand * unit.CoreTime(rng.Int64N(2)) // asleep half the time
			}
			honestly.Add(honestly, play(m, e, append(firm, self)).utility(2, self))
			for _, b := range bids {
				lie := self
				lie.Bid = x(b)
				if total[b] == nil {
					total[b] = new(big.Int)
				}
				total[b].Add(total[b], play(m, e, append(firm, lie)).utility(2, self))
			}
		}
		// Raw values: a bucket's width of the score over what was wanted.
		allowed := mul((self.value-base)*11/1000, 32*self.wants)
		for b, gained := range total {
			if gained.Sub(gained, honestly).Cmp(allowed) > 0 {
				t.Errorf("trial %d: bidding %d/1000 x gains %v", trial, b, gained)
			}
		}
	}
}

// TestAttackDemandFromUse: demand taken from use emptied the losing curve: the
// winner paid 0.10 instead of 5.00. Who waits all epoch counts in full.
func TestAttackDemandFromUse(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	players := []player{plain(1, 10_000, 50*ms), plain(2, 5000, 50*ms)}
	m := New(Config{})
	for range 100 { // however long the loser has lost
		p := play(m, e, players)
		if p.uses[1].Used != 0 {
			t.Fatal("the loser ran")
		}
		near(t, "rent", p.rentOf(0), worth(4000, 50*ms), worth(50, 50*ms))
	}
}

// TestAttackTakeOrPay: billing the grant bills sleepers. Nobody pays for time
// it did not use.
func TestAttackTakeOrPay(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	players := []player{plain(1, 10_000, 50*ms), plain(2, 5000, 50*ms)}
	players[0].wants = 0
	p := play(New(Config{}), e, players)
	if !p.rents[0].IsZero() || p.uses[1].Used != 50*ms || !p.rents[1].IsZero() {
		t.Errorf("the sleeper owes %v; the next in line ran %d ns for %v", p.rents[0], p.uses[1].Used, p.rents[1])
	}
}

// TestAttackSpinner: spinning to inflate one's own demand costs energy and
// changes nothing in one's own price.
func TestAttackSpinner(t *testing.T) {
	t.Parallel()
	e := epoch50(2, 3)
	e.Floor = 0
	rival, job := plain(1, 10_000, 100*ms), plain(2, 5000, 50*ms)
	honestly := play(New(Config{}), e, []player{rival, job})
	spin := job
	spin.Demand, spin.wants = 100*ms, 100*ms
	for _, bid := range []unit.Price{1000, 5000, 9999, 20_000} {
		spin.Bid = x(bid)
		p := play(New(Config{}), e, []player{rival, spin})
		truth := job
		if p.utility(1, truth).Cmp(honestly.utility(1, truth)) > 0 {
			t.Errorf("spinning at %d/1000 x gains", bid)
		}
	}
}

// TestLeakageBoundsLies: where the kernel leaks a share m of the processor to
// waiting losers, shading can gain about m times value. The market cannot
// prevent it; it measures the leak.
func TestLeakageBoundsLies(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	for _, leak := range []unit.CoreTime{0, ms, 5 * ms} { // 0, 2 and 10 %
		players := []player{plain(1, 10_000, 50*ms), plain(2, 5000, 50*ms)}
		deliver := func(bid unit.Price) played {
			lying := append([]player{}, players...)
			lying[1].Bid = x(bid)
			p := rankOnly(New(Config{}), e, lying)
			return p.settle(New(Config{}), e, lying, []unit.CoreTime{50*ms - leak, leak})
		}
		truth, lie := deliver(5000), deliver(1000)
		if truth.out.Misdelivered != leak || lie.out.Misdelivered != leak {
			t.Errorf("leak of %d ns, measured %d and %d", leak, truth.out.Misdelivered, lie.out.Misdelivered)
		}
		gain := new(big.Int).Sub(lie.utility(1, players[1]), truth.utility(1, players[1]))
		if bound := worth(5000, leak); gain.Cmp(bound) > 0 {
			t.Errorf("leak of %d ns: shading gains %v, more than %v", leak, gain, bound)
		}
		if leak > 0 && gain.Sign() <= 0 {
			t.Errorf("a leak of %d ns gains nothing: then the claim can be made stronger", leak)
		}
	}
}

// --- 3. Reserve

// TestAttackCoolWhileLosing: ranked cool, then burning hot, a job that should
// lose wins. Paying the energy in full, above the bid too, makes it a loss;
// with the payment capped at the bid it was free, and with energy billed at
// the estimate a profit.
func TestAttackCoolWhileLosing(t *testing.T) {
	t.Parallel()
	const token = unit.Rate(1_000_000)
	e := Epoch{Length: 50 * time.Millisecond, Cores: 50 * ms, Spot: 10 * token, Base: 10 * token}
	rival := honest(1, 32*token, 10*token, 10_000_000, 50*ms) // score 22
	truth := honest(2, 34*token, 16*token, 16_000_000, 50*ms) // score 18: should lose
	cool := truth
	cool.Reserve, cool.Energy = 4*token, 4_000_000
	if play(New(Config{}), e, []player{rival, truth}).uses[1].Used != 0 {
		t.Fatal("the hot job wins honestly")
	}
	p := play(New(Config{}), e, []player{rival, cool})
	if p.uses[1].Used != 50*ms {
		t.Fatal("the job ranked cool does not win")
	}
	// utility bills the energy that was burnt, not the class.
	u := p.utility(1, truth)
	if most := mul(-2*token, 50*ms); u.Cmp(most) > 0 {
		t.Errorf("running hot gains %v, want at most %v", u, most)
	}
	// Were the rent also cut so that nobody pays above its bid in all, a lower
	// bid would win at its own price: the reason why it is not.
	shade := cool
	shade.Bid = 27 * token
	q := play(New(Config{}), e, []player{rival, shade})
	if q.utility(1, truth).Sign() >= 0 {
		t.Error("shading while running hot pays")
	}
	cut := new(big.Int).Sub(mul(truth.value, 50*ms), mul(shade.Bid, 50*ms))
	if cut.Sign() <= 0 {
		t.Error("with the payment cut to the bid shading would not pay either")
	}
}

// TestAttackHeatAsVirtue: "4x of one's own reserve" put 2.5x at 32 W above 4x
// at 8 W. Of two equal bids the cooler wins.
func TestAttackHeatAsVirtue(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	hot := honest(1, x(4000), 3*base, 3*unit.Microwatts(base), 50*ms)
	cool := honest(2, x(4000), base/2, unit.Microwatts(base)/2, 50*ms)
	for _, sold := range []Unit{Cores, Watts} {
		e.Unit, e.Watts = sold, 0
		if sold == Watts {
			e.Watts = 12_000_000
		}
		p := play(New(Config{}), e, []player{hot, cool})
		if p.uses[1].Used != 50*ms || p.allocs[1].Score <= p.allocs[0].Score {
			t.Errorf("%v: the cool one ran %d ns, scores %d and %d", sold, p.uses[1].Used, p.allocs[0].Score, p.allocs[1].Score)
		}
	}
}

// --- 5. Holds

// TestAttackRaisingBidShrinksWallet: cut at the own bid, raising it lowered
// the allocation in 89 % of wallet-bound markets. Above twice the spot it no
// longer matters.
func TestAttackRaisingBidShrinksWallet(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	p := plain(1, 2000, 50*ms)
	p.Balance = 600_000 // 25 ms at 2x
	var last unit.CoreTime
	for _, bid := range []unit.Price{2000, 3000, 8000, 1_000_000} {
		p.Bid = x(bid)
		have := rankOnly(New(Config{}), e, []player{p, plain(2, 1500, 50*ms)}).allocs[0]
		if have.Time != 25*ms || have.Refusal != WalletBinds || have.Cap != 25*ms {
			t.Errorf("at %d/1000 x: %+v", bid, have)
		}
		if have.Time < last {
			t.Errorf("raising the bid to %d/1000 x lowered the allocation to %d", bid, have.Time)
		}
		last = have.Time
	}
}

// TestAttackZeno: a bid of 1000 at a price of 10 decayed exponentially and was
// never broke: 34.5 s instead of 6. Now the money goes in about 6.2 s.
func TestAttackZeno(t *testing.T) {
	t.Parallel()
	const token = unit.Rate(1_000_000)
	m, e := New(Config{}), Epoch{Length: 50 * time.Millisecond, Cores: 50 * ms, Spot: 10 * token, Base: 10 * token}
	leech := honest(1, 1000*token, 10*token, 10_000_000, 50*ms)
	leech.Balance = 60_000_000
	epochs := 0
	for ; leech.Balance >= 10_000; epochs++ { // a millisecond of its own reserve
		if epochs > 2000 {
			t.Fatalf("after 100 s the leech still has %d", leech.Balance)
		}
		p := play(m, e, []player{leech})
		leech.Balance -= unit.Credits(int64(10*token) * int64(p.uses[0].Used) / 1_000_000_000)
	}
	if have := time.Duration(epochs) * e.Length; have < 6*time.Second || have > 7*time.Second {
		t.Errorf("60 tokens at 10 a second last %v, want about 6.2 s", have)
	}
}

// TestAttackFreshWalletsHoldTheCore: fresh wallets with one epoch's reserve
// each, bidding 10^6, held a core at a quarter of its price when rent was
// forgiven. They back no more than half of it and are gone after an epoch.
func TestAttackFreshWalletsHoldTheCore(t *testing.T) {
	t.Parallel()
	m, e := New(Config{}), epoch50(1, 3)
	e.Floor, e.Spot = 0, x(4000)
	for epoch := range 20 {
		fresh := plain(uint64(100+epoch), 1_000_000, 50*ms)
		fresh.Balance = 600_000 // 50 ms at the reserve
		rival := plain(1, 4000, 50*ms)
		p := play(m, e, []player{rival, fresh})
		if epoch > 0 && p.uses[1].Used > 7*ms { // an eighth, and a bucket's width of the spot
			t.Errorf("epoch %d: the fresh wallet held the core for %d ns", epoch, p.uses[1].Used)
		}
		cost := sumOf(mul(base, p.uses[1].Used), p.rentOf(1))
		if cost.Cmp(big64(600_000*1_000_000_000)) > 0 {
			t.Errorf("epoch %d: it owes %v nanocredits and has 600000 credits", epoch, cost)
		}
		e.Spot = p.out.Spot
	}
}

// TestAttackPhantomDemand: demand that a wallet cannot pay for must not set
// others' prices: the q of the ranking and the q of the curve are the same.
func TestAttackPhantomDemand(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	poor := plain(2, 9000, 50*ms)
	poor.Balance = 24_000 // 1 ms at 2x
	p := play(New(Config{}), e, []player{plain(1, 10_000, 50*ms), poor})
	most := worth(8000, ms) // the one millisecond that was backed
	if p.rentOf(0).Cmp(most) > 0 {
		t.Errorf("a wallet that backs 1 ms of demand costs its rival %v, at most %v", p.rentOf(0), most)
	}
}

// --- 6. Mapping

// TestAttackSpareToTheLowest: with quotas spare time went to the lowest
// bidder. The ranking names who is next: margin, then losers in tiers.
func TestAttackSpareToTheLowest(t *testing.T) {
	t.Parallel()
	e := epoch50(1, 3)
	e.Floor = 0
	players := []player{
		plain(1, 20_000, 30*ms), plain(2, 10_000, 40*ms), plain(3, 9000, 50*ms),
		plain(4, 5000, 50*ms), plain(5, 3000, 50*ms), plain(6, 1100, 50*ms), plain(7, 900, 50*ms),
	}
	players[0].wants = 15 * ms // sleeps half
	p := play(New(Config{}), e, players)
	for i, want := range []struct {
		class Class
		tier  uint8
		used  unit.CoreTime
	}{{Served, 0, 15 * ms}, {Margin, 0, 35 * ms}, {Loser, 0, 0}, {Loser, 1, 0}, {Loser, 2, 0}, {Loser, 3, 0}, {Frozen, 0, 0}} {
		if a := p.allocs[i]; a.Class != want.class || a.Tier != want.tier || p.uses[i].Used != want.used {
			t.Errorf("player %d: %+v used %d, want %+v", i, a, p.uses[i].Used, want)
		}
	}
	if p.out.Misdelivered != 0 {
		t.Errorf("misdelivered %d ns", p.out.Misdelivered)
	}
	// The same spare time given to the lowest bidder instead is measured.
	q := p.settle(New(Config{}), e, players, []unit.CoreTime{15 * ms, 20 * ms, 0, 0, 0, 15 * ms, 0})
	if q.out.Misdelivered != 15*ms {
		t.Errorf("misdelivered %d ns, want 15 ms", q.out.Misdelivered)
	}
}

// --- 7. Watts

// TestAttackMeanWatts: supply by mean watts sold up to 1.68 times the
// allowance. Each is sold its own watts.
func TestAttackMeanWatts(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(6, 6))
	m := New(Config{})
	for range 600 {
		for _, sold := range []Unit{Cores, Watts} {
			e := epoch50(4, rng.Uint64())
			e.Unit, e.Watts = sold, unit.Microwatts(2_000_000+rng.Int64N(8_000_000))
			players := make([]player, 2+rng.IntN(10))
			for i := range players {
				watts := unit.Microwatts(1_000_000 + rng.Int64N(4)*1_000_000)
				players[i] = honest(uint64(i), unit.Rate(watts)+unit.Rate(rng.Int64N(50_000_000)), unit.Rate(watts), watts, unit.CoreTime(rng.Int64N(int64(100*ms))))
			}
			p := rankOnly(m, e, players)
			burns := int64(0)
			for i, a := range p.allocs {
				burns += energyOf(a.Time, players[i].Energy)
			}
			if burns > e.allowance() {
				t.Fatalf("%v: sold %d nJ of %d", sold, burns, e.allowance())
			}
		}
	}
}

// TestAttackUnitByBids: choosing the unit from the bids of the epoch made 7 %
// of lies pay. The chooser sees only watts that were sold before.
func TestAttackUnitByBids(t *testing.T) {
	t.Parallel()
	var c UnitChooser
	for range 2 { // a spike of two epochs moves nothing
		if c.Observe(2_000_000, 1_000_000) != Cores {
			t.Fatal("two epochs moved the unit")
		}
	}
	if c.Observe(500_000, 1_000_000) != Cores {
		t.Fatal("the unit moved")
	}
}

// --- 9. Collusion

// TestCorneringCostsTheExternality: holding two cores against 3x bidders costs
// what they lose by it, every epoch. It is not a defect.
func TestCorneringCostsTheExternality(t *testing.T) {
	t.Parallel()
	e := epoch50(2, 3)
	e.Floor = 0
	players := []player{plain(1, 100_000, 100*ms), plain(2, 3000, 50*ms), plain(3, 3000, 50*ms)}
	p := play(New(Config{}), e, players)
	near(t, "rent of the corner", p.rentOf(0), worth(2000, 100*ms), worth(25, 100*ms))
}

// --- 10. Rounding

// TestAttackDustIsNotFree: 10,000 wallets of 19 us each got 3.8 cores free
// when prices were floored per wallet. Rents are exact to the nanocredit.
func TestAttackDustIsNotFree(t *testing.T) {
	t.Parallel()
	const n = 10_000
	e := epoch50(2, 3)
	e.Base, e.Floor = 50_000, 0 // 0.05 $J a core-second: a cheap grid
	uses, rents := make([]Use, n+1), make([]unit.Wide, n+1)
	sum := new(big.Int)
	for i := range n {
		uses[i] = Use{ID: uint64(i), Score: BucketOf(50_000), Demand: 19_000, Used: 10_000}
	}
	uses[n] = Use{ID: n, Score: BucketOf(50_000), Demand: 50 * ms}
	New(Config{}).Price(e, uses, rents)
	for _, r := range rents {
		v, _ := new(big.Int).SetString(r.String(), 10)
		sum.Add(sum, v)
	}
	if want := mul(BucketOf(50_000).Floor(), n*10_000); sum.Cmp(want) != 0 {
		t.Errorf("dust pays %v nanocredits in all, want %v", sum, want)
	}
}

// TestRoundingKeepsTheAllowance: rounding hot members of the margin up and
// cool ones down must not sell watts that are not there.
func TestRoundingKeepsTheAllowance(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 4))
	for _, sold := range []Unit{Cores, Watts} {
		m := New(Config{Granule: ms / 10})
		for range 300 {
			e := epoch50(64, rng.Uint64())
			e.Unit, e.Watts, e.Floor = sold, 20_000_000, 0
			orders, out := make([]Order, 60), make([]Allocation, 60)
			for i := range orders {
				watts := unit.Microwatts(1_000_000)
				if rng.IntN(2) == 0 {
					watts = 40_000_000
				}
				above := 4 * base
				if sold == Watts { // equal scores per joule
					above = unit.Rate(watts)
				}
				orders[i] = honest(uint64(i), unit.Rate(watts)+above, unit.Rate(watts), watts, unit.CoreTime(1+rng.Int64N(50))*ms).Order
			}
			m.Rank(e, orders, out)
			burns, most := int64(0), int64(0)
			for i, a := range out {
				if a.Class != Margin {
					t.Fatalf("order %d is not at the margin: %+v", i, a)
				}
				burns += energyOf(a.Time, orders[i].Energy)
				most += energyOf(orders[i].Demand, orders[i].Energy)
			}
			if burns > e.allowance() || burns < e.allowance()*95/100 {
				t.Fatalf("%v: sold %d nJ of %d (wanted %d)", sold, burns, e.allowance(), most)
			}
		}
	}
}

// TestFloorWithinTheAllowance: floor saved up while watts were free is not
// sold when they are not.
func TestFloorWithinTheAllowance(t *testing.T) {
	t.Parallel()
	m, e := New(Config{}), epoch50(1, 9)
	players := []player{plain(1, 2000, 50*ms), plain(2, 1500, 50*ms)}
	e.Floor, e.Cores = unit.One, 9*ms/10
	if p := rankOnly(m, e, players); p.allocs[0].Floor+p.allocs[1].Floor != 0 {
		t.Fatalf("a slice of less than 1 ms was sold: %+v", p.allocs)
	}
	e.Cores, e.Watts = 50*ms, 48_000 // 2.4 mJ: a fifth of a slice of 1.1 ms
	for _, sold := range []Unit{Cores, Watts} {
		e.Unit = sold
		p := rankOnly(m, e, players)
		burns := energyOf(p.allocs[0].Time, players[0].Energy) + energyOf(p.allocs[1].Time, players[1].Energy)
		if burns > e.allowance() || p.allocs[0].Floor+p.allocs[1].Floor != 0 {
			t.Errorf("%v: sold %d nJ of %d: %+v", sold, burns, e.allowance(), p.allocs)
		}
	}
}
