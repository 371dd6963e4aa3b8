package market

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// The nine populations of market-attacks section 4: 1,200 epochs of 50 ms, two
// cores, a reserve of 10 $J a core-second, through the real Rank and Price
// with ideal delivery.
const (
	populationEpochs = 1200
	populationBase   = unit.Rate(10_000_000)
	dollarJ          = 1_000_000 // micro-$J
)

// wallet is one participant of a population.
type wallet struct {
	budget  int64 // $J
	horizon int   // epochs; autos only
	fixed   unit.Price
	cores   int64
	active  func(epoch int) bool
	max     unit.Price // --max-bid; 0 = 64x

	auto     *Auto
	balance  unit.Credits
	cost     []unit.Credits // per epoch
	used     unit.CoreTime
	gap, dry int // epochs in a row that it wanted and got nothing: longest, now
}

func always(int) bool { return true }

// town is what a population did.
type town struct {
	wallets []*wallet
	spots   []unit.Rate
	sold    unit.CoreTime
	wanted  unit.CoreTime // at most the supply of each epoch
}

// price of a multiple.
func at(p unit.Price) unit.Rate {
	return unit.Rate(unit.MulDiv(int64(p), int64(populationBase), 1000))
}

func runTown(t *testing.T, wallets []*wallet, seed uint64) *town {
	t.Helper()
	tw := &town{wallets: wallets}
	m, rng := New(Config{}), rand.New(rand.NewPCG(seed, 1))
	for _, w := range wallets {
		w.balance = unit.Credits(w.budget * dollarJ)
		if w.fixed == 0 {
			a, err := NewAuto(0, time.Duration(w.horizon)*50*time.Millisecond)
			if err != nil {
				t.Fatalf("auto over %d epochs: %v", w.horizon, err)
			}
			w.auto = a
		}
	}
	spot := populationBase
	for epoch := range populationEpochs {
		spot = tw.step(m, epoch, spot, rng.Uint64())
		tw.spots = append(tw.spots, spot)
	}
	return tw
}

// step plays one epoch and returns its spot.
func (tw *town) step(m *Market, epoch int, spot unit.Rate, offset uint64) unit.Rate {
	e := Epoch{
		Length: 50 * time.Millisecond, Cores: 100 * ms, Floor: 20_000,
		Spot: spot, Base: populationBase, Offset: offset,
	}
	players := make([]player, len(tw.wallets))
	var wanted unit.CoreTime
	for i, w := range tw.wallets {
		want := unit.CoreTime(0)
		if w.active(epoch) {
			want = unit.CoreTime(w.cores) * 50 * ms
		}
		wanted += want
		bid, quantity := at(w.fixed), want
		if w.auto != nil {
			limit := w.max
			if limit == 0 {
				limit = 64_000
			}
			bid, quantity = w.auto.Bid(Round{
				Now: unit.Instant(epoch) * tick, Length: e.Length, Balance: w.balance, Demand: want,
				Reserve: populationBase, Spot: spot, Base: populationBase, Cap: at(limit),
			})
		}
		players[i] = player{Order: Order{
			ID: uint64(i), Bid: bid, Reserve: populationBase, Energy: 10_000_000, Demand: quantity,
			Balance: w.balance, Deposit: dollarJ, Solvent: w.balance > 10_000,
		}, wants: quantity}
	}
	tw.wanted += min(wanted, e.Cores)
	p := play(m, e, players)
	for i, w := range tw.wallets {
		tw.book(w, epoch, p, i)
	}
	return p.out.Spot
}

func (tw *town) book(w *wallet, epoch int, p played, i int) {
	used := p.uses[i].Used
	q, _ := p.rents[i].AddMul(uint64(populationBase), uint64(used)).DivRem(1_000_000_000)
	cost := min(unit.Credits(q.Lo), w.balance)
	w.balance -= cost
	w.cost = append(w.cost, cost)
	w.used += used
	tw.sold += used
	want := unit.CoreTime(0)
	if w.active(epoch) {
		want = unit.CoreTime(w.cores) * 50 * ms
		if w.dry++; used > 0 || w.auto != nil && epoch >= w.horizon {
			w.dry = 0
		}
		w.gap = max(w.gap, w.dry)
	}
	if w.auto != nil {
		w.auto.Settle(cost, want, used)
	}
}

// spent is the share of w's budget that was gone at its horizon.
func (w *wallet) spent() float64 {
	sum := unit.Credits(0)
	for _, c := range w.cost[:min(w.horizon, len(w.cost))] {
		sum += c
	}
	return float64(sum) / float64(w.budget*dollarJ)
}

// away is the greatest distance from spending in a straight line.
func (w *wallet) away() float64 {
	sum, worst := 0.0, 0.0
	for i, c := range w.cost[:min(w.horizon, len(w.cost))] {
		sum += float64(c) / float64(w.budget*dollarJ)
		worst = max(worst, math.Abs(sum-float64(i+1)/float64(w.horizon)))
	}
	return worst
}

// variation of the spot in the second half.
func (tw *town) variation() float64 {
	half := tw.spots[len(tw.spots)/2:]
	mean, square := 0.0, 0.0
	for _, s := range half {
		mean += float64(s) / float64(len(half))
	}
	for _, s := range half {
		square += (float64(s) - mean) * (float64(s) - mean) / float64(len(half))
	}
	return math.Sqrt(square) / mean
}

// jain is Jain's index of core time per budget over the autos.
func (tw *town) jain() float64 {
	sum, square, n := 0.0, 0.0, 0.0
	for _, w := range tw.wallets {
		if w.auto != nil {
			x := float64(w.used) / float64(w.budget)
			sum, square, n = sum+x, square+x*x, n+1
		}
	}
	return sum * sum / n / square
}

func autos(n int, make func(i int) wallet) (ws []*wallet) {
	for i := range n {
		w := make(i)
		if w.cores == 0 {
			w.cores = 1
		}
		if w.horizon == 0 {
			w.horizon = populationEpochs
		}
		if w.active == nil {
			w.active = always
		}
		ws = append(ws, &w)
	}
	return ws
}

func fixedAt(p unit.Price, active func(int) bool) *wallet {
	return &wallet{budget: 1 << 40, fixed: p, cores: 1, active: active}
}

// population of name and what it must come to.
type population struct {
	name   string
	make   func(rng *rand.Rand) []*wallet
	within float64 // share of wallets spent to within 5 %
	cv     float64 // most variation of the spot
	jain   float64 // least
	gap    int     // most epochs without a share
	sold   float64 // least share of what could be sold
	away   float64 // most distance from a straight line
	total  float64 // least share of all their money spent at the horizons
	least  float64 // least share of its budget that anybody spent
}

func populations() []population {
	return []population{
		{name: "lone", make: func(*rand.Rand) []*wallet {
			return autos(1, func(int) wallet { return wallet{budget: 240, cores: 2} })
		}, within: 1, total: 0.99, least: 0.99, cv: 0.06, jain: 1, gap: 0, sold: 0.19, away: 0.05},
		{name: "ten identical", make: func(*rand.Rand) []*wallet {
			return autos(10, func(int) wallet { return wallet{budget: 240} })
		}, within: 1, total: 0.99, least: 0.99, cv: 0.06, jain: 0.99, gap: 23, sold: 0.98, away: 0.1},
		{name: "twenty lognormal", make: func(rng *rand.Rand) []*wallet {
			return autos(20, func(int) wallet { return wallet{budget: int64(150 * math.Exp(rng.NormFloat64()))} })
		}, within: 1, total: 0.99, least: 0.97, cv: 0.1, jain: 0.9, gap: 54, sold: 0.98, away: 0.23},
		{name: "autos and fixed bids", make: func(*rand.Rand) []*wallet {
			ws := autos(6, func(int) wallet { return wallet{budget: 240} })
			for i, p := range []unit.Price{1500, 3000, 6000, 20_000} {
				ws = append(ws, fixedAt(p, func(epoch int) bool { return (epoch/100+i)%4 == 0 }))
			}
			return ws
		}, within: 1, total: 0.97, least: 0.97, cv: 0.6, jain: 0.92, gap: 152, sold: 0.98, away: 0.23},
		{name: "whale for 20 s", make: func(*rand.Rand) []*wallet {
			whale := func(epoch int) bool { return epoch >= 400 && epoch < 800 }
			return append(autos(10, func(int) wallet { return wallet{budget: 240} }), fixedAt(30_000, whale))
		}, within: 1, total: 0.97, least: 0.97, cv: 0.6, jain: 0.92, gap: 54, sold: 0.98, away: 0.23},
		{name: "bursty", make: func(*rand.Rand) []*wallet {
			return autos(10, func(i int) wallet {
				return wallet{budget: 120, active: func(epoch int) bool { return (epoch+6*i)%60 < 20 }}
			})
		}, within: 1, total: 0.97, least: 0.95, cv: 0.6, jain: 0.92, gap: 54, sold: 0.85, away: 0.23},
		{name: "two hundred", make: func(*rand.Rand) []*wallet {
			return autos(200, func(int) wallet { return wallet{budget: 24} })
		}, within: 1, total: 0.99, least: 0.97, cv: 0.1, jain: 0.98, gap: 54, sold: 0.98, away: 0.23},
		{name: "staggered horizons", make: func(*rand.Rand) []*wallet {
			return autos(12, func(i int) wallet { return wallet{budget: 60 + int64(i)*20, horizon: 300 + 75*i} })
		}, within: 1, total: 0.97, least: 0.97, cv: 0.6, jain: 0.92, gap: 54, sold: 0.8, away: 0.23},
		{name: "rich and poor", make: func(*rand.Rand) []*wallet {
			return autos(10, func(i int) wallet {
				if i < 4 {
					return wallet{budget: 20_000}
				}
				return wallet{budget: 60}
			})
		}, within: 0.6, total: 0.75, least: 0.75, cv: 1, jain: 0.8, gap: 91, sold: 0.98, away: 0.3},
	}
}

func TestAutoPopulations(t *testing.T) {
	t.Parallel()
	seeds := uint64(1)
	if long() {
		seeds = 5
	}
	for _, p := range populations() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for seed := range seeds {
				checkPopulation(t, p, seed+1)
			}
		})
	}
}

func checkPopulation(t *testing.T, p population, seed uint64) {
	t.Helper()
	tw := runTown(t, p.make(rand.New(rand.NewPCG(seed, 2))), seed)
	var within, autos, gap int
	var have, money, away, most float64
	least := 1.0
	for _, w := range tw.wallets {
		if w.auto == nil {
			continue
		}
		autos++
		s := w.spent()
		if s >= 0.95 {
			within++
		}
		have, money = have+s*float64(w.budget), money+float64(w.budget)
		least, most, away, gap = min(least, s), max(most, s), max(away, w.away()), max(gap, w.gap)
	}
	share, total, sold := float64(within)/float64(autos), have/money, float64(tw.sold)/float64(tw.wanted)
	t.Logf("seed %d: spent %.3f, each %.3f-%.3f, within 5 %% %.2f, away %.2f, cv %.3f, jain %.3f, gap %d, sold %.3f",
		seed, total, least, most, share, away, tw.variation(), tw.jain(), gap, sold)
	for _, band := range []struct {
		name       string
		have, most float64
	}{
		{"spent by the one that spent most", most, 1},
		{"spot variation", tw.variation(), p.cv},
		{"longest gap", float64(gap), float64(p.gap)},
		{"away from a straight line", away, p.away},
		{"not within 5 %", 1 - share, 1 - p.within + 1e-9},
		{"not spent", 1 - total, 1 - p.total},
		{"not spent by the one that spent least", 1 - least, 1 - p.least},
		{"not sold", 1 - sold, 1 - p.sold},
		{"unfairness", 1 - tw.jain(), 1 - p.jain + 1e-9},
	} {
		if band.have > band.most {
			t.Errorf("seed %d: %s: %.3f, at most %.3f", seed, band.name, band.have, band.most)
		}
	}
}

func TestAutoRefusesShortHorizons(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		horizon time.Duration
		want    error
	}{{0, ErrNoPace}, {-time.Second, ErrNoPace}, {4999 * time.Millisecond, ErrShortHorizon}, {5 * time.Second, nil}} {
		if _, err := NewAuto(0, c.horizon); !errors.Is(err, c.want) {
			t.Errorf("NewAuto over %v: %v, want %v", c.horizon, err, c.want)
		}
	}
	if _, err := NewPacer(0, 0, 0); !errors.Is(err, ErrNoPace) {
		t.Errorf("a pacer without rate and horizon: %v", err)
	}
	if _, err := NewPacer(0, 5, time.Second); !errors.Is(err, ErrShortHorizon) {
		t.Errorf("a pacer over a second: %v", err)
	}
}
