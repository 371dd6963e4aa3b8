package market

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

func mustPace(t *testing.T, rate unit.Spend, horizon time.Duration) *Pacer {
	t.Helper()
	p, err := NewPacer(0, rate, horizon)
	if err != nil {
		t.Fatalf("pace at %d over %v: %v", rate, horizon, err)
	}
	return p
}

// duel is one core for two minutes between a scientist with 2 kJ at 4x and a
// leech with 60 J one bucket below it. It returns the scientist's core time
// and money left, and when the leech and the scientist went broke (0 = never).
func duel(t *testing.T, pacer *Pacer) (ran unit.CoreTime, left unit.Credits, leechBroke, broke int) {
	t.Helper()
	m, rng := New(Config{}), rand.New(rand.NewPCG(11, 2))
	e := Epoch{Length: 50 * time.Millisecond, Cores: 50 * ms, Spot: populationBase, Base: populationBase}
	reserve, watts := populationBase, unit.Microwatts(populationBase)
	scientist := honest(1, at(4000), reserve, watts, 50*ms)
	leech := honest(2, at(4000)-at(4000)/40, reserve, watts, 50*ms)
	scientist.Balance, leech.Balance = 2000*dollarJ, 60*dollarJ
	pay := func(pl *player, p played, i int) unit.Credits {
		q, _ := p.rents[i].AddMul(uint64(reserve), uint64(p.uses[i].Used)).DivRem(1_000_000_000)
		cost := min(unit.Credits(q.Lo), pl.Balance)
		pl.Balance -= cost
		pl.Solvent = pl.Balance >= 10_000
		return cost
	}
	for epoch := range 2400 {
		e.Offset = rng.Uint64()
		if pacer != nil {
			scientist.Bid, scientist.Demand = pacer.Bid(Round{
				Now: unit.Instant(epoch) * tick, Length: e.Length, Balance: scientist.Balance, Demand: 50 * ms,
				Reserve: reserve, Spot: e.Spot, Base: e.Base, Cap: at(4000),
			})
			scientist.wants = scientist.Demand
		}
		p := play(m, e, []player{scientist, leech})
		cost := pay(&scientist, p, 0)
		pay(&leech, p, 1)
		if pacer != nil {
			pacer.Settle(cost, 50*ms, p.uses[0].Used)
		}
		ran += p.uses[0].Used
		if !leech.Solvent && leechBroke == 0 {
			leechBroke = epoch
		}
		if !scientist.Solvent && broke == 0 {
			broke = epoch
		}
		e.Spot = p.out.Spot
	}
	return ran, scientist.Balance, leechBroke, broke
}

// TestAttackSpite: a leech one bucket below a fixed 4x bid drains it in 51 s
// and has the node at the reserve afterwards. Paced over the two minutes, the
// victim drops below it; the leech wins, pays and goes broke.
func TestAttackSpite(t *testing.T) {
	t.Parallel()
	_, _, leechBroke, broke := duel(t, nil)
	if broke == 0 || broke > 1100 || leechBroke != 0 && leechBroke < broke {
		t.Fatalf("unpaced the scientist is broke at epoch %d, the leech at %d: the attack has changed", broke, leechBroke)
	}
	ran, left, leechBroke, broke := duel(t, mustPace(t, 0, 2*time.Minute))
	if leechBroke == 0 || leechBroke > 600 {
		t.Errorf("the leech is broke at epoch %d, want within 30 s", leechBroke)
	}
	if broke != 0 || ran < 100*unit.CoreSecond {
		t.Errorf("the scientist ran %v and was broke at epoch %d (%d left)", time.Duration(ran), broke, left)
	}
}

// TestPacerHoldsTheRate: alone at the reserve, a rate of 4 a second buys 0.4
// of a core, at once and for as long as it runs.
func TestPacerHoldsTheRate(t *testing.T) {
	t.Parallel()
	m, e := New(Config{}), Epoch{Length: 50 * time.Millisecond, Cores: 50 * ms, Spot: populationBase, Base: populationBase}
	pacer, spent := mustPace(t, 4*dollarJ, 0), unit.Credits(0)
	p := honest(1, 0, populationBase, unit.Microwatts(populationBase), 50*ms)
	for epoch := range 1200 {
		p.Bid, p.Demand = pacer.Bid(Round{
			Now: unit.Instant(epoch) * tick, Length: e.Length, Balance: rich, Demand: 50 * ms,
			Reserve: populationBase, Spot: e.Spot, Base: e.Base, Cap: at(2000),
		})
		p.wants = p.Demand
		if p.Bid > at(2000) || p.Bid <= populationBase {
			t.Fatalf("bid %d, outside of 1x to 2x", p.Bid)
		}
		r := play(m, e, []player{p})
		cost := unit.Credits(unit.MulDiv(int64(populationBase), int64(r.uses[0].Used), 1_000_000_000))
		spent += cost
		pacer.Settle(cost, 50*ms, r.uses[0].Used)
		// Never more than the rate and two seconds of credit.
		if most := unit.Credits(epoch+1)*200_000 + 8*dollarJ; spent > most {
			t.Fatalf("spent %d after %d epochs, at most %d", spent, epoch+1, most)
		}
	}
	if spent < 230*dollarJ || spent > 248*dollarJ {
		t.Errorf("spent %d micro-$J in a minute, want 240 $J", spent)
	}
}

// TestPacerIdleEpochsSaveTwoSeconds: money not spent while nothing is wanted
// is not saved up beyond two seconds of credit.
func TestPacerIdleEpochsSaveTwoSeconds(t *testing.T) {
	t.Parallel()
	pacer := mustPace(t, 4*dollarJ, 0)
	r := Round{Length: 50 * time.Millisecond, Balance: rich, Reserve: populationBase, Spot: populationBase, Base: populationBase, Cap: at(2000)}
	for range 100 {
		r.Demand = 0
		if _, q := pacer.Bid(r); q != 0 {
			t.Fatalf("%d ns for a workload that wants nothing", q)
		}
		pacer.Settle(0, 0, 0)
	}
	r.Demand = 1000 * unit.CoreSecond
	_, q := pacer.Bid(r)
	// The duty cycle has fallen to 0.6 meanwhile, so an epoch that wants
	// something may spend 1/0.6 of the rate.
	if most := unit.CoreTime(0.8 * 1.7 * float64(unit.CoreSecond)); q > most {
		t.Errorf("after five idle seconds %v may be bought at once", time.Duration(q))
	}
}

// TestPacingNeverOverdraws: whatever happens, the bid stays at or below its
// cap, the quantity fits demand and balance at the reserve, and nothing
// overflows.
func TestPacingNeverOverdraws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		horizon := time.Duration(rapid.Int64Range(int64(MinHorizon), math.MaxInt64/4).Draw(t, "horizon"))
		rate := unit.Spend(rapid.SampledFrom([]int64{0, 0, 1, 16_000_000, math.MaxInt64}).Draw(t, "rate"))
		p, err := NewPacer(0, rate, horizon)
		if err != nil {
			t.Fatal(err)
		}
		for epoch := range rapid.IntRange(1, 40).Draw(t, "epochs") {
			r := Round{
				Now:     unit.Instant(epoch) * unit.Instant(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "gap")),
				Length:  time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(t, "length")),
				Balance: unit.Credits(rapid.SampledFrom([]int64{-5, 0, 1, 1000, 60_000_000, int64(rich)}).Draw(t, "balance")),
				Demand:  unit.CoreTime(rapid.Int64Range(0, 1<<40).Draw(t, "demand")),
				Reserve: unit.Rate(rapid.Int64Range(0, 1<<30).Draw(t, "reserve")),
				Spot:    unit.Rate(rapid.Int64Range(0, 1<<40).Draw(t, "spot")),
				Base:    unit.Rate(rapid.Int64Range(0, 1<<30).Draw(t, "base")),
				Cap:     unit.Rate(rapid.Int64Range(0, 1<<40).Draw(t, "cap")),
			}
			bid, q := p.Bid(r)
			if bid < 0 || bid > r.Cap || q < 0 || q > r.Demand {
				t.Fatalf("bid %d for %d ns in %+v", bid, q, r)
			}
			if cost := mul(r.Reserve, q); cost.Cmp(mul(1_000_000_000, unit.CoreTime(max(0, r.Balance)))) > 0 {
				t.Fatalf("%d ns at the reserve cost %v, the wallet has %d", q, cost, r.Balance)
			}
			wanted := unit.CoreTime(rapid.Int64Range(0, 1<<40).Draw(t, "wanted"))
			used := unit.CoreTime(rapid.Int64Range(0, int64(wanted)).Draw(t, "used"))
			p.Settle(unit.Credits(rapid.Int64Range(0, math.MaxInt64).Draw(t, "cost")), wanted, used)
		}
	})
}

// TestRateAt: the auto bid's scale is exact at the buckets and monotone.
func TestRateAt(t *testing.T) {
	t.Parallel()
	last := unit.Rate(0)
	for beta := range int64(mostBeta*fineBucket + 1) {
		have := rateAt(beta, base)
		want := float64(base) * math.Exp2(float64(beta)/fineBucket/PerOctave)
		if math.Abs(float64(have)-want) > want*2e-5+1 {
			t.Fatalf("rateAt(%d) = %d, want %.0f", beta, have, want)
		}
		if have < last {
			t.Fatalf("rateAt(%d) = %d, below %d", beta, have, last)
		}
		last = have
	}
	if last != 64*base {
		t.Errorf("the highest bid is %d, want 64x = %d", last, 64*base)
	}
	if have := rateAt(mostBeta*fineBucket, 1<<62); have != huge {
		t.Errorf("an absurd base gives %d", have)
	}
}

// TestAutoAloneDoesNotRaise: a rich wallet that gets all it wants has no
// reason to bid more, whatever it could afford.
func TestAutoAloneDoesNotRaise(t *testing.T) {
	t.Parallel()
	a, err := NewAuto(0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	r := Round{
		Length: 50 * time.Millisecond, Balance: 1_000_000 * dollarJ, Demand: 50 * ms,
		Reserve: populationBase, Spot: populationBase, Base: populationBase, Cap: at(64_000),
	}
	first, _ := a.Bid(r)
	for epoch := range 600 {
		r.Now = unit.Instant(epoch) * tick
		if bid, _ := a.Bid(r); bid > first {
			t.Fatalf("epoch %d: the bid rose from %d to %d with nobody else there", epoch, first, bid)
		}
		a.Settle(500_000, 50*ms, 50*ms)
	}
}

// TestPacerOutbidSavesTwoSeconds: nor is money saved up without end while a
// workload waits outbid.
func TestPacerOutbidSavesTwoSeconds(t *testing.T) {
	t.Parallel()
	pacer := mustPace(t, 4*dollarJ, 0)
	r := Round{
		Length: 50 * time.Millisecond, Balance: rich, Demand: 1000 * unit.CoreSecond,
		Reserve: populationBase, Spot: at(8000), Base: populationBase, Cap: at(2000),
	}
	for range 400 {
		pacer.Bid(r)
		pacer.Settle(0, 50*ms, 0)
	}
	if _, q := pacer.Bid(r); q > 800*ms {
		t.Errorf("after twenty seconds of waiting %v may be bought at once, want two seconds' worth", time.Duration(q))
	}
}

// TestOverrunIsMadeUpFor: a wallet that runs on in spare time is given nothing
// until its pace has caught up, keeps its pace over the whole, does not bid more
// for having been held back by itself, and is never allowed to owe more than its
// slack.
func TestOverrunIsMadeUpFor(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		const length = 100 * time.Millisecond
		rate := rapid.Int64Range(dollarJ/4, 8*dollarJ).Draw(rt, "rate") // of 20 $J a second for all it wants
		pacer, err := NewPacer(0, unit.Spend(rate), 0)
		if err != nil {
			rt.Fatal(err)
		}
		r := Round{
			Length: length, Balance: rich, Demand: 200 * ms, Reserve: populationBase,
			Spot: populationBase, Base: populationBase, Cap: at(8000),
		}
		spent, pauses := int64(0), 0
		const epochs = 600
		for epoch := range epochs {
			r.Now = unit.Instant(epoch) * unit.Instant(length)
			bid, most := pacer.Bid(r)
			if bid > populationBase*5/4 {
				rt.Fatalf("epoch %d: the bid rose to %d though nobody else was there", epoch, bid)
			}
			used := unit.CoreTime(0)
			if most >= ms {
				used = min(r.Demand, most+pacer.Slack())
			} else {
				pauses++
			}
			cost := int64(populationBase) * int64(used) / int64(unit.CoreSecond)
			spent += cost
			pacer.Settle(unit.Credits(cost), r.Demand, used)
		}
		want := rate * int64(epochs) / 10
		// It begins with a second's credit and may end a slack ahead.
		if over := spent - want; over > 2*rate+dollarJ || over < -2*rate-dollarJ {
			rt.Errorf("spent %.1f $J in a minute, want %.1f within two seconds' worth", float64(spent)/dollarJ, float64(want)/dollarJ)
		}
		if pauses == 0 {
			rt.Errorf("it was never held back")
		}
	})
}
