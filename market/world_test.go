package market

import (
	"math/big"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// player is a wallet with what nobody else knows about it.
type player struct {
	Order
	wants unit.CoreTime // in the coming epoch, whatever was forecast
	value unit.Rate     // what a core-second is worth to it
}

// played is one round of the whole mechanism.
type played struct {
	allocs []Allocation
	uses   []Use
	rents  []unit.Wide
	out    Outcome
}

// honest bids its value and forecasts what it will want.
func honest(id uint64, value, reserve unit.Rate, watts unit.Microwatts, wants unit.CoreTime) player {
	return player{
		Order: Order{
			ID: id, Bid: value, Reserve: reserve, Energy: watts, Demand: wants,
			Balance: rich, Deposit: 1_000_000, Solvent: true,
		},
		wants: wants, value: value,
	}
}

const rich = unit.Credits(1) << 61

// anew is m with its history forgotten: cheaper than a new one.
func (m *Market) anew() *Market {
	m.floor = rotation{}
	return m
}

// play ranks, delivers ideally and prices.
func play(m *Market, e Epoch, players []player) played {
	p := rankOnly(m, e, players)
	return p.settle(m, e, players, ideal(e, players, p.allocs))
}

func rankOnly(m *Market, e Epoch, players []player) played {
	orders := make([]Order, len(players))
	for i := range players {
		orders[i] = players[i].Order
	}
	p := played{allocs: make([]Allocation, len(players))}
	m.Rank(e, orders, p.allocs)
	return p
}

// settle prices what was used.
func (p played) settle(m *Market, e Epoch, players []player, used []unit.CoreTime) played {
	p.uses = make([]Use, len(players))
	for i := range players {
		a := p.allocs[i]
		p.uses[i] = Use{
			ID: players[i].ID, Score: a.Score, Energy: players[i].Energy,
			Demand: max(min(players[i].wants, a.Cap), used[i]), Used: used[i], Floor: a.Floor,
		}
	}
	p.rents = make([]unit.Wide, len(players))
	p.out = m.Price(e, p.uses, p.rents)
	return p
}

// ideal is what a kernel delivers that keeps to the ranking and wastes
// nothing: the floor first, then by score, equal scores pro rata of what they
// want.
func ideal(e Epoch, players []player, allocs []Allocation) []unit.CoreTime {
	used := make([]unit.CoreTime, len(players))
	want := make([]unit.CoreTime, len(players))
	room, energy := e.Cores, e.allowance()
	var scores []Bucket
	for i, a := range allocs {
		most := min(players[i].wants, a.Cap)
		used[i] = min(a.Floor, most)
		want[i] = most - used[i]
		room -= used[i]
		if energy != huge {
			energy -= energyOf(used[i], players[i].Energy)
		}
		scores = append(scores, a.Score)
	}
	slices.Sort(scores)
	for _, b := range slices.Backward(slices.Compact(scores)) {
		fillBucket(b, players, allocs, want, used, &room, &energy)
	}
	return used
}

// fillBucket serves one bucket from what is left.
func fillBucket(b Bucket, players []player, allocs []Allocation, want, used []unit.CoreTime, room *unit.CoreTime, energy *int64) {
	var total unit.CoreTime
	var joules int64
	for i := range players {
		if allocs[i].Score == b && want[i] > 0 {
			total += want[i]
			joules += energyOf(want[i], players[i].Energy)
		}
	}
	if total == 0 {
		return
	}
	sold := min(total, *room)
	if *energy != huge && joules > *energy {
		sold = min(sold, unit.CoreTime(unit.MulDiv(int64(total), *energy, joules)))
	}
	sum, given := unit.CoreTime(0), unit.CoreTime(0)
	for i := range players {
		if allocs[i].Score != b || want[i] == 0 {
			continue
		}
		sum += want[i]
		upTo := unit.CoreTime(unit.MulDiv(int64(sum), int64(sold), int64(total)))
		used[i] += upTo - given
		if *energy != huge {
			*energy -= min(*energy, energyOf(upTo-given, players[i].Energy))
		}
		given = upTo
	}
	*room -= given
}

// utility of player i in nanocredits: the worth of what it could use, less
// energy in full and rent.
func (p played) utility(i int, truth player) *big.Int {
	used := p.uses[i].Used
	u := mul(truth.value, min(used, truth.wants))
	u.Sub(u, mul(truth.Reserve, used))
	rent, _ := new(big.Int).SetString(p.rents[i].String(), 10)
	return u.Sub(u, rent)
}

func mul(r unit.Rate, t unit.CoreTime) *big.Int {
	return new(big.Int).Mul(big.NewInt(int64(r)), big.NewInt(int64(t)))
}

func sumOf(parts ...*big.Int) *big.Int {
	sum := new(big.Int)
	for _, p := range parts {
		sum.Add(sum, p)
	}
	return sum
}

func times[T ~int64](ns ...T) (sum T) {
	for _, n := range ns {
		sum += n
	}
	return sum
}

const (
	ms   = unit.CoreTime(time.Millisecond)
	base = unit.Rate(12_000_000) // 12 $J a core-second
)

// epoch50 is 50 ms of so many cores with the default floor.
func epoch50(cores int, offset uint64) Epoch {
	return Epoch{
		Length: 50 * time.Millisecond, Cores: unit.CoreTime(cores) * 50 * ms,
		Floor: 20_000, Spot: base, Base: base, Offset: offset,
	}
}

// drawMarket draws an epoch in which at most the limit of its own commodity
// binds, and honest players whose values lie on bucket floors if exact.
func drawMarket(t *rapid.T, exact bool) (Epoch, []player) {
	e := epoch50(rapid.IntRange(1, 4).Draw(t, "cores"), rapid.Uint64().Draw(t, "offset"))
	e.Floor = unit.PPM(rapid.SampledFrom([]int64{0, 20_000, 100_000}).Draw(t, "floor"))
	if rapid.Bool().Draw(t, "watts") {
		// 1 to 8 W over cores that could burn 64 each: watts bind, cores do not.
		e.Unit, e.Watts = Watts, unit.Microwatts(rapid.Int64Range(1, 8).Draw(t, "allowance"))*1_000_000
		e.Cores = 64 * 50 * ms
	}
	n := rapid.IntRange(1, 9).Draw(t, "players")
	players := make([]player, n)
	for i := range players {
		watts := unit.Microwatts(rapid.Int64Range(1, 6).Draw(t, "e")) * 1_000_000
		reserve := unit.Rate(watts)
		// Few distinct scores: ties are the common case.
		score := Bucket(PerOctave*23 + rapid.IntRange(0, 12).Draw(t, "score")*17).Floor()
		if rapid.IntRange(0, 9).Draw(t, "at reserve") == 0 {
			score = 0
		}
		value := reserve + score
		if e.Unit == Watts {
			value = reserve + unit.Rate(unit.MulDiv(int64(score), int64(watts), 1_000_000))
		}
		if !exact {
			value += unit.Rate(rapid.Int64Range(0, int64(score)/50).Draw(t, "raw"))
		}
		wants := unit.CoreTime(rapid.Int64Range(0, 100_000).Draw(t, "wants")) * 1000
		players[i] = honest(uint64(10+i), value, reserve, watts, wants)
		players[i].Deposit = unit.Credits(rapid.Int64Range(0, 4).Draw(t, "deposit")) * 1_000_000
		if rapid.IntRange(0, 4).Draw(t, "forecast wrong") == 0 {
			players[i].Demand = unit.CoreTime(rapid.Int64Range(0, 100_000).Draw(t, "forecast")) * 1000
		}
	}
	return e, players
}
