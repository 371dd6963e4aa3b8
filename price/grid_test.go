package price_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	minute = unit.Instant(time.Minute)
	never  = unit.Instant(math.MaxInt64)
)

func TestGridWithoutATariffIsOne(t *testing.T) {
	var g price.Grid
	for _, now := range []unit.Instant{0, 5, 1e15, 7} {
		if got := g.Factor(now); got != unit.One || !g.Stale(now) {
			t.Errorf("at %v: %v, stale %v", now, got, g.Stale(now))
		}
	}
}

func TestGridSlewsTenPercentAMinute(t *testing.T) {
	for _, every := range []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute} {
		var g price.Grid
		g.Observe(0, 2*unit.One, never)
		now := unit.Instant(0)
		for now < minute {
			now = now.Add(every)
			g.Factor(now)
		}
		if got := g.Factor(now); got < 1_099_000 || got > 1_100_100 {
			t.Errorf("asked every %v: %v after a minute, want about 110 %%", every, got)
		}
		if got := g.Factor(10 * minute); got != 2*unit.One {
			t.Errorf("asked every %v: %v after 10 minutes, want 200 %%", every, got)
		}
	}
}

// TestGridLosesNoSteps asks every 10 ms, when a step at 0.1x is 1.59 ppm.
func TestGridLosesNoSteps(t *testing.T) {
	var g price.Grid
	g.Observe(0, price.Lowest, never)
	g.Factor(60 * minute)
	g.Observe(60*minute, price.Highest, never)
	for now := 60 * minute; now <= 61*minute; now = now.Add(10 * time.Millisecond) {
		g.Factor(now)
	}
	if got := g.Factor(61 * minute); got < 109_950 || got > 110_010 {
		t.Errorf("from 0.1x, a minute later: %d ppm, want about 110000", got)
	}
}

func TestGridDoesNotJumpAfterASilence(t *testing.T) {
	var g price.Grid
	g.Observe(0, price.Highest, never)
	if got := g.Factor(5 * minute); got < 1_609_000 || got > 1_611_000 {
		t.Errorf("five minutes unasked: %d ppm, want 1.1^5", got)
	}
	if got := g.Factor(4 * minute); got < 1_609_000 || got > 1_611_000 {
		t.Errorf("a clock that steps back moved it to %d ppm", got)
	}
}

func TestGridBounds(t *testing.T) {
	var g price.Grid
	g.Observe(0, 50*unit.One, never)
	if got := g.Factor(60 * minute); got != price.Highest || g.Clamped() != 1 {
		t.Errorf("tariff of 50x: %v, %d clamped", got, g.Clamped())
	}
	g.Observe(60*minute, -3, never)
	if got := g.Factor(120 * minute); got != price.Lowest || g.Clamped() != 2 {
		t.Errorf("negative tariff: %v, %d clamped", got, g.Clamped())
	}
	// 49 minutes are enough from bound to bound, in the smallest steps too.
	g.Observe(120*minute, price.Highest, never)
	now := 120 * minute
	for now < 169*minute {
		now = now.Add(100 * time.Millisecond)
		g.Factor(now)
	}
	if got := g.Factor(now); got != price.Highest {
		t.Errorf("from 0.1x to 10x in 49 minutes: %v", got)
	}
}

func TestGridDecaysWhenStale(t *testing.T) {
	var g price.Grid
	g.Observe(0, 2*unit.One, 20*minute)
	if got := g.Factor(20 * minute); got != 2*unit.One || g.Stale(20*minute) {
		t.Errorf("at the end of validity: %v, stale %v", got, g.Stale(20*minute))
	}
	if got := g.Factor(21 * minute); got < 1_800_000 || got > 1_830_000 || !g.Stale(21*minute) {
		t.Errorf("a minute later: %v, want about 182 %%", got)
	}
	if got := g.Factor(40 * minute); got != unit.One {
		t.Errorf("20 minutes later: %v, want 100 %%", got)
	}
	// Unasked all the time, it is still the old tariff up to its end.
	var once price.Grid
	once.Observe(0, 2*unit.One, 20*minute)
	if got := once.Factor(21 * minute); got < 1_800_000 || got > 1_830_000 {
		t.Errorf("in one step: %v, want about 182 %%", got)
	}
}

func TestGridIgnoresWhatIsNoLongerValid(t *testing.T) {
	var g price.Grid
	g.Observe(10*minute, 5*unit.One, 10*minute)
	if got := g.Factor(60 * minute); got != unit.One || !g.Stale(60*minute) {
		t.Errorf("got %v", got)
	}
	g.Observe(60*minute, 2*unit.One, never)
	g.Observe(61*minute, 5*unit.One, 61*minute)
	if got := g.Factor(100 * minute); got != 2*unit.One {
		t.Errorf("a tariff that had expired replaced a valid one: %v", got)
	}
}

// TestGridMovesSlowly holds bounds and slew over random tariffs and questions,
// clocks that step back included.
func TestGridMovesSlowly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var g price.Grid
		now := unit.Instant(rapid.Int64Range(0, 1e12).Draw(t, "start"))
		latest, last := now, g.Factor(now)
		for range rapid.IntRange(1, 60).Draw(t, "questions") {
			if rapid.Bool().Draw(t, "tariff") {
				factor := unit.PPM(rapid.OneOf(rapid.Int64Range(-10, 20e6), rapid.Int64()).Draw(t, "factor"))
				g.Observe(now, factor, now.Add(time.Duration(rapid.Int64Range(-1e9, 1e12).Draw(t, "validity"))))
			}
			now = now.Add(time.Duration(rapid.Int64Range(-1e9, 3e11).Draw(t, "step")))
			got := g.Factor(now)
			if got < price.Lowest || got > price.Highest {
				t.Fatalf("factor %v is out of bounds", got)
			}
			minutes := max(0, float64(now-latest)/float64(time.Minute))
			limit := math.Pow(1.1, minutes)
			if ratio := float64(got) / float64(last); ratio > limit*1.0001 || ratio < 1/limit/1.003 {
				t.Fatalf("factor went from %v to %v in %v minutes", last, got, minutes)
			}
			if again := g.Factor(now); again != got {
				t.Fatalf("asked twice at %v: %v and %v", now, got, again)
			}
			latest, last = max(latest, now), got
		}
	})
}

func TestGridDoesNotAllocate(t *testing.T) {
	var g price.Grid
	g.Observe(0, 2*unit.One, never)
	now := unit.Instant(0)
	if n := testing.AllocsPerRun(100, func() {
		now += 1e8
		g.Factor(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
