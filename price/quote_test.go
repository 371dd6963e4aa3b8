package price_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func TestBaseAndMultiples(t *testing.T) {
	tests := []struct {
		ref  unit.Microwatts
		g    unit.PPM
		bid  unit.Price
		base unit.Rate
		want unit.Rate
	}{
		{12 * unit.Watt, unit.One, 2000, 12e6, 24e6},
		{12 * unit.Watt, 1_500_000, 500, 18e6, 9e6},
		{9_800_001, unit.One, 2300, 9_800_001, 22_540_002},
		{1, 100_000, 1000, 1, 1}, // never free by rounding
		{0, unit.One, 4000, 0, 0},
		{12 * unit.Watt, 0, 4000, 0, 0},
		{12 * unit.Watt, unit.One, math.MaxInt64, 12e6, math.MaxInt64},
	}
	for _, tt := range tests {
		base := price.Base(tt.ref, tt.g)
		if base != tt.base {
			t.Errorf("base of %v at %v = %v, want %v", tt.ref, tt.g, base, tt.base)
		}
		if got := price.Absolute(tt.bid, base); got != tt.want {
			t.Errorf("%v of %v = %d, want %d", tt.bid, base, got, tt.want)
		}
	}
	for _, tt := range []struct {
		r, base unit.Rate
		want    unit.Price
	}{
		{0, 0, 0},
		{1, 0, math.MaxInt64},
		{0, 5, 0},
		{math.MaxInt64, 1, math.MaxInt64},
		{math.MaxInt64, math.MaxInt64, 1000},
		{math.MaxInt64, 1e9, 9_223_372_036_854},
		{3, 2000, 2}, // 1.5/1000 rounds up
	} {
		if got := price.Multiple(tt.r, tt.base); got != tt.want {
			t.Errorf("%d over %d = %d, want %d", tt.r, tt.base, got, tt.want)
		}
	}
}

func TestMultipleGivesBackWhatAbsoluteTook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := unit.Rate(rapid.Int64Range(2001, 1e12).Draw(t, "base"))
		p := unit.Price(rapid.Int64Range(0, 1e6).Draw(t, "price"))
		if got := price.Multiple(price.Absolute(p, base), base); got != p {
			t.Fatalf("%v came back as %v at base %v", p, got, base)
		}
	})
}

func TestOffer(t *testing.T) {
	const epoch = 50 * time.Millisecond
	tests := []struct {
		name  string
		terms price.OfferTerms
		want  price.Supply
	}{
		{"all cores", price.OfferTerms{Machine: 2000, Length: epoch}, price.Supply{Cores: 100e6}},
		{
			"less the system's share",
			price.OfferTerms{Machine: 2000, Length: epoch, System: 20e6, Elapsed: 100 * time.Millisecond},
			price.Supply{Cores: 90e6},
		},
		{
			"the system uses unsold cores first",
			price.OfferTerms{Machine: 2000, Sold: 1000, Length: epoch, System: 30e6, Elapsed: epoch},
			price.Supply{Cores: 50e6},
		},
		{
			"until they are not enough",
			price.OfferTerms{Machine: 2000, Sold: 1000, Length: epoch, System: 70e6, Elapsed: epoch},
			price.Supply{Cores: 30e6},
		},
		{
			"more is sold than there is",
			price.OfferTerms{Machine: 2000, Sold: 9000, Length: epoch},
			price.Supply{Cores: 100e6},
		},
		{
			"the system takes everything",
			price.OfferTerms{Machine: 1000, Length: epoch, System: 60e6, Elapsed: epoch},
			price.Supply{},
		},
		{
			"watts",
			price.OfferTerms{Machine: 1000, Length: epoch, Watts: 12e6, Overhead: 5e6},
			price.Supply{Cores: 50e6, Watts: 7e6},
		},
		{
			"no watts left is not unlimited",
			price.OfferTerms{Machine: 1000, Length: epoch, Watts: 4e6, Overhead: 5e6},
			price.Supply{Cores: 50e6, Watts: 1},
		},
		{
			"overhead without a budget",
			price.OfferTerms{Machine: 1000, Length: epoch, Overhead: 5e6},
			price.Supply{Cores: 50e6},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := price.Offer(tt.terms); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	mustPanic(t, "a negative offer", func() { price.Offer(price.OfferTerms{Machine: -1}) })
}

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", name)
		}
	}()
	f()
}

// terms is a job of n cores on a node where nobody competes.
func terms(n unit.MilliCores, watts unit.Microwatts) price.DepositTerms {
	return price.DepositTerms{
		Cores: n, Epoch: 50 * time.Millisecond, Settle: 100 * time.Millisecond, Late: 22 * time.Millisecond, Stop: time.Millisecond,
		Energy: watts, Factor: unit.One, Reserve: price.Base(watts, unit.One),
	}
}

func TestDeposit(t *testing.T) {
	with := func(d price.DepositTerms, change func(*price.DepositTerms)) price.DepositTerms {
		change(&d)
		return d
	}
	tests := []struct {
		name  string
		terms price.DepositTerms
		want  unit.Credits
	}{
		{"one core of 12 W", terms(1000, 12e6), 2_076_000},
		{"and rivals at 4x", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.Bid, d.Spot = 48e6, 48e6 }), 8_304_000},
		{"two cores of 17.5 W at 4x", with(terms(2000, 17_500_000), func(d *price.DepositTerms) { d.Bid, d.Spot = 70e6, 70e6 }), 24_220_000},
		{"64 cores of 5 J at 4x", with(terms(64_000, 5e6), func(d *price.DepositTerms) { d.Bid, d.Spot = 20e6, 20e6 }), 221_440_000},
		{"a dear bid on a cheap node is bounded by twice spot", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.Bid, d.Spot = 1e12, 12e6 }), 4_152_000},
		{"a bid below the reserve has no rent", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.Bid, d.Spot = 1e6, 48e6 }), 2_076_000},
		{"a modelled source doubles energy", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.Sigma = unit.One / 2 }), 4_152_000},
		{"dear power", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.Factor = 2 * unit.One }), 4_152_000},
		{"death", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.Term, d.TermCores = 2*time.Second, 100 }), 2_076_000 + 2_400_000},
		{"tax", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.TaxCap = 7 }), 2_076_007},
		{"spot beyond measure", with(terms(1000, 12e6), func(d *price.DepositTerms) { d.Bid, d.Spot = 48e6, math.MaxInt64 }), 8_304_000},
		{"nothing", price.DepositTerms{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := price.Deposit(tt.terms)
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if least := price.MinimumBudget(got); least != 2*got {
				t.Errorf("minimum budget %v for a deposit of %v", least, got)
			}
		})
	}
	mustPanic(t, "negative cores", func() { price.Deposit(price.DepositTerms{Cores: -1}) })
	mustPanic(t, "a deposit beyond int64", func() {
		price.Deposit(price.DepositTerms{Cores: math.MaxInt64, Epoch: time.Hour, Energy: math.MaxInt64, Factor: unit.One})
	})
	mustPanic(t, "a tax cap beyond int64", func() {
		d := terms(1000, 12e6)
		d.TaxCap = math.MaxInt64
		price.Deposit(d)
	})
}

// TestDepositCoversTheBlindTime spends all that the rules let a workload spend
// after its balance is gone: the whole blind time on all its cores at the upper
// end of the energy band, with spot doubled, then its lane, then its death. The
// deposit pays it, but for what Flush rounds up.
func TestDepositCoversTheBlindTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := terms(unit.MilliCores(rapid.Int64Range(1, 64_000).Draw(t, "cores")), unit.Microwatts(rapid.Int64Range(1, 50e6).Draw(t, "watts")))
		d.Factor = unit.PPM(rapid.Int64Range(int64(price.Lowest), int64(price.Highest)).Draw(t, "grid"))
		d.Sigma = unit.PPM(rapid.Int64Range(0, 5e5).Draw(t, "sigma"))
		d.Reserve = price.Base(d.Energy, d.Factor)
		d.Spot = d.Reserve + unit.Rate(rapid.Int64Range(0, 1e9).Draw(t, "scarcity"))
		d.Bid = unit.Rate(rapid.Int64Range(0, 4e9).Draw(t, "bid"))
		d.Term, d.TermCores = 250*time.Millisecond, 200

		var carry price.Carry
		use := d.Cores.In(d.Epoch + d.Settle + d.Late + d.Stop)
		watts := unit.Microwatts((unit.One + 2*d.Sigma).Of(int64(d.Energy)))
		rent := unit.Mul(uint64(max(0, min(d.Bid, 2*d.Spot)-d.Reserve)), uint64(use))
		bill := price.Cost(price.Cycles{Time: use, Energy: watts.Over(use)}, price.GridPrice{Factor: d.Factor, Rent: rent}, 0, price.Landauer{}, &carry)
		lane := d.TermCores.In(d.Term)
		bill = bill.Plus(price.Cost(price.Cycles{Time: lane, Energy: d.Energy.Over(lane)}, price.GridPrice{Factor: d.Factor}, 0, price.Landauer{}, &carry))
		bill = bill.Plus(carry.Flush())
		if deposit := price.Deposit(d); bill.Total() > deposit+2 {
			t.Fatalf("the blind time costs %d micro-$J, the deposit is %d", bill.Total(), deposit)
		}
	})
}

// TestDepositAgainstRationals: never less than the formula, and never more than
// the five roundings above it.
func TestDepositAgainstRationals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, most int64) int64 { return rapid.Int64Range(0, most).Draw(t, name) }
		d := price.DepositTerms{
			Cores: unit.MilliCores(draw("cores", 64_000)), Epoch: time.Duration(draw("epoch", 1e8)),
			Settle: time.Duration(draw("settle", 1e8)), Late: time.Duration(draw("late", 1e8)), Stop: time.Duration(draw("stop", 1e7)),
			Energy: unit.Microwatts(draw("energy", 50e6)), Factor: unit.PPM(draw("factor", 10e6)), Sigma: unit.PPM(draw("sigma", 1e6)),
			Bid: unit.Rate(draw("bid", 1e9)), Spot: unit.Rate(draw("spot", 1e9)), Reserve: unit.Rate(draw("reserve", 1e8)),
			Term: time.Duration(draw("term", 1e9)), TermCores: unit.MilliCores(draw("termcores", 1000)), TaxCap: unit.Credits(draw("tax", 1e9)),
		}
		ratio := func(a, b int64) *big.Rat { return big.NewRat(a, b) }
		product := func(factors ...*big.Rat) *big.Rat {
			p := ratio(1, 1)
			for _, f := range factors {
				p.Mul(p, f)
			}
			return p
		}
		energy := product(ratio(int64(d.Energy), 1), ratio(int64(d.Factor), 1e6))
		perCore := product(energy, ratio(1e6+2*int64(d.Sigma), 1e6))
		perCore.Add(perCore, ratio(max(0, min(int64(d.Bid), 2*int64(d.Spot))-int64(d.Reserve)), 1))
		want := product(perCore, ratio(int64(d.Cores), 1000), ratio(int64(d.Epoch+d.Settle+d.Late+d.Stop), 1e9))
		want.Add(want, product(energy, ratio(int64(d.TermCores), 1000), ratio(int64(d.Term), 1e9)))
		want.Add(want, ratio(int64(d.TaxCap), 1))
		off := new(big.Rat).Sub(ratio(int64(price.Deposit(d)), 1), want)
		if f, _ := off.Float64(); f < 0 || f > 250 {
			t.Fatalf("deposit is %v micro-$J above the formula", f)
		}
	})
}
