package market

import (
	"cmp"
	"maps"
	"math"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The second implementation: slow, obvious, sharing nothing with the first but
// the types and Bucket.Floor. Prices are read off a list that has one entry
// for every unit of demand; shares are fractions.

// step is the unit of the slow price list. The markets drawn for it use whole
// steps and whole watts, so that a step is a whole number of nanojoules too.
const step = 500 * time.Microsecond

// slowPrice prices uses by writing out, for every one of them, the sorted list
// of everything the others wanted.
func slowPrice(e Epoch, uses []Use) ([]*big.Int, Outcome) {
	size := func(u Use) int64 { // units of the commodity in a step
		if e.Unit == Watts {
			return int64(u.Energy) / 1_000_000
		}
		return 1
	}
	floorOf := func(u Use) int64 { return min(int64(u.Used), int64(u.Floor)) / int64(step) }
	var demand, used, floors, market, energy int64
	for _, u := range uses {
		demand += int64(u.Demand)
		used += int64(u.Used)
		floors += floorOf(u) * size(u)
		market += (int64(u.Used)/int64(step) - floorOf(u)) * size(u)
		energy += int64(u.Demand) / int64(step) * int64(u.Energy) / 1_000_000
	}
	allowed := int64(e.Length) / int64(step) * int64(e.Watts) / 1_000_000
	supply := int64(e.Cores) / int64(step)
	if e.Unit == Watts {
		supply = allowed
	}
	fits := demand <= int64(e.Cores) && (e.Watts == 0 || energy <= allowed)
	sold := max(0, supply-floors)
	if !fits {
		sold = min(sold, market)
	}
	list := func(skip int) (prices []Bucket) {
		for i, u := range uses {
			if i == skip {
				continue
			}
			for range (int64(u.Demand)/int64(step) - floorOf(u)) * size(u) {
				prices = append(prices, u.Score)
			}
		}
		slices.SortFunc(prices, func(a, b Bucket) int { return cmp.Compare(b, a) })
		return prices
	}
	// A unit of the commodity is a step of core time (ns) or a step at 1 W (nJ).
	worth := int64(step)
	if e.Unit == Watts {
		worth = int64(step) * 1_000_000 / 1_000_000
	}
	rents := make([]*big.Int, len(uses))
	for i, u := range uses {
		rents[i] = new(big.Int)
		x := (int64(u.Used)/int64(step) - floorOf(u)) * size(u)
		if fits {
			continue
		}
		prices := list(i)
		for at := max(0, sold-x); at < sold; at++ {
			if at < int64(len(prices)) {
				rents[i].Add(rents[i], big.NewInt(int64(prices[at].Floor())))
			}
		}
		if most := new(big.Int).Mul(big.NewInt(int64(u.Score.Floor())), big.NewInt(x)); rents[i].Cmp(most) > 0 {
			rents[i] = most
		}
		rents[i].Mul(rents[i], big.NewInt(worth))
	}
	out := Outcome{Demand: unit.CoreTime(demand), Used: unit.CoreTime(used)}
	if prices := list(-1); !fits && sold < int64(len(prices)) {
		out.Marginal = prices[sold]
	}
	above := big.NewInt(int64(out.Marginal.Floor()))
	if e.Unit == Watts && demand > 0 {
		mean := energy * int64(step) * 1_000_000 / demand // uW; a step at 1 W is step nJ
		above.Mul(above, big.NewInt(mean)).Div(above, big.NewInt(1_000_000))
	}
	out.Spot = math.MaxInt64
	if above.Add(above, big.NewInt(int64(e.Base))); above.IsInt64() {
		out.Spot = unit.Rate(above.Int64())
	}
	out.Misdelivered = slowMisdelivered(uses)
	return rents, out
}

// slowMisdelivered hands the steps that were used to the demand in score
// order, one by one, and counts what each bucket had beyond that.
func slowMisdelivered(uses []Use) (wrong unit.CoreTime) {
	wanted, used := map[Bucket]int64{}, map[Bucket]int64{}
	total := int64(0)
	for _, u := range uses {
		floor := min(u.Used, u.Floor)
		wanted[u.Score] += int64((u.Demand - floor) / unit.CoreTime(step))
		used[u.Score] += int64((u.Used - floor) / unit.CoreTime(step))
		total += int64((u.Used - floor) / unit.CoreTime(step))
	}
	due := map[Bucket]int64{}
	for _, b := range slices.Backward(slices.Sorted(maps.Keys(wanted))) {
		for range wanted[b] {
			if total > 0 {
				due[b]++
				total--
			}
		}
	}
	for b := range used {
		wrong += unit.CoreTime(max(0, used[b]-due[b])) * unit.CoreTime(step)
	}
	return wrong
}

func drawEpoch(t *rapid.T) Epoch {
	e := Epoch{
		Length: 50 * time.Millisecond,
		Cores:  unit.CoreTime(rapid.Int64Range(0, 60).Draw(t, "supply")) * unit.CoreTime(step),
		Spot:   unit.Rate(rapid.Int64Range(0, 60_000_000).Draw(t, "spot")),
		Base:   12_000_000,
		Floor:  unit.PPM(rapid.SampledFrom([]int64{0, 20_000, 200_000}).Draw(t, "floor")),
		Offset: rapid.Uint64().Draw(t, "offset"),
	}
	if rapid.Bool().Draw(t, "limited") {
		e.Watts = unit.Microwatts(rapid.Int64Range(1, 3).Draw(t, "watts")) * 1_000_000
		e.Unit = Unit(rapid.IntRange(0, 1).Draw(t, "unit"))
	}
	return e
}

func drawUses(t *rapid.T) []Use {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Use {
		u := Use{
			Score:  Bucket(rapid.SampledFrom([]int{0, 64, 1400, 1401, 1402, 1500, 1600, 4095}).Draw(t, "score")),
			Energy: unit.Microwatts(rapid.Int64Range(1, 4).Draw(t, "e")) * 1_000_000,
			Demand: unit.CoreTime(rapid.Int64Range(0, 30).Draw(t, "q")) * unit.CoreTime(step),
		}
		u.Used = unit.CoreTime(rapid.Int64Range(0, int64(u.Demand)/int64(step)).Draw(t, "x")) * unit.CoreTime(step)
		if rapid.IntRange(0, 3).Draw(t, "has floor") == 0 {
			u.Floor = unit.CoreTime(rapid.Int64Range(0, 6).Draw(t, "floor")) * unit.CoreTime(step)
		}
		return u
	}), 0, 8).Draw(t, "uses")
}

func TestPriceAgainstReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m, e, uses := New(Config{}), drawEpoch(t), drawUses(t)
		before := drawUses(t) // an earlier epoch must leave nothing behind
		m.Price(e, before, make([]unit.Wide, len(before)))
		rents := make([]unit.Wide, len(uses))
		have := m.Price(e, uses, rents)
		wantRents, want := slowPrice(e, uses)
		for i := range rents {
			if rents[i].String() != wantRents[i].String() {
				t.Fatalf("use %d owes %v, want %v\nepoch %+v\nuses %+v", i, rents[i], wantRents[i], e, uses)
			}
		}
		if have != want {
			t.Fatalf("outcome %+v, want %+v", have, want)
		}
	})
}
