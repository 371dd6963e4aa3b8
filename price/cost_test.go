package price_test

import (
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// nanocredits is the rent area of a rate over a time.
func nanocredits(r unit.Rate, t unit.CoreTime) unit.Wide {
	return unit.Mul(uint64(r), uint64(t))
}

func TestCost(t *testing.T) {
	tax := price.DefaultLandauer()
	tests := []struct {
		name   string
		cycles price.Cycles
		grid   price.GridPrice
		erased unit.Bits
		tax    price.Landauer
		want   price.Bill
		rest   price.Carry
	}{
		{name: "nothing"},
		{
			name: "one core-second of 10 W", cycles: price.Cycles{Time: unit.CoreSecond, Energy: 10 * unit.Joule},
			grid: price.GridPrice{Factor: unit.One}, want: price.Bill{Energy: 10e6},
		},
		{
			name: "dear power and scarcity", cycles: price.Cycles{Time: unit.CoreSecond, Energy: 10 * unit.Joule},
			grid: price.GridPrice{Factor: 1_500_000, Rent: nanocredits(7e6, unit.CoreSecond)},
			want: price.Bill{Energy: 15e6, Rent: 7e6},
		},
		{
			name: "a price of zero", cycles: price.Cycles{Time: unit.CoreSecond, Energy: 10 * unit.Joule},
		},
		{
			name: "a gibibyte erased is about 0.09 J", erased: unit.GiB.Bits(), tax: tax,
			want: price.Bill{Erasure: 85_899}, rest: price.Carry{Erasure: 345_920_000_000},
		},
		{
			name: "below a micro-$J", cycles: price.Cycles{Time: 19_000, Energy: 9},
			grid: price.GridPrice{Factor: 100_000, Rent: nanocredits(3, 19_000)}, erased: 3, tax: tax,
			rest: price.Carry{Energy: 900_000, Rent: 57_000, Erasure: 30_000_000},
		},
		{
			name: "the most energy there is", cycles: price.Cycles{Energy: math.MaxInt64},
			grid: price.GridPrice{Factor: unit.One}, want: price.Bill{Energy: math.MaxInt64},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var carry price.Carry
			got := price.Cost(tt.cycles, tt.grid, tt.erased, tt.tax, &carry)
			if got != tt.want || carry != tt.rest {
				t.Errorf("got %+v, carry %+v\nwant %+v, carry %+v", got, carry, tt.want, tt.rest)
			}
			if got.Total() != got.Energy+got.Rent+got.Erasure {
				t.Errorf("%+v does not sum to %d", got, got.Total())
			}
		})
	}
}

// TestCostAgainstBig runs wallets through random epochs: at every moment the
// bills and the carry are exactly what big integers say, and after Flush each
// part is the exact sum rounded up once.
func TestCostAgainstBig(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var carry price.Carry
		var paid price.Bill
		var owed [3]big.Int
		for range rapid.IntRange(1, 30).Draw(t, "epochs") {
			c := price.Cycles{Time: unit.CoreTime(rapid.Int64Range(0, 1e9).Draw(t, "time"))}
			c.Energy = unit.Microjoules(rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, 1e15)).Draw(t, "energy"))
			p := price.GridPrice{Factor: unit.PPM(rapid.Int64Range(0, 10e6).Draw(t, "grid"))}
			p.Rent = nanocredits(unit.Rate(rapid.Int64Range(0, 1e15).Draw(t, "rent")), c.Time)
			bits := unit.Bits(rapid.OneOf(rapid.Int64Range(0, 1e5), rapid.Int64Range(0, 1e15)).Draw(t, "bits"))
			l := price.DefaultLandauer().At(unit.MilliCelsius(rapid.Int64Range(-273_150, 120_000).Draw(t, "temperature")))
			paid = paid.Plus(price.Cost(c, p, bits, l, &carry))

			owed[0].Add(&owed[0], new(big.Int).Mul(big.NewInt(int64(c.Energy)), big.NewInt(int64(p.Factor))))
			rent := new(big.Int).Lsh(new(big.Int).SetUint64(p.Rent.Hi), 64)
			owed[1].Add(&owed[1], rent.Add(rent, new(big.Int).SetUint64(p.Rent.Lo)))
			owed[2].Add(&owed[2], new(big.Int).Mul(big.NewInt(int64(bits)), big.NewInt(l.PerBit())))
			for i, part := range parts(paid, carry) {
				want, rest := new(big.Int).QuoRem(&owed[i], big.NewInt(part.per), new(big.Int))
				if want.Cmp(big.NewInt(int64(part.paid))) != 0 || rest.Cmp(new(big.Int).SetUint64(part.rest)) != 0 {
					t.Fatalf("%s: paid %d, carry %d; want %v, %v", part.name, part.paid, part.rest, want, rest)
				}
			}
		}
		paid = paid.Plus(carry.Flush())
		for i, part := range parts(paid, carry) {
			up := new(big.Int).Add(&owed[i], big.NewInt(part.per-1))
			if want := up.Quo(up, big.NewInt(part.per)); want.Cmp(big.NewInt(int64(part.paid))) != 0 || part.rest != 0 {
				t.Fatalf("%s after death: paid %d, carry %d; want %v, 0", part.name, part.paid, part.rest, want)
			}
		}
	})
}

type part struct {
	name string
	paid unit.Credits
	rest uint64
	per  int64
}

func parts(b price.Bill, c price.Carry) [3]part {
	return [3]part{
		{"energy", b.Energy, c.Energy, 1e6},
		{"rent", b.Rent, c.Rent, 1e9},
		{"erasure", b.Erasure, c.Erasure, 1e12},
	}
}

// TestCostPanicsAndKeepsTheCarry: what can't be is never half booked.
func TestCostPanicsAndKeepsTheCarry(t *testing.T) {
	tests := map[string]struct {
		cycles price.Cycles
		grid   price.GridPrice
		erased unit.Bits
		tax    price.Landauer
	}{
		"negative energy":             {cycles: price.Cycles{Energy: -1}},
		"negative time":               {cycles: price.Cycles{Time: -1}},
		"negative grid":               {grid: price.GridPrice{Factor: -1}},
		"negative bits":               {erased: -1},
		"energy overflows":            {cycles: price.Cycles{Energy: math.MaxInt64}, grid: price.GridPrice{Factor: 10 * unit.One}},
		"energy fits 64 bits, not 63": {cycles: price.Cycles{Energy: math.MaxInt64}, grid: price.GridPrice{Factor: 1_500_000}},
		"rent overflows":              {grid: price.GridPrice{Rent: unit.Wide{Hi: 1 << 40}}},
		"erasure overflows":           {erased: math.MaxInt64, tax: price.Landauer{Temperature: 26_850, Multiplier: math.MaxInt64}},
		"the sum overflows":           {cycles: price.Cycles{Energy: math.MaxInt64}, grid: price.GridPrice{Factor: unit.One, Rent: unit.Wide{Lo: 2e9}}},
		"tax below 0 K":               {tax: price.Landauer{Temperature: -273_151, Multiplier: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := price.Carry{Energy: 1, Rent: 2, Erasure: 3}
			carry := before
			defer func() {
				if recover() == nil || carry != before {
					t.Errorf("panicked: no, or carry became %+v", carry)
				}
			}()
			price.Cost(tt.cycles, tt.grid, tt.erased, tt.tax, &carry)
		})
	}
}

// TestTenThousandSmallWalletsPay is the rounding attack: 10,000 wallets of 19 us
// an epoch at 0.5 W and g = 0.1 each owe 0.95 micro-$J an epoch, and rounded down
// they would have 3.8 cores of a 50 ms epoch for nothing.
func TestTenThousandSmallWalletsPay(t *testing.T) {
	const wallets, epochs, use = 10_000, 40, 19_000
	const grid = unit.PPM(100_000)
	a := physics.NewAttributor()
	a.Grow(wallets)
	used, out := make([]unit.CoreTime, wallets), make([]unit.Microjoules, wallets)
	for i := range used {
		used[i] = use
	}
	carries, paid := make([]price.Carry, wallets), make([]price.Bill, wallets)
	burnt := unit.Microjoules(0)
	for range epochs {
		energy := unit.Microwatts(500_000).Over(wallets * use) // 9.5 uJ each
		burnt += energy
		if b := a.Split(energy, 50*time.Millisecond, 0, 0, used, out); b.Attributed != energy {
			t.Fatalf("attributed %d of %d uJ", b.Attributed, energy)
		}
		for i := range paid {
			cycles := price.Cycles{Time: used[i], Energy: out[i]}
			paid[i] = paid[i].Plus(price.Cost(cycles, price.GridPrice{Factor: grid}, 0, price.Landauer{}, &carries[i]))
		}
	}
	total := unit.Credits(0)
	for i := range paid {
		paid[i] = paid[i].Plus(carries[i].Flush())
		total += paid[i].Total()
		// 40 epochs of 0.95: 38, and at most 1 for a death and 1 for attribution.
		if p := paid[i].Total(); p < 38 || p > 39 {
			t.Fatalf("wallet %d paid %d micro-$J, owes 38", i, p)
		}
	}
	owed, _ := burnt.At(grid)
	if total < owed || total > owed+2*wallets {
		t.Errorf("%d wallets paid %d micro-$J for %d owed", wallets, total, owed)
	}
}

// TestRespawningDoesNotAvoidRemainders: a wallet that dies every epoch pays each
// remainder rounded up, so hiding below a micro-$J costs more, never less.
func TestRespawningDoesNotAvoidRemainders(t *testing.T) {
	cycles, grid := price.Cycles{Time: 1000, Energy: 1}, price.GridPrice{Factor: 100_000, Rent: nanocredits(5, 1000)}
	var kept price.Carry
	var stayed, respawned price.Bill
	for range 1000 {
		stayed = stayed.Plus(price.Cost(cycles, grid, 7, price.DefaultLandauer(), &kept))
		var fresh price.Carry
		respawned = respawned.Plus(price.Cost(cycles, grid, 7, price.DefaultLandauer(), &fresh)).Plus(fresh.Flush())
	}
	stayed = stayed.Plus(kept.Flush())
	if respawned.Energy < stayed.Energy || respawned.Rent < stayed.Rent || respawned.Erasure < stayed.Erasure {
		t.Errorf("respawning paid %+v, staying %+v", respawned, stayed)
	}
	if want := (price.Bill{Energy: 100, Rent: 1, Erasure: 1}); stayed != want {
		t.Errorf("staying paid %+v, want %+v", stayed, want)
	}
}

func TestLandauer(t *testing.T) {
	d := price.DefaultLandauer()
	if got := d.PerBit(); got != 10_000_000 {
		t.Errorf("default is %d aJ a bit, want 10 pJ", got)
	}
	if got, want := d.String(), "10.00 pJ/bit = kT ln 2 at 26.85 C times 3483132548"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// Pure physics: 2.87e-21 J at 300 K, so 1e9 times that is 2.87e-12 J.
	physics := price.Landauer{Temperature: 26_850, Multiplier: 1_000_000_000}
	if got := physics.PerBit(); got != 2_870_979 {
		t.Errorf("1e9 kT ln 2 = %d aJ, want 2870979", got)
	}
	if got := d.At(126_850).PerBit(); got != 13_333_333 {
		t.Errorf("at 400 K a bit costs %d aJ, want a third more", got)
	}
	if got := d.At(unit.AbsoluteZero - 5).PerBit(); got != 0 {
		t.Errorf("at 0 K a bit costs %d aJ", got)
	}
	if got := (price.Landauer{}).PerBit(); got != 0 {
		t.Errorf("no tax is %d aJ a bit", got)
	}
	if got := d.Per(unit.GiB.Bits()); got != 85_899 {
		t.Errorf("a gibibyte is taxed at %v, want 0.085899 J", got)
	}
}

func TestCostDoesNotAllocate(t *testing.T) {
	var carry price.Carry
	l := price.DefaultLandauer()
	if n := testing.AllocsPerRun(100, func() {
		price.Cost(price.Cycles{Time: 19_000, Energy: 9}, price.GridPrice{Factor: 100_000}, 7, l, &carry)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCost(b *testing.B) {
	var carry price.Carry
	l := price.DefaultLandauer()
	p := price.GridPrice{Factor: unit.One, Rent: nanocredits(7e6, 50e6)}
	b.ReportAllocs()
	for b.Loop() {
		price.Cost(price.Cycles{Time: 50e6, Energy: 600_000}, p, 4096*8, l, &carry)
	}
}

func ExampleCost() {
	// 50 ms of one core at 12 W, power at 1.5x, rivals bidding 4 $J per
	// core-second above their reserves, and a gibibyte freed.
	var carry price.Carry
	bill := price.Cost(
		price.Cycles{Time: 50e6, Energy: 600_000},
		price.GridPrice{Factor: 1_500_000, Rent: unit.Mul(4e6, 50e6)},
		unit.GiB.Bits(), price.DefaultLandauer(), &carry,
	)
	fmt.Println(bill.Energy, "energy +", bill.Rent, "scarcity +", bill.Erasure, "erasure =", bill.Total())
	fmt.Println("carried:", carry.Erasure, "of 1e12")
	// Output:
	// 0.9 $J energy + 0.2 $J scarcity + 0.085899 $J erasure = 1.185899 $J
	// carried: 345920000000 of 1e12
}
