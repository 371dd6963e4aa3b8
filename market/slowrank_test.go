package market

import (
	"cmp"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

func big64(v int64) *big.Int { return big.NewInt(v) }

// slowCap is what o's wallet backs at price p, in whole nanoseconds.
func slowCap(o Order, p unit.Rate) unit.CoreTime {
	if p == 0 {
		return o.Demand
	}
	most := new(big.Int).Mul(big64(int64(max(0, o.Balance))), big64(1e9))
	most.Div(most, big64(int64(p)))
	if most.Cmp(big64(int64(o.Demand))) > 0 {
		return o.Demand
	}
	return unit.CoreTime(most.Int64())
}

// slowEnergy is the energy of t at w in nanojoules.
func slowEnergy(t unit.CoreTime, w unit.Microwatts) *big.Int {
	e := new(big.Int).Mul(big64(int64(t)), big64(int64(w)))
	return e.Div(e, big64(1_000_000))
}

// slowFloor walks the circle of deposits one slice at a time. phase is where
// the rotation stands, saved what earlier epochs left over.
func slowFloor(e Epoch, orders []Order, phase *uint64, saved *unit.CoreTime) []unit.CoreTime {
	floors := make([]unit.CoreTime, len(orders))
	var wanting []int
	deposits, weighted := new(big.Int), new(big.Int)
	for i, o := range orders {
		if o.Solvent && o.Bid >= o.Reserve && slowCap(o, max(o.Reserve, min(o.Bid, 2*e.Spot))) > 0 {
			wanting = append(wanting, i)
			deposits.Add(deposits, big64(int64(o.Deposit)))
			weighted.Add(weighted, new(big.Int).Mul(big64(int64(o.Deposit)), big64(int64(o.Energy))))
		}
	}
	if deposits.Sign() == 0 || e.Floor == 0 {
		*saved = 0
		return floors
	}
	supply := int64(e.Cores)
	left := big64(1 << 62)
	if e.Watts > 0 {
		left = slowEnergy(unit.CoreTime(e.Length), e.Watts)
		if mean := new(big.Int).Div(weighted, deposits); mean.Sign() > 0 {
			most := new(big.Int).Mul(left, big64(1_000_000))
			supply = min(supply, most.Div(most, mean).Int64())
		}
	}
	*saved = min(*saved+unit.CoreTime(supply*int64(e.Floor)/1_000_000), e.Cores)
	n := min(int64(*saved)/int64(time.Millisecond), 64)
	if n == 0 {
		return floors
	}
	slice := *saved / unit.CoreTime(n)
	*saved -= slice * unit.CoreTime(n)
	slices.SortFunc(wanting, func(a, b int) int { return cmp.Compare(orders[a].ID, orders[b].ID) })
	for range n {
		at := new(big.Int).Mul(new(big.Int).SetUint64(*phase), deposits)
		at.Rsh(at, 64)
		*phase += 0x9e3779b97f4a7c15
		for _, i := range wanting {
			if at.Sub(at, big64(int64(orders[i].Deposit))); at.Sign() < 0 {
				floors[i] += slice
				break
			}
		}
	}
	for _, i := range wanting {
		o := orders[i]
		o.Demand = floors[i]
		f := slowCap(o, o.Reserve)
		if e.Watts > 0 {
			if energy := slowEnergy(f, o.Energy); energy.Cmp(left) > 0 {
				f = 0
			} else {
				left.Sub(left, energy)
			}
		}
		floors[i] = f
	}
	return floors
}

// slowAdmit checks what can be said about o alone, and reports whether it
// takes part.
func slowAdmit(t *rapid.T, e Epoch, o Order, a Allocation) bool {
	switch {
	case !o.Solvent || o.Bid < o.Reserve:
		want := Allocation{Class: Frozen, Refusal: BelowReserve}
		if !o.Solvent {
			want.Refusal = Insolvent
		}
		if a != want {
			t.Fatalf("order %d: %+v, want %+v", o.ID, a, want)
		}
		return false
	case o.Demand == 0:
		if a.Class != Idle || a.Time != 0 || a.Refusal != NoDemand {
			t.Fatalf("order %d wants nothing: %+v", o.ID, a)
		}
		return false
	}
	score := new(big.Int).SetInt64(int64(o.Bid - o.Reserve))
	if e.Unit == Watts {
		score.Mul(score, big64(1_000_000)).Div(score, big64(int64(max(o.Energy, 1))))
	}
	if want := slowBucket(unit.Rate(score.Int64())); a.Score != want {
		t.Fatalf("order %d is in bucket %d, want %d", o.ID, a.Score, want)
	}
	if min(a.Cap, o.Demand) != slowCap(o, max(o.Reserve, min(o.Bid, 2*e.Spot))) {
		t.Fatalf("order %d is capped at %d", o.ID, a.Cap)
	}
	return true
}

// slowRank checks out against what greedy filling in score order gives, with
// the marginal bucket's shares written as cumulative fractions.
func slowRank(t *rapid.T, e Epoch, granule unit.CoreTime, orders []Order, floors []unit.CoreTime, out []Allocation) {
	buckets := map[Bucket][]int{}
	wants := make([]unit.CoreTime, len(orders))
	room := e.Cores
	energy := slowEnergy(unit.CoreTime(e.Length), e.Watts)
	for i, o := range orders {
		a := out[i]
		if a.Floor != floors[i] {
			t.Fatalf("order %d has a floor of %d, want %d", i, a.Floor, floors[i])
		}
		if !slowAdmit(t, e, o, a) {
			continue
		}
		energy.Sub(energy, slowEnergy(floors[i], o.Energy))
		floors[i] = min(floors[i], o.Demand) // from here on: the part that is wanted
		wants[i] = max(floors[i], slowCap(o, max(o.Reserve, min(o.Bid, 2*e.Spot)))) - floors[i]
		room -= floors[i]
		buckets[a.Score] = append(buckets[a.Score], i)
	}
	margin := Bucket(-1)
	for _, b := range slices.Backward(slices.Sorted(maps.Keys(buckets))) {
		members := buckets[b]
		slices.SortFunc(members, func(i, j int) int { return cmp.Compare(orders[i].ID, orders[j].ID) })
		total, joules := unit.CoreTime(0), new(big.Int)
		for _, i := range members {
			total += wants[i]
			joules.Add(joules, slowEnergy(wants[i], orders[i].Energy))
		}
		fits := total <= room && (e.Watts == 0 || joules.Cmp(energy) <= 0)
		switch {
		case margin >= 0:
			for _, i := range members {
				tier := uint8(min(3, int(margin-b)/64))
				if out[i].Class != Loser || out[i].Time != floors[i] || out[i].Tier != tier || out[i].Refusal != Outbid {
					t.Fatalf("order %d is %d below the margin: %+v", i, margin-b, out[i])
				}
			}
		case fits:
			for _, i := range members {
				if out[i].Class != Served || out[i].Time != floors[i]+wants[i] {
					t.Fatalf("order %d is above the margin and wants %d: %+v", i, wants[i], out[i])
				}
			}
			room -= total
			energy.Sub(energy, joules)
		default:
			margin = b
			slowMargin(t, e, granule, orders, floors, out, members, wants, room, energy, total, joules)
		}
	}
}

// slowMargin checks the bucket in which supply runs out.
func slowMargin(t *rapid.T, e Epoch, granule unit.CoreTime, orders []Order, floors []unit.CoreTime, out []Allocation,
	members []int, wants []unit.CoreTime, room unit.CoreTime, energy *big.Int, total unit.CoreTime, joules *big.Int,
) {
	shared, want, took := unit.CoreTime(0), int64(0), new(big.Int)
	for _, i := range members {
		shared += out[i].Time - floors[i]
		want += int64(wants[i] / granule)
		took.Add(took, slowEnergy(out[i].Time-floors[i], orders[i].Energy))
	}
	left := int64(shared / granule)
	most := min(want, int64(room/granule))
	bound := e.Watts > 0 && joules.Cmp(energy) > 0
	if bound {
		if took.Cmp(energy) > 0 {
			t.Fatalf("the margin takes %v nJ of %v", took, energy)
		}
		byEnergy := new(big.Int).Mul(energy, big64(want))
		most = min(most, byEnergy.Div(byEnergy, joules).Int64())
		// The rounding of one granule a member is all that may be held back.
		if hot := int64(len(members)) * 4; left < most-hot {
			t.Fatalf("the margin of %d gets %d of %d granules that the energy allows", len(members), left, most)
		}
	}
	if left > most || !bound && left != most || shared%granule != 0 {
		t.Fatalf("the margin gets %d granules and %d ns, want %d", left, shared%granule, most)
	}
	if want == 0 {
		return
	}
	u := new(big.Int).Mul(new(big.Int).SetUint64(e.Offset), big64(want))
	u.Rsh(u, 64)
	at := func(sum int64) int64 {
		v := new(big.Int).Mul(big64(sum), big64(left))
		return v.Add(v, u).Div(v, big64(want)).Int64()
	}
	sum := int64(0)
	for _, i := range members {
		before := sum
		sum += int64(wants[i] / granule)
		have := int64((out[i].Time - floors[i]) / granule)
		if have != at(sum)-at(before) {
			t.Fatalf("order %d gets %d granules, want %d", i, have, at(sum)-at(before))
		}
		class, refusal := Margin, Rationed
		if left == 0 {
			class, refusal = Loser, Outbid
		}
		if out[i].Class != class || out[i].Refusal != refusal || out[i].Tier != 0 {
			t.Fatalf("order %d shares the margin: %+v", i, out[i])
		}
	}
}

func drawOrders(t *rapid.T) []Order {
	orders := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Order {
		o := Order{
			Bid:     unit.Rate(rapid.Int64Range(0, 64).Draw(t, "bid")) * 1_500_000,
			Reserve: unit.Rate(rapid.Int64Range(0, 8).Draw(t, "reserve")) * 3_000_000,
			Energy:  unit.Microwatts(rapid.Int64Range(1, 40).Draw(t, "e")) * 500_000,
			Demand:  unit.CoreTime(rapid.Int64Range(0, 200_000_000).Draw(t, "q")),
			Balance: unit.Credits(rapid.Int64Range(-1, 2_000_000).Draw(t, "balance")),
			Deposit: unit.Credits(rapid.Int64Range(0, 5).Draw(t, "deposit")) * 1_000_000,
			Solvent: rapid.IntRange(0, 9).Draw(t, "solvent") > 0,
		}
		if rapid.Bool().Draw(t, "rich") {
			o.Balance = 1 << 61
		}
		return o
	}), 0, 12).Draw(t, "orders")
	ids := rapid.Permutation(makeIDs(len(orders))).Draw(t, "ids")
	for i := range orders {
		orders[i].ID = ids[i]
	}
	return orders
}

func makeIDs(n int) []uint64 {
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = uint64(100 + i)
	}
	return ids
}

func TestRankAgainstReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		granule := unit.CoreTime(rapid.SampledFrom([]int64{1, 1000, 1_000_000}).Draw(t, "granule"))
		m := New(Config{Granule: granule})
		var phase uint64
		var saved unit.CoreTime
		for epoch := range rapid.IntRange(1, 4).Draw(t, "epochs") {
			e, orders := drawEpoch(t), drawOrders(t)
			if epoch == 0 {
				phase = e.Offset * 0x9e3779b97f4a7c15
			}
			out := make([]Allocation, len(orders))
			m.Rank(e, orders, out)
			slowRank(t, e, granule, orders, slowFloor(e, orders, &phase, &saved), out)
		}
	})
}

// TestFloorPassesOverNobody: where orders come by id the floor's turns are found by
// skipping, else by walking past everybody. Both give everybody the same.
func TestFloorPassesOverNobody(t *testing.T) {
	for _, n := range []int{1, stride - 1, stride, stride + 1, 500, 1000} {
		e, orders, _ := crowd(n, Cores)
		for i := range orders {
			orders[i].Deposit = unit.Credits(1 + i*i%97)
			orders[i].Solvent = i%3 > 0 || n < 3 // whole strides, too, of those who stand in nobody's way:
			if i/stride%4 == 1 {
				orders[i].Demand = 0
			}
		}
		back := slices.Clone(orders)
		slices.Reverse(back)
		skips, walks := New(Config{}), New(Config{})
		have, want := make([]Allocation, n), make([]Allocation, n)
		floors := 0
		for epoch := range 20 {
			skips.Rank(e, orders, have)
			walks.Rank(e, back, want)
			slices.Reverse(want)
			for i := range have {
				if have[i] != want[i] {
					t.Fatalf("%d orders, epoch %d, order %d: %+v, want %+v", n, epoch, i, have[i], want[i])
				}
				if have[i].Floor > 0 {
					floors++
				}
			}
		}
		if floors == 0 {
			t.Errorf("%d orders: nobody got floor", n)
		}
	}
}
