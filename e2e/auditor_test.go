package e2e

import (
	"bufio"
	"cmp"
	"encoding/json"
	"math/big"
	"os"
	"slices"
	"testing"
)

// The auditor is a second program for the bills: it reads what was metered
// from a trace and computes every bill again, slowly, in exact fractions, from
// the words of the manual. It shares no code with the market.

// round is one epoch of a trace.
type round struct {
	Epoch   uint64  `json:"epoch"`
	Length  int64   `json:"length_ns"`
	Supply  int64   `json:"supply_ns"`
	Watts   int64   `json:"watts_uw"`
	Unit    string  `json:"unit"`
	Grid    int64   `json:"grid_ppm"`
	Base    int64   `json:"base_ucredits_per_core_s"`
	Spot    int64   `json:"spot_ucredits_per_core_s"`
	Node    int64   `json:"node_uj"`
	System  int64   `json:"system_uj"`
	Idle    int64   `json:"idle_uj"`
	Lost    int64   `json:"unattributed_uj"`
	Buyers  []buyer `json:"wallets"`
	inWatts bool
}

// buyer is one wallet in one epoch.
type buyer struct {
	Name    string `json:"name"`
	ID      uint64 `json:"id"`
	Bid     int64  `json:"bid_ucredits_per_core_s"`
	Reserve int64  `json:"reserve_ucredits_per_core_s"`
	Watts   int64  `json:"watts_uw"`
	Bucket  int64  `json:"score_bucket"`
	Demand  int64  `json:"demand_ns"`
	Cap     int64  `json:"cap_ns"`
	Used    int64  `json:"used_ns"`
	Floor   int64  `json:"floor_ns"`
	Joules  int64  `json:"energy_uj"`
	Energy  int64  `json:"energy_ucredits"`
	Rent    int64  `json:"rent_ucredits"`
	Erasure int64  `json:"erasure_ucredits"`
}

func readTrace(t testing.TB, file string) []round {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	var rounds []round
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var r round
		must(t, json.Unmarshal(lines.Bytes(), &r))
		r.inWatts = r.Unit == "watts"
		rounds = append(rounds, r)
	}
	must(t, lines.Err())
	return rounds
}

// wanted is what others are priced against: the demand that the wallet's money
// backed, and at least what it used.
func (b *buyer) wanted() int64 { return max(b.Used, min(b.Demand, b.Cap)) }

// free is the part of its use that was floor: the first of it, without rent.
func (b *buyer) free() int64 { return min(b.Used, b.Floor) }

// amount is core time in what the epoch sold: nanoseconds, or nanojoules at
// the buyer's own watts.
func (r *round) amount(ns int64, b *buyer) *big.Rat {
	if !r.inWatts {
		return ratio(ns, 1)
	}
	return new(big.Rat).Mul(ratio(ns, 1), ratio(b.Watts, 1_000_000))
}

// fits says whether everybody could have had everything.
func (r *round) fits() bool {
	var time int64
	energy := new(big.Rat)
	for i := range r.Buyers {
		b := &r.Buyers[i]
		time += b.wanted()
		energy.Add(energy, new(big.Rat).Mul(ratio(b.wanted(), 1), ratio(b.Watts, 1_000_000)))
	}
	return time <= r.Supply && (r.Watts == 0 || energy.Cmp(r.allowance()) <= 0)
}

// allowance is the energy that the epoch could sell, in nanojoules.
func (r *round) allowance() *big.Rat {
	return new(big.Rat).Mul(ratio(r.Length, 1), ratio(r.Watts, 1_000_000))
}

// sold is what was sold above the floor: the supply, or what was used of it.
func (r *round) sold() *big.Rat {
	supply := ratio(r.Supply, 1)
	if r.inWatts {
		supply = r.allowance()
	}
	used := new(big.Rat)
	for i := range r.Buyers {
		b := &r.Buyers[i]
		supply.Sub(supply, r.amount(b.free(), b))
		used.Add(used, r.amount(b.Used-b.free(), b))
	}
	if supply.Sign() < 0 {
		supply.SetInt64(0)
	}
	if used.Cmp(supply) < 0 {
		return used
	}
	return supply
}

// line is what the others wanted above their floors, best score first.
type line []step

type step struct {
	bucket int64
	amount *big.Rat
}

// without is the line of everybody but one; of everybody if that one is nil.
func (r *round) without(out *buyer) line {
	var l line
	for i := range r.Buyers {
		if b := &r.Buyers[i]; b != out {
			l = append(l, step{b.Bucket, r.amount(b.wanted()-b.free(), b)})
		}
	}
	slices.SortStableFunc(l, func(a, b step) int { return cmp.Compare(b.bucket, a.bucket) })
	return l
}

// area is what the units from one place in the line to another were worth to
// those who stand there. Behind the last they are worth nothing.
func (l line) area(from, to *big.Rat) *big.Rat {
	sum, at := new(big.Rat), new(big.Rat)
	for _, s := range l {
		end := new(big.Rat).Add(at, s.amount)
		if width := new(big.Rat).Sub(least(end, to), most(at, from)); width.Sign() > 0 {
			sum.Add(sum, width.Mul(width, new(big.Rat).SetInt(scoreOf(s.bucket))))
		}
		at = end
	}
	return sum
}

// at is the bucket of whoever stands at a place in the line; 0 behind the last.
func (l line) at(place *big.Rat) int64 {
	end := new(big.Rat)
	for _, s := range l {
		if end.Add(end, s.amount); place.Cmp(end) < 0 {
			return s.bucket
		}
	}
	return 0
}

// rent is what one buyer owes above its energy, in micro-$J: the area under
// the others' line over the last units sold, as many as it used, and at most
// its own score for each.
func (r *round) rent(b *buyer) *big.Rat {
	used := r.amount(b.Used-b.free(), b)
	if r.fits() || used.Sign() == 0 {
		return new(big.Rat)
	}
	sold := r.sold()
	from := new(big.Rat).Sub(sold, used)
	if from.Sign() < 0 {
		from.SetInt64(0)
	}
	owed := r.without(b).area(from, sold)
	owed = least(owed, new(big.Rat).Mul(used, new(big.Rat).SetInt(scoreOf(b.Bucket))))
	return new(big.Rat).Mul(owed, ratio(1, 1_000_000_000))
}

// scoreOf is the least score of a bucket: 64 of them an octave, ceil(2^(n+k/64))
// for bucket 64(n+1)+k. The 64th root is six square roots, each rounded up.
func scoreOf(bucket int64) *big.Int {
	if bucket < 64 {
		return new(big.Int)
	}
	v := new(big.Int).Lsh(big.NewInt(1), uint(bucket-64))
	for range 6 {
		root := new(big.Int).Sqrt(v)
		if new(big.Int).Mul(root, root).Cmp(v) < 0 {
			root.Add(root, big.NewInt(1))
		}
		v = root
	}
	return v
}

func ratio(a, b int64) *big.Rat { return big.NewRat(a, b) }

func least(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

func most(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) > 0 {
		return a
	}
	return b
}

// off is how far a number of a trace is from the exact one.
func off(got int64, exact *big.Rat) float64 {
	d, _ := new(big.Rat).Sub(ratio(got, 1), exact).Float64()
	return max(d, -d)
}

// ceil is the least whole number that is not below v.
func ceil(v *big.Rat) int64 {
	q, rest := new(big.Int).DivMod(v.Num(), v.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return q.Int64()
}
