package physics_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const ms = unit.Instant(time.Millisecond)

// step is one reading, what the counter should then have counted, and how many
// faults it should have seen so far.
type step struct {
	at     unit.Instant
	raw    uint64
	total  unit.Microjoules
	faults uint64
}

func TestCounter(t *testing.T) {
	// A 16-bit ESU: 65,536 J, wraps in 5.5 minutes at 200 W.
	const esu16 = 65_536_000_000
	tests := []struct {
		name    string
		counter physics.Counter
		steps   []step
	}{
		{"steady", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			{0, 1000, 0, 0}, {100 * ms, 5_001_000, 5_000_000, 0}, {200 * ms, 5_001_000, 5_000_000, 0}, {300 * ms, 6_001_000, 6_000_000, 0},
		}},
		{"wrap", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			{0, esu16 - 3_000_000, 0, 0}, {100 * ms, 2_000_000, 5_000_000, 0},
		}},
		{"jump is clamped at twice the maximum", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			// (100 + 4) ms * 200 W * 2
			{0, 0, 0, 0}, {100 * ms, 60_000_000_000, 41_600_000, 1}, {200 * ms, 60_001_000_000, 42_600_000, 1},
		}},
		{"jitter backwards is not counted twice", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			{0, 5_000_000, 0, 0}, {100 * ms, 4_999_000, 0, 1}, {200 * ms, 5_500_000, 500_000, 1},
		}},
		{"reset to zero is no wrap", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			{0, 30_000_000_000, 0, 0}, {100 * ms, 50, 0, 1}, {200 * ms, 1_000_050, 1_000_000, 1},
		}},
		{"counter without a range falls", physics.Counter{Maximum: 200e6}, []step{
			{0, 30_000_000_000, 0, 0}, {100 * ms, 0, 0, 1}, {200 * ms, 7, 7, 1},
		}},
		{"values beyond the range do not wrap", physics.Counter{Range: 1_000_000_000, Maximum: 200e6}, []step{
			{0, 5_000_000_000, 0, 0}, {100 * ms, 4_001_000_000, 0, 1},
		}},
		{"time stands still, then catches up", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			{100 * ms, 0, 0, 0}, {100 * ms, 900, 0, 0}, {200 * ms, 1000, 1000, 0},
		}},
		{"time runs backwards", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			{100 * ms, 0, 0, 0}, {50 * ms, 900, 0, 1}, {200 * ms, 1000, 1000, 1},
		}},
		{"too long between readings to know the wraps", physics.Counter{Range: esu16, Maximum: 200e6}, []step{
			{0, 0, 0, 0}, {unit.Instant(10 * time.Minute), 1_000_000, 1_000_000, 1},
		}},
		{"no maximum known", physics.Counter{Range: esu16}, []step{
			{0, esu16 - 1, 0, 0}, {1, 1, 2, 0}, {2, esu16 - 1, esu16, 0},
		}},
		{"extremes", physics.Counter{}, []step{
			{0, 0, 0, 0}, {math.MaxInt64, math.MaxUint64, math.MaxInt64, 1},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.counter
			for i, s := range tt.steps {
				got := c.Advance(s.at, s.raw)
				if got != s.total || c.Total() != s.total || c.Faults() != s.faults {
					t.Fatalf("reading %d (%v, %d): %d uJ, %d faults; want %d, %d", i, s.at, s.raw, got, c.Faults(), s.total, s.faults)
				}
			}
		})
	}
}

func TestCounterLost(t *testing.T) {
	c := physics.Counter{Range: 1e9, Maximum: 200e6}
	c.Advance(0, 100)
	c.Advance(100*ms, 200)
	c.Lost()
	if got := c.Advance(200*ms, 999_999_999); got != 100 || c.Faults() != 1 {
		t.Errorf("after a loss: %d uJ, %d faults; want 100, 1", got, c.Faults())
	}
	if got := c.Advance(300*ms, 50); got != 151 {
		t.Errorf("wrap after a loss: %d uJ, want 151", got)
	}
}

// TestCounterNeverCreatesEnergy feeds readings that no hardware would give: the
// total never falls and never rises faster than twice the maximum.
func TestCounterNeverCreatesEnergy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := physics.Counter{
			Range:   rapid.SampledFrom([]uint64{0, 1000, 1e9, math.MaxUint64}).Draw(t, "range"),
			Maximum: unit.Microwatts(rapid.Int64Range(1, 500e6).Draw(t, "maximum")),
		}
		now, total := unit.Instant(0), unit.Microjoules(0)
		for i := range rapid.IntRange(1, 50).Draw(t, "readings") {
			if rapid.IntRange(0, 9).Draw(t, "lost") == 0 {
				c.Lost()
			}
			dt := rapid.Int64Range(-1e8, 5e8).Draw(t, "dt")
			now += unit.Instant(dt)
			got := c.Advance(now, rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 1e9)).Draw(t, "raw"))
			if got < total {
				t.Fatalf("reading %d: the total fell from %d to %d", i, total, got)
			}
			total = got
		}
		// Elapsed time counts once even where the clock ran back and forth.
		if most := float64(c.Maximum) * 2 * (50*0.5 + 50*0.004); float64(total) > most {
			t.Fatalf("%d uJ is more than %v", total, most)
		}
	})
}

// TestCounterMeasuresAnyWrappingCounter drives an honest counter of random range.
func TestCounterMeasuresAnyWrappingCounter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const maximum = 200_000_000
		limit := rapid.Uint64Range(100e6, 1e12).Draw(t, "range")
		raw := rapid.Uint64Range(0, limit-1).Draw(t, "start")
		c := physics.Counter{Range: limit, Maximum: maximum}
		c.Advance(0, raw)
		want, now := uint64(0), unit.Instant(0)
		for range 50 {
			dt := rapid.Int64Range(1e6, 2e8).Draw(t, "dt")
			burnt := rapid.Uint64Range(0, uint64(dt)/1000*200).Draw(t, "burnt")
			now += unit.Instant(dt)
			raw, want = (raw+burnt)%limit, want+burnt
			if got := c.Advance(now, raw); uint64(got) != want || c.Faults() != 0 {
				t.Fatalf("counted %d of %d uJ, %d faults", got, want, c.Faults())
			}
		}
	})
}
