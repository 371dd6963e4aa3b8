package unit_test

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// amounts draws non-negative int64, small ones and extremes included.
var amounts = rapid.OneOf(
	rapid.Int64Range(0, 1000),
	rapid.Int64Range(0, math.MaxInt64),
	rapid.SampledFrom([]int64{0, 1, math.MaxInt32, math.MaxInt64 - 1, math.MaxInt64}),
)

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func TestMulDivAgainstBig(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := amounts.Draw(t, "a"), amounts.Draw(t, "b")
		c := max(1, amounts.Draw(t, "c"))
		q, r := new(big.Int).QuoRem(new(big.Int).Mul(big.NewInt(a), big.NewInt(b)), big.NewInt(c), new(big.Int))
		if !q.IsInt64() {
			if !panics(func() { unit.MulDiv(a, b, c) }) || !panics(func() { unit.MulDivCeil(a, b, c) }) {
				t.Fatalf("%d * %d / %d did not panic", a, b, c)
			}
			if got := unit.MulDivSat(a, b, c); got != math.MaxInt64 {
				t.Fatalf("saturated %d * %d / %d = %d", a, b, c, got)
			}
			return
		}
		gotQ, gotR := unit.MulDivRem(a, b, c)
		if gotQ != q.Int64() || gotR != r.Int64() || unit.MulDiv(a, b, c) != gotQ || unit.MulDivSat(a, b, c) != gotQ {
			t.Fatalf("%d * %d / %d = %d rest %d, want %v rest %v", a, b, c, gotQ, gotR, q, r)
		}
		if gotR != 0 && gotQ == math.MaxInt64 {
			return // the ceiling is one too many: tested below
		}
		if got, want := unit.MulDivCeil(a, b, c), gotQ+min(1, gotR); got != want {
			t.Fatalf("ceil(%d * %d / %d) = %d, want %d", a, b, c, got, want)
		}
	})
}

func TestMulDivPanicsWithNumbers(t *testing.T) {
	for _, tt := range [][3]int64{
		{-1, 2, 3}, {1, -2, 3}, {1, 2, 0}, {1, 2, -3}, {math.MinInt64, 0, 1}, {math.MaxInt64, 2, 1},
	} {
		if !panics(func() { unit.MulDiv(tt[0], tt[1], tt[2]) }) {
			t.Errorf("MulDiv%v did not panic", tt)
		}
	}
	// (2^32-1)(2^32+1) = 2^64-1, half of which is the greatest int64 and a half.
	const a, b = 1<<32 - 1, 1<<32 + 1
	if got := unit.MulDiv(a, b, 2); got != math.MaxInt64 {
		t.Errorf("floor of the greatest int64 and a half is %d", got)
	}
	if !panics(func() { unit.MulDivCeil(a, b, 2) }) {
		t.Error("a ceiling above int64 did not panic")
	}
}

func TestConversions(t *testing.T) {
	if c, rest := unit.Microjoules(95).At(100_000); c != 9 || rest != 500_000 {
		t.Errorf("95 uJ at 0.1x = %d rest %d, want 9 rest 500000", c, rest)
	}
	if c, rest := unit.Microjoules(math.MaxInt64).At(0); c != 0 || rest != 0 {
		t.Errorf("energy at a price of zero = %d rest %d", c, rest)
	}
	for _, tt := range []struct {
		name      string
		got, want int64
	}{
		{"12 W over 50 core-ms", int64((12 * unit.Watt).Over(50e6)), 600_000},
		{"0.5 W over 19 core-us", int64(unit.Microwatts(500_000).Over(19_000)), 9},
		{"2 % of 101", unit.PPM(20_000).Of(101), 2},
		{"1.5 cores in 50 ms", int64(unit.MilliCores(1500).In(50 * time.Millisecond)), 75e6},
		{"bits of a gibibyte", int64(unit.GiB.Bits()), 1 << 33},
		{"between instants", int64(unit.Instant(70).Sub(50)), 20},
		{"after an instant", int64(unit.Instant(50).Add(-20)), 30},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
	if !panics(func() { unit.Bytes(math.MaxInt64).Bits() }) {
		t.Error("the bits of 8 EiB fit an int64")
	}
}

func wide(w unit.Wide) *big.Int {
	hi := new(big.Int).Lsh(new(big.Int).SetUint64(w.Hi), 64)
	return hi.Add(hi, new(big.Int).SetUint64(w.Lo))
}

func TestWideAgainstBig(t *testing.T) {
	words := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 1e18, math.MaxUint64}))
	limit := new(big.Int).Lsh(big.NewInt(1), 128)
	rapid.Check(t, func(t *rapid.T) {
		w := unit.Wide{Hi: words.Draw(t, "hi"), Lo: words.Draw(t, "lo")}
		v := unit.Wide{Hi: words.Draw(t, "vhi"), Lo: words.Draw(t, "vlo")}
		a, b, d := words.Draw(t, "a"), words.Draw(t, "b"), max(1, words.Draw(t, "d"))
		check := func(name string, want *big.Int, got func() unit.Wide) {
			if want.Sign() < 0 || want.Cmp(limit) >= 0 {
				if !panics(func() { got() }) {
					t.Fatalf("%s = %v did not panic", name, want)
				}
			} else if g := wide(got()); g.Cmp(want) != 0 {
				t.Fatalf("%s = %v, want %v", name, g, want)
			}
		}
		check("add", new(big.Int).Add(wide(w), wide(v)), func() unit.Wide { return w.Add(v) })
		check("sub", new(big.Int).Sub(wide(w), wide(v)), func() unit.Wide { return w.Sub(v) })
		ab := new(big.Int).Mul(new(big.Int).SetUint64(a), new(big.Int).SetUint64(b))
		check("addmul", ab.Add(ab, wide(w)), func() unit.Wide { return w.AddMul(a, b) })
		q, r := w.DivRem(d)
		wantQ, wantR := new(big.Int).QuoRem(wide(w), new(big.Int).SetUint64(d), new(big.Int))
		if wide(q).Cmp(wantQ) != 0 || r != wantR.Uint64() {
			t.Fatalf("%v / %d = %v rest %d, want %v rest %v", w, d, q, r, wantQ, wantR)
		}
		if got, want := w.Cmp(v), wide(w).Cmp(wide(v)); got != want {
			t.Fatalf("%v cmp %v = %d, want %d", w, v, got, want)
		}
		if got, want := w.String(), wide(w).String(); got != want {
			t.Fatalf("%#v = %q, want %q", w, got, want)
		}
		if got, ok := w.Uint64(); ok != (w.Hi == 0) || got != w.Lo || w.IsZero() != (wide(w).Sign() == 0) {
			t.Fatalf("%v as uint64 = %d, %v", w, got, ok)
		}
	})
	if !panics(func() { unit.Wide{}.DivRem(0) }) {
		t.Error("division by 0 did not panic")
	}
}

// largestRemainder is Apportion said slowly: exact rationals and a sort.
func largestRemainder(total int64, weights []int64, carry []*big.Rat) []int64 {
	sum := new(big.Int)
	for _, w := range weights {
		sum.Add(sum, big.NewInt(w))
	}
	out := make([]int64, len(weights))
	if sum.Sign() == 0 {
		return out
	}
	left := total
	var order []int
	rest := make([]*big.Rat, len(weights))
	for i, w := range weights {
		q, r := new(big.Int).QuoRem(new(big.Int).Mul(big.NewInt(total), big.NewInt(w)), sum, new(big.Int))
		out[i] = q.Int64()
		left -= out[i]
		rest[i] = new(big.Rat).Add(carry[i], new(big.Rat).SetFrac(r, sum))
		if w > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return rest[j].Cmp(rest[i]) })
	for _, i := range order[:left] {
		out[i]++
	}
	return out
}

func TestApportionAgainstRationals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.OneOf(
			rapid.Int64Range(0, 5), rapid.Int64Range(0, math.MaxInt64/64),
		), 0, 60).Draw(t, "weights")
		total := amounts.Draw(t, "total")
		zero := make([]*big.Rat, len(weights))
		for i := range zero {
			zero[i] = new(big.Rat)
		}
		out := make([]int64, len(weights))
		ok := unit.Apportion(total, weights, nil, out)
		if want := largestRemainder(total, weights, zero); !slices.Equal(out, want) {
			t.Fatalf("%d over %v = %v, want %v", total, weights, out, want)
		}
		checkParts(t, total, weights, out, ok)
	})
}

func checkParts(t *rapid.T, total int64, weights, out []int64, ok bool) {
	sum, got := new(big.Int), int64(0)
	for i, w := range weights {
		sum.Add(sum, big.NewInt(w))
		got += out[i]
		if w == 0 && out[i] != 0 {
			t.Fatalf("index %d has weight 0 and received %d", i, out[i])
		}
	}
	if ok != (sum.Sign() > 0) {
		t.Fatalf("apportion over %v reported %v", weights, ok)
	}
	if want := total; ok && got != want || !ok && got != 0 {
		t.Fatalf("%d over %v came to %d", total, weights, got)
	}
}

// TestApportionCarries checks many rounds: exact sums, carries that sum to
// zero, and nobody ever further than a few units from the exact running share.
func TestApportionCarries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		carry, out := make([]int64, n), make([]int64, n)
		owed := make([]*big.Rat, n)
		for i := range owed {
			owed[i] = new(big.Rat)
		}
		for range rapid.IntRange(1, 60).Draw(t, "rounds") {
			weights := rapid.SliceOfN(rapid.Int64Range(0, 9), n, n).Draw(t, "weights")
			total := rapid.Int64Range(0, 40).Draw(t, "total")
			ok := unit.Apportion(total, weights, carry, out)
			checkParts(t, total, weights, out, ok)
			if !ok {
				continue
			}
			sum, carried := int64(0), int64(0)
			for i := range n {
				sum += weights[i]
				carried += carry[i]
			}
			if carried != 0 {
				t.Fatalf("carries %v sum to %d", carry, carried)
			}
			for i := range n {
				owed[i].Add(owed[i], big.NewRat(total*weights[i], sum))
				owed[i].Sub(owed[i], big.NewRat(out[i], 1))
				exact, _ := owed[i].Float64()
				if drift := exact - float64(carry[i])/unit.CarryUnit; math.Abs(drift) > 1e-6 {
					t.Fatalf("index %d is owed %v, carry says %d", i, owed[i], carry[i])
				}
				if math.Abs(exact) > 4 {
					t.Fatalf("index %d is %v units from its share", i, exact)
				}
			}
		}
	})
}

// TestApportionShortsNobody is the rounding attack of a fixed tie order: equal
// weights, one unit short every round. Each index loses its turn equally often.
func TestApportionShortsNobody(t *testing.T) {
	const n, rounds = 7, 7000
	weights, carry, out := make([]int64, n), make([]int64, n), make([]int64, n)
	for i := range weights {
		weights[i] = 3
	}
	totals := make([]int64, n)
	for range rounds {
		unit.Apportion(n-1, weights, carry, out)
		for i, v := range out {
			totals[i] += v
		}
	}
	for i, v := range totals {
		if v < rounds/n*(n-1)-1 || v > rounds/n*(n-1)+1 {
			t.Errorf("index %d received %d of %d units", i, v, rounds*(n-1))
		}
	}
}

func TestApportionPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"negative total":  func() { unit.Apportion(-1, []int64{1}, nil, []int64{0}) },
		"negative weight": func() { unit.Apportion(1, []int64{-1}, nil, []int64{0}) },
		"sum of weights":  func() { unit.Apportion(1, []int64{math.MaxInt64, 1}, nil, []int64{0, 0}) },
		"short out":       func() { unit.Apportion(1, []int64{1, 1}, nil, []int64{0}) },
		"short carry":     func() { unit.Apportion(1, []int64{1, 1}, []int64{0}, []int64{0, 0}) },
	} {
		if !panics(f) {
			t.Errorf("%s did not panic", name)
		}
	}
}

func BenchmarkApportion(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		weights, carry, out := make([]int64, n), make([]int64, n), make([]int64, n)
		for i := range weights {
			weights[i] = int64(i*7919%100_003 + 1)
		}
		b.Run(fmt.Sprintf("weights=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				unit.Apportion(600_000_000, weights, carry, out)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/weight")
		})
	}
}
