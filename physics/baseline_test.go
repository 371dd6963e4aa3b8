package physics_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// observe gives b seconds of steady power, in readings of 100 ms.
func observe(b *physics.Baseline, now unit.Instant, seconds int, power unit.Microwatts, busy unit.MilliCores) unit.Instant {
	for range seconds * 10 {
		now += 100 * ms
		b.Observe(now, 100*time.Millisecond, power.Over(unit.CoreTime(100*ms)), busy.In(100*time.Millisecond))
	}
	return now
}

func TestBaseline(t *testing.T) {
	const watt = unit.Watt
	type phase struct {
		gap     time.Duration // without observations, before it
		seconds int
		power   unit.Microwatts
		busy    unit.MilliCores
		want    unit.Microwatts
	}
	tests := []struct {
		name   string
		prior  unit.Microwatts
		phases []phase
	}{
		{"nothing seen", 7 * watt, []phase{{0, 0, 0, 0, 7 * watt}}},
		{"quiet is believed, up and down", 7 * watt, []phase{{0, 2, 9 * watt, 10, 9 * watt}, {0, 2, 5 * watt, 0, 5 * watt}}},
		{"load does not move it", 7 * watt, []phase{{0, 60, 40 * watt, 2000, 7 * watt}}},
		{"load after quiet does not move it, ever", 0, []phase{{0, 5, 6 * watt, 0, 6 * watt}, {0, 3600, 40 * watt, 2000, 6 * watt}}},
		{"a prior above all power is cut", 30 * watt, []phase{{0, 5, 20 * watt, 1000, 20 * watt}}},
		{"the least quiet block counts", 0, []phase{{0, 5, 8 * watt, 40, 8 * watt}, {0, 5, 6 * watt, 0, 6 * watt}, {0, 5, 8 * watt, 40, 6 * watt}}},
		{"what is older than the window is forgotten", 0, []phase{{0, 5, 6 * watt, 0, 6 * watt}, {15 * time.Minute, 5, 9 * watt, 0, 9 * watt}}},
		{"a rise is believed after the window", 0, []phase{{0, 5, 6 * watt, 0, 6 * watt}, {0, 580, 9 * watt, 0, 6 * watt}, {0, 30, 9 * watt, 0, 9 * watt}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := physics.NewBaseline()
			b.Prior = tt.prior
			now := unit.Instant(1)
			for i, p := range tt.phases {
				now = observe(b, now.Add(p.gap), p.seconds, p.power, p.busy)
				if got := b.Idle(); got != p.want {
					t.Fatalf("after phase %d: idle %v, want %v", i, got, p.want)
				}
			}
		})
	}
}

// TestBaselineOfALargeMachine: with 64 cores something always runs.
func TestBaselineOfALargeMachine(t *testing.T) {
	b := physics.NewBaseline()
	b.Prior, b.Quiet = 150*unit.Watt, 640
	now := observe(b, 1, 5, 90*unit.Watt, 500)
	observe(b, now, 5, 80*unit.Watt, 900)
	if got := b.Idle(); got != 80*unit.Watt {
		t.Errorf("idle %v, want the least power of the window, 80 W", got)
	}
	b = physics.NewBaseline()
	b.Prior = 50 * unit.Watt
	if observe(b, 1, 5, 90*unit.Watt, 500); b.Idle() != 50*unit.Watt {
		t.Errorf("idle %v, want the prior", b.Idle())
	}
}

// TestBaselineIgnoresShortDips: one reading of 100 ms with the energy of none
// (a sensor that updated late) must not become the idle power.
func TestBaselineIgnoresShortDips(t *testing.T) {
	b := physics.NewBaseline()
	now := observe(b, 1, 10, 10*unit.Watt, 0)
	for i := range 50 {
		now += 100 * ms
		energy := unit.Microjoules(1e6) // 10 W
		switch i % 5 {
		case 0:
			energy = 0
		case 1:
			energy = 2e6
		}
		b.Observe(now, 100*time.Millisecond, energy, 0)
	}
	if got := b.Idle(); got != 10*unit.Watt {
		t.Errorf("idle %v, want 10 W", got)
	}
}

// TestBaselineIsAnEnvelope: it is never negative and, once anything was seen,
// never above the least block of the window.
func TestBaselineIsAnEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := physics.NewBaseline()
		b.Prior = unit.Microwatts(rapid.Int64Range(-5, 100e6).Draw(t, "prior"))
		type block struct {
			bucket int64
			power  int64
		}
		var seen []block
		now := unit.Instant(0)
		for range rapid.IntRange(1, 60).Draw(t, "blocks") {
			now += unit.Instant(rapid.Int64Range(1e9, 90e9).Draw(t, "gap"))
			power := rapid.Int64Range(0, 100e6).Draw(t, "power")
			b.Observe(now, time.Second, unit.Microjoules(power), unit.CoreTime(rapid.Int64Range(0, 2e8).Draw(t, "busy")))
			seen = append(seen, block{int64(now) / 10e9, power})
			least := power
			for _, s := range seen {
				if s.bucket > seen[len(seen)-1].bucket-60 {
					least = min(least, s.power)
				}
			}
			if got := int64(b.Idle()); got < 0 || got > least {
				t.Fatalf("idle %d uW, least block in the window %d", got, least)
			}
		}
	})
}

func TestBaselineTakesNoNonsense(t *testing.T) {
	b := physics.NewBaseline()
	b.Prior = 5
	b.Observe(1, 0, 1, 1)
	b.Observe(2, time.Second, -1, 1)
	b.Observe(3, time.Second, 1, -1)
	b.Observe(4, -time.Second, 1, 1)
	if b.Idle() != 5 {
		t.Errorf("idle %v, want the prior", b.Idle())
	}
}

func TestSources(t *testing.T) {
	names := map[string]bool{}
	for s := physics.SourceNone; s <= physics.SourcePerf; s++ {
		if s.String() == "unknown" || names[s.String()] {
			t.Errorf("source %d is named %q", s, s)
		}
		names[s.String()] = true
		if s > physics.SourceNone && s.Sigma() > (s-1).Sigma() {
			t.Errorf("%v has a wider band than the worse %v", s, s-1)
		}
		if s.Modelled() != (s < physics.SourceBattery) {
			t.Errorf("%v modelled: %v", s, s.Modelled())
		}
	}
	if got := physics.SourceGeneric.Sigma(); got != unit.One/2 {
		t.Errorf("generic sigma %v, want 50 %%", got)
	}
	if physics.Source(99).String() != "unknown" {
		t.Error("an unknown source has a name")
	}
}
