package market

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/btree"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// priced is an order in the structures that the ladder is compared with.
type priced struct {
	score unit.Rate
	slot  int32
	place int
}

type priceHeap []*priced

func (h priceHeap) Len() int           { return len(h) }
func (h priceHeap) Less(i, j int) bool { return h[i].score > h[j].score }
func (h priceHeap) Push(x any)         { panic("not used") }
func (h priceHeap) Pop() any           { panic("not used") }
func (h priceHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// scores are lognormal around 12 $J a core-second: most orders share a few
// octaves, as bids do.
func scores(n int) []unit.Rate {
	rng := rand.New(rand.NewPCG(1, 2))
	s := make([]unit.Rate, n)
	for i := range s {
		s[i] = unit.Rate(12e6 * math.Exp(rng.NormFloat64()))
	}
	return s
}

// pick is a stream of cheap pseudo-random numbers.
func pick(state *uint64) uint64 {
	*state = *state*6364136223846793005 + 1442695040888963407
	return *state >> 33
}

// timeLadder, timeHeap and timeTree re-price random orders and return ns each.
func timeLadder(n, ops int) float64 {
	rates := scores(1 << 16)
	l := NewLadder(n)
	for i := range n {
		l.Set(int32(i), BucketOf(rates[i&0xffff]), 1000)
	}
	state := uint64(1)
	start := time.Now()
	for range ops {
		r := pick(&state)
		l.Set(int32(r%uint64(n)), BucketOf(rates[(r>>7)&0xffff]), 1000)
	}
	return float64(time.Since(start)) / float64(ops)
}

func timeHeap(n, ops int) float64 {
	rates := scores(1 << 16)
	h, all := make(priceHeap, n), make([]*priced, n)
	for i := range h {
		all[i] = &priced{score: rates[i&0xffff], slot: int32(i), place: i}
		h[i] = all[i]
	}
	heap.Init(h)
	state := uint64(1)
	start := time.Now()
	for range ops {
		r := pick(&state)
		o := all[r%uint64(n)]
		o.score = rates[(r>>7)&0xffff]
		heap.Fix(h, o.place)
	}
	return float64(time.Since(start)) / float64(ops)
}

func timeTree(n, ops int) float64 {
	rates := scores(1 << 16)
	tree := btree.NewG(32, func(a, b priced) bool {
		return a.score > b.score || a.score == b.score && a.slot < b.slot
	})
	now := make([]unit.Rate, n)
	for i := range n {
		now[i] = rates[i&0xffff]
		tree.ReplaceOrInsert(priced{score: now[i], slot: int32(i)})
	}
	state := uint64(1)
	start := time.Now()
	for range ops {
		r := pick(&state)
		slot := r % uint64(n)
		tree.Delete(priced{score: now[slot], slot: int32(slot)})
		now[slot] = rates[(r>>7)&0xffff]
		tree.ReplaceOrInsert(priced{score: now[slot], slot: int32(slot)})
	}
	return float64(time.Since(start)) / float64(ops)
}

// BenchmarkReprice compares re-pricing one of n orders with container/heap's
// Fix and a B-tree's delete and insert, interleaved in the same run.
func BenchmarkReprice(b *testing.B) {
	for _, n := range []int{1e4, 1e5, 1e6} {
		b.Run(fmt.Sprintf("orders=%d", n), func(b *testing.B) {
			const ops = 200_000
			best := [3]float64{math.Inf(1), math.Inf(1), math.Inf(1)}
			for b.Loop() {
				for i, run := range []func(n, ops int) float64{timeLadder, timeHeap, timeTree} {
					best[i] = min(best[i], run(n, ops))
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(best[0], "ladder-ns")
			b.ReportMetric(best[1], "heap-ns")
			b.ReportMetric(best[2], "btree-ns")
			b.ReportMetric(best[1]/best[0], "heap/ladder")
			b.ReportMetric(best[2]/best[0], "btree/ladder")
		})
	}
}

// BenchmarkLadderSet is the re-price alone, for allocations and profiles.
func BenchmarkLadderSet(b *testing.B) {
	for _, n := range []int{1e4, 1e5, 1e6} {
		b.Run(fmt.Sprintf("orders=%d", n), func(b *testing.B) {
			rates := scores(1 << 16)
			l := NewLadder(n)
			for i := range n {
				l.Set(int32(i), BucketOf(rates[i&0xffff]), 1000)
			}
			state := uint64(1)
			b.ReportAllocs()
			for b.Loop() {
				r := pick(&state)
				l.Set(int32(r%uint64(n)), BucketOf(rates[(r>>7)&0xffff]), 1000)
			}
		})
	}
}

// crowd is a market of n bidders on two cores, a tenth of them tied at the
// margin, as they stand before and after an epoch.
func crowd(n int, sold Unit) (Epoch, []Order, []Use) {
	rates := scores(n)
	e := epoch50(max(2, n/4), 12345)
	if sold == Watts {
		e.Unit, e.Watts = Watts, unit.Microwatts(n/4)*10_000_000
	}
	orders, uses := make([]Order, n), make([]Use, n)
	for i := range orders {
		reserve := unit.Rate(9_000_000 + 1_000_000*(i%7))
		orders[i] = Order{
			ID: uint64(i), Bid: reserve + rates[i], Reserve: reserve, Energy: unit.Microwatts(reserve),
			Demand: 50*ms - unit.CoreTime(i%1000)*1000, Balance: rich, Deposit: dollarJ, Solvent: true,
		}
		if i%10 == 0 {
			orders[i].Bid = reserve + 15_000_000
		}
	}
	m, out := New(Config{}), make([]Allocation, n)
	m.Rank(e, orders, out)
	for i, a := range out {
		uses[i] = Use{
			ID: uint64(i), Score: a.Score, Energy: orders[i].Energy,
			Demand: orders[i].Demand, Used: a.Time, Floor: a.Floor,
		}
	}
	return e, orders, uses
}

// timeSort is what sorting the bidders alone takes, the least that a clearing
// without a ladder begins with.
func timeSort(orders []Order, index []int32) time.Duration {
	for i := range index {
		index[i] = int32(i)
	}
	start := time.Now()
	slices.SortFunc(index, func(a, b int32) int {
		x, y := &orders[a], &orders[b]
		return cmp.Compare(y.Bid-y.Reserve, x.Bid-x.Reserve)
	})
	return time.Since(start)
}

// BenchmarkClear is one whole epoch: rank all, then price all exactly.
func BenchmarkClear(b *testing.B) {
	for _, sold := range []Unit{Cores, Watts} {
		for _, n := range []int{1e2, 1e3, 1e4, 1e5} {
			b.Run(fmt.Sprintf("%v/bidders=%d", sold, n), func(b *testing.B) {
				e, orders, uses := crowd(n, sold)
				m, out, rents := New(Config{}), make([]Allocation, n), make([]unit.Wide, n)
				m.Rank(e, orders, out)
				m.Price(e, uses, rents)
				b.ReportAllocs()
				best, ranked := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
				sorted, index := time.Duration(math.MaxInt64), make([]int32, n)
				for range 5 {
					sorted = min(sorted, timeSort(orders, index))
				}
				for b.Loop() {
					start := time.Now()
					m.Rank(e, orders, out)
					half := time.Since(start)
					m.Price(e, uses, rents)
					best, ranked = min(best, time.Since(start)), min(ranked, half)
				}
				b.ReportMetric(float64(best)/1000, "best-us")
				b.ReportMetric(float64(ranked)/1000, "best-rank-us")
				b.ReportMetric(float64(best)/float64(n), "best-ns/bidder")
				b.ReportMetric(float64(sorted)/float64(best), "sort-alone/clear")
			})
		}
	}
}

// TestNoAllocations: a steady market allocates nothing, sorted or not.
func TestNoAllocations(t *testing.T) {
	for _, sold := range []Unit{Cores, Watts} {
		for _, shuffled := range []bool{false, true} {
			e, orders, uses := crowd(500, sold)
			if shuffled {
				rng := rand.New(rand.NewPCG(3, 3))
				rng.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
			}
			m, out, rents := New(Config{}), make([]Allocation, len(orders)), make([]unit.Wide, len(uses))
			m.Rank(e, orders, out)
			if have := testing.AllocsPerRun(20, func() {
				m.Rank(e, orders, out)
				m.Price(e, uses, rents)
			}); have != 0 {
				t.Errorf("%v, shuffled %v: %v allocations an epoch", sold, shuffled, have)
			}
		}
	}
	l := NewLadder(1000)
	slot := int32(0)
	if have := testing.AllocsPerRun(100, func() {
		slot = (slot + 7) % 1000
		l.Set(slot, Bucket(slot), 5)
		l.Set(slot, Bucket(slot)+1, 5)
		l.Remove(slot - 3)
	}); have != 0 {
		t.Errorf("%v allocations a re-price", have)
	}
}
