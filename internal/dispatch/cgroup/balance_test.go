package cgroup

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const testEpoch = 50 * time.Millisecond

// actor is a group on the toy scheduler: it wants so many cores, and its
// processors favour it by a bias that the balance does not know, as per-CPU
// placement does.
type actor struct {
	class   market.Class
	tier    uint8
	granted float64 // cores
	want    float64 // cores
	bias    float64
	got     float64 // cores, average
	writes  int     // of its weight
}

// play runs actors on a fluid scheduler of so many cores: in each epoch the
// time goes by weight times bias, nobody beyond its want. late stretches some
// epochs; taken is what strangers take of the cores.
func play(b *balance, actors []actor, cores float64, epochs int, late func(int) float64) {
	shares := make([]dispatch.Share, len(actors))
	weights := make([]float64, len(actors))
	total := 0.0
	for i := range actors {
		b.open(i)
		weights[i] = float64(b.span.usual)
	}
	for n := range epochs {
		elapsed := time.Duration(float64(testEpoch) * late(n))
		given := pour(actors, weights, cores)
		for i, a := range actors {
			shares[i] = dispatch.Share{
				Slot: i, Class: uint8(a.class), Tier: a.tier,
				Granted: unit.CoreTime(a.granted * float64(testEpoch)),
				Used:    unit.CoreTime(given[i] * float64(elapsed)),
				Demand:  unit.CoreTime(a.want * float64(elapsed)),
			}
			if n >= epochs/5 {
				actors[i].got += given[i] * float64(elapsed)
			}
		}
		if n >= epochs/5 {
			total += float64(elapsed)
		}
		b.settle(elapsed, shares)
		b.survey(elapsed, shares)
		for i := range shares {
			switch t := b.aim(&shares[i]); {
			case t.idle:
				weights[i] = 0.3
			case !t.keep && !near(int64(weights[i]), t.weight) && !minor(int64(weights[i]), t.weight, b.slack):
				weights[i] = float64(t.weight)
				actors[i].writes++
			}
		}
	}
	for i := range actors {
		actors[i].got /= total
	}
}

// pour divides cores by weight and bias, nobody beyond its want.
func pour(actors []actor, weights []float64, cores float64) []float64 {
	given := make([]float64, len(actors))
	full := make([]bool, len(actors))
	for range actors {
		left, sum := cores, 0.0
		for i, a := range actors {
			if full[i] {
				left -= given[i]
			} else if a.class != market.Frozen {
				sum += weights[i] * a.bias
			}
		}
		again := false
		for i, a := range actors {
			if full[i] || a.class == market.Frozen || sum == 0 {
				continue
			}
			given[i] = left * weights[i] * a.bias / sum
			if given[i] > a.want {
				given[i], full[i], again = a.want, true, true
			}
		}
		if !again {
			break
		}
	}
	return given
}

func onTime(int) float64 { return 1 }

func spans() map[string]span {
	old := spanV2()
	old.narrow = true
	return map[string]span{"v1": spanV1(), "v2": spanV2(), "v2 before 6.6": old}
}

func TestEqualGrantsConvergeWhateverTheBias(t *testing.T) {
	for name, s := range spans() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				n := rapid.IntRange(2, 12).Draw(rt, "groups")
				actors := make([]actor, n)
				for i := range actors {
					bias := math.Exp(rapid.Float64Range(-.7, .7).Draw(rt, "bias"))
					actors[i] = actor{class: market.Margin, granted: 2 / float64(n), want: 2, bias: bias}
				}
				slow := rapid.Float64Range(.5, 3).Draw(rt, "late")
				// Strangers take a part of the machine.
				cores := rapid.Float64Range(.6, 2).Draw(rt, "cores")
				play(&balance{span: s}, actors, cores, 100, func(n int) float64 { return 1 + slow*float64(n%7)/7 })
				for i, a := range actors {
					if math.Abs(a.got-cores/float64(n)) > .03 {
						rt.Fatalf("group %d of %d got %.3f cores, want %.3f: %+v", i, n, a.got, cores/float64(n), actors)
					}
				}
			})
		})
	}
}

// TestCrowdIsWrittenRarely: a hundred groups that share two cores get their
// shares, and hardly a weight is written although delivery is never exact.
func TestCrowdIsWrittenRarely(t *testing.T) {
	for name, s := range spans() {
		t.Run(name, func(t *testing.T) {
			const n, epochs = 100, 400
			actors := make([]actor, n)
			for i := range actors {
				actors[i] = actor{
					class: market.Served, granted: float64(1+i%3) / n, want: 1,
					bias: math.Exp(.4 * math.Sin(float64(i))),
				}
			}
			play(&balance{span: s}, actors, 2, epochs, func(n int) float64 { return 1 + float64(n%5)/20 })
			writes := 0
			for i, a := range actors {
				writes += a.writes
				if want := 2 * float64(1+i%3) / 199; math.Abs(a.got-want) > .1*want {
					t.Errorf("group %d got %.4f cores, want %.4f", i, a.got, want)
				}
			}
			if most := n * epochs / 20; writes > most {
				t.Errorf("%d weights were written in %d epochs, want at most %d", writes, epochs, most)
			}
		})
	}
}

func TestClassesAreDeliveredInOrder(t *testing.T) {
	for name, s := range spans() {
		t.Run(name, func(t *testing.T) {
			served := actor{class: market.Served, granted: .6, want: .3, bias: 1}
			margin := actor{class: market.Margin, granted: .4, want: 1, bias: 1}
			actors := []actor{served, margin}
			for i := range 9 {
				actors = append(actors, actor{class: market.Loser, tier: uint8(i % 4), want: 1, bias: 1})
			}
			play(&balance{span: s}, actors, 1, 100, onTime)
			if actors[0].got < .295 {
				t.Errorf("served got %.3f of the .3 it wants", actors[0].got)
			}
			leak := 0.0
			for _, a := range actors[2:] {
				leak += a.got
			}
			most := .03
			if s.narrow {
				most = .15 // 9 losers at 1/128 of the largest weight
			}
			if actors[1].got < .7-most || leak > most {
				t.Errorf("margin got %.3f of the spare .7, nine losers %.3f", actors[1].got, leak)
			}
		})
	}
}

func TestFloorIsDelivered(t *testing.T) {
	for name, s := range spans() {
		t.Run(name, func(t *testing.T) {
			actors := []actor{
				{class: market.Served, granted: .98, want: 1, bias: 1},
				{class: market.Loser, tier: 3, granted: .02, want: 1, bias: 1},
				{class: market.Loser, tier: 0, want: 1, bias: 1},
			}
			play(&balance{span: s}, actors, 1, 400, onTime)
			if got := actors[1].got; got < .015 || got > .03 {
				t.Errorf("the floor delivered %.4f, want .02", got)
			}
		})
	}
}

// TestOverrunOfTheFloorIsPaidBack: what a loser took from winners who went short
// costs it the floor of as many epochs; what nobody else wanted costs it little.
func TestOverrunOfTheFloorIsPaidBack(t *testing.T) {
	const ms = unit.CoreTime(time.Millisecond)
	wait := func(winnerWants, winnerHas, loserHas unit.CoreTime, then market.Class) (epochs int) {
		b := &balance{span: spanV1()}
		b.open(0)
		b.open(1)
		shares := []dispatch.Share{
			{Slot: 0, Class: uint8(market.Served), Granted: 49 * ms},
			{Slot: 1, Class: uint8(market.Loser), Granted: 1 * ms},
		}
		b.survey(testEpoch, shares)
		shares[0].Demand, shares[0].Used = winnerWants, winnerHas
		shares[1].Demand, shares[1].Used = 50*ms, loserHas
		for ; epochs < 200; epochs++ {
			b.settle(testEpoch, shares)
			shares[1].Class = uint8(market.Loser)
			if epochs == 1 {
				shares[1].Class = uint8(then)
			}
			b.survey(testEpoch, shares)
			if b.slots[1].lifted {
				return epochs
			}
			shares[0].Demand, shares[0].Used = 50*ms, 50*ms
			shares[1].Used = 0
		}
		return epochs
	}
	// Also by a loser that shares the margin for an epoch meanwhile: a winner that is
	// metered by ticks asks for less than it wants in every other one.
	for _, then := range []market.Class{market.Loser, market.Margin} {
		if got := wait(50*ms, 26*ms, 24*ms, then); got < 20 || got > 30 {
			t.Errorf("%v: 24 ms of the winner's are paid back in %d epochs of 1 ms, want about 24", then, got)
		}
	}
	if got := wait(10*ms, 10*ms, 40*ms, market.Loser); got > 12 {
		t.Errorf("after 40 ms that nobody wanted it waits for its floor for %d epochs, want at most 12", got)
	}
}

func TestIdleKeepsItsWeightAndStrangersAreIgnored(t *testing.T) {
	b := &balance{span: spanV1()}
	b.open(0)
	shares := []dispatch.Share{{Slot: 0}, {Slot: 7, Class: uint8(market.Served), Granted: 1e6}, {Slot: -1}}
	b.settle(testEpoch, shares)
	b.survey(testEpoch, shares)
	for i := range shares {
		if got := b.aim(&shares[i]); !got.keep {
			t.Errorf("share %d: %+v, want kept", i, got)
		}
	}
}

func TestWeightsStayInRangeAndRest(t *testing.T) {
	for name, s := range spans() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				b := &balance{span: s}
				n := rapid.IntRange(1, 30).Draw(rt, "groups")
				for i := range n {
					b.open(i)
				}
				for range rapid.IntRange(1, 20).Draw(rt, "epochs") {
					shares := make([]dispatch.Share, n)
					for i := range shares {
						shares[i] = dispatch.Share{
							Slot:    i,
							Class:   rapid.Uint8Range(0, 4).Draw(rt, "class"),
							Tier:    rapid.Uint8().Draw(rt, "tier"),
							Granted: unit.CoreTime(rapid.Int64Range(-1, 1e10).Draw(rt, "granted")),
							Used:    unit.CoreTime(rapid.Int64Range(0, 1e10).Draw(rt, "used")),
							Demand:  unit.CoreTime(rapid.Int64Range(0, 1e10).Draw(rt, "demand")),
						}
					}
					elapsed := time.Duration(rapid.Int64Range(0, 1e10).Draw(rt, "elapsed"))
					b.settle(elapsed, shares)
					b.survey(elapsed, shares)
					for i := range shares {
						if a := b.aim(&shares[i]); !a.keep && (a.weight < s.least || a.weight > s.most) {
							rt.Fatalf("weight %d out of %d..%d", a.weight, s.least, s.most)
						}
					}
				}
			})
		})
	}
}

// The level is the one of the definition, found by bisection.
func TestLevelAgainstBisection(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(rt, "groups")
		b := &balance{span: spanV1()}
		shares := make([]dispatch.Share, n)
		delivered, wanted := 0.0, 0.0
		for i := range n {
			b.open(i)
			b.slots[i].class = market.Margin
			b.slots[i].granted = float64(rapid.Int64Range(0, 1e8).Draw(rt, "granted"))
			used := rapid.Int64Range(0, 1e8).Draw(rt, "used")
			shares[i] = dispatch.Share{Slot: i, Used: unit.CoreTime(used), Demand: unit.CoreTime(used + rapid.Int64Range(0, 1e8).Draw(rt, "waited"))}
			delivered += float64(used)
			if b.slots[i].granted > 0 {
				wanted += float64(shares[i].Demand)
			}
		}
		filled := func(level float64) float64 {
			sum := 0.0
			for i := range shares {
				sum += min(level*b.slots[i].granted, float64(shares[i].Demand))
			}
			return sum
		}
		have := filled(b.level(shares))
		if want := min(delivered, wanted); math.Abs(have-want) > 1e-3*want+1 {
			rt.Fatalf("level fills %.0f, want %.0f", have, want)
		}
	})
}

func TestQuotas(t *testing.T) {
	for _, c := range []struct {
		cores unit.MilliCores
		want  quota
	}{
		{0, quota{}},
		{1000, quota{50 * time.Millisecond, 50 * time.Millisecond}},
		{2500, quota{125 * time.Millisecond, 50 * time.Millisecond}},
		{20, quota{time.Millisecond, 50 * time.Millisecond}},
		{10, quota{time.Millisecond, 100 * time.Millisecond}},
		{1, quota{time.Millisecond, time.Second}},
	} {
		if have := quotaOf(c.cores, capPeriod); have != c.want {
			t.Errorf("%d millicores: %v, want %v", c.cores, have, c.want)
		}
	}
	lane := laneQuota()
	for _, c := range []struct {
		cap  quota
		less bool
	}{{quota{}, true}, {quotaOf(1000, capPeriod), true}, {quotaOf(100, capPeriod), false}, {quotaOf(8192000, capPeriod), true}} {
		if have := lane.less(c.cap); have != c.less {
			t.Errorf("lane below %v: %v, want %v", c.cap, have, c.less)
		}
	}
}

func TestDirectoryNames(t *testing.T) {
	for name, want := range map[string]string{
		"leech-1": "w-leech-1", "../../etc": "w-______etc", "cpu.max": "w-cpu_max", "": "w-", "größe": "w-gr__e", "a b\n": "w-a_b_",
	} {
		if have := directoryName(name); have != want {
			t.Errorf("%q: %q, want %q", name, have, want)
		}
	}
	if have := directoryName(string(slices.Repeat([]byte("x"), 500))); len(have) > 80 {
		t.Errorf("a long name stays %d bytes long", len(have))
	}
}

func TestRoomNamesTheLimitThatBinds(t *testing.T) {
	e := &Enforcer{names: map[string]bool{"a": true}}
	e.room.add("open files", 100, "ulimit -n")
	e.room.add("pids", 10, "sysctl")
	if err := e.Admit(9); err != nil {
		t.Errorf("9 beside 1 of 10: %v", err)
	}
	err := e.Admit(10)
	if fmt.Sprint(err) != "pids: need 11, have 10; sysctl" {
		t.Errorf("10 beside 1 of 10: %v", err)
	}
}
