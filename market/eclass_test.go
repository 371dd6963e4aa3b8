package market

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

const tick = unit.Instant(50 * time.Millisecond)

func TestEClassNewcomerIsTheNode(t *testing.T) {
	t.Parallel()
	c := NewEClass(12_345_678, 0)
	if have := c.Class(0); have != 12_345_678 {
		t.Errorf("class %d, want the node's mean", have)
	}
}

func TestEClassFollowsAndDecays(t *testing.T) {
	t.Parallel()
	const mean = 10_000_000
	c := NewEClass(mean, 0)
	now := unit.Instant(0)
	for range 40 {
		now += tick
		c.Observe(now, 4*mean)
	}
	hot := c.Class(now)
	if hot < 3*mean || hot > 5*mean {
		t.Fatalf("after 2 s at 40 W the class is %v", hot)
	}
	last := hot
	for range 1200 { // a minute of not running
		now += tick
		class := c.Class(now)
		if class > last {
			t.Fatalf("the class rose from %v to %v while nothing ran", last, class)
		}
		last = class
	}
	if last != mean {
		t.Errorf("after a minute of rest the class is %v, want the node's %v", last, unit.Microwatts(mean))
	}
}

func TestEClassFindsOutTheHotWithinASecond(t *testing.T) {
	t.Parallel()
	const mean = 4_000_000
	c := NewEClass(mean, 0)
	now := unit.Instant(0)
	for range 20 {
		now += tick
		c.Observe(now, 4*mean)
	}
	if have := c.Class(now); have < 3*mean {
		t.Errorf("a second after turning four times as hot the class is %v", have)
	}
}

func TestDecay(t *testing.T) {
	t.Parallel()
	const tau = 10 * time.Second
	for _, v := range []int64{0, 1, 1000, 12_000_000, math.MaxInt64} {
		for _, after := range []time.Duration{0, 50 * time.Millisecond, time.Second, 7 * time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, 1 << 62} {
			want := float64(v) * math.Exp(-float64(after)/float64(tau))
			have := float64(decay(v, after, tau))
			if have > want*1.0110+1 || have < want*0.989-1 {
				t.Errorf("decay(%d, %v) = %g, want %g", v, after, have, want)
			}
		}
	}
	if have := decay(12_345, 0, tau); have != 12_345 {
		t.Errorf("no time has passed, but 12345 decayed to %d", have)
	}
}

// TestAttackTwinsStarvedByMeterNoise: two identical workloads whose meters
// differ by 2 % noise and 3 % bias stay in the same class, and so in the same
// bucket. Ranked by the metered value one of them is dark for a quarter of an
// hour (market-attacks section 3).
func TestAttackTwinsStarvedByMeterNoise(t *testing.T) {
	t.Parallel()
	const mean = 10_000_000
	// 9 % is half a step from the node's class: without hysteresis noise would
	// tip it to and fro.
	for _, bias := range []float64{0, 0.03, 0.09} {
		rng := rand.New(rand.NewPCG(7, uint64(1000*bias)))
		a, b := NewEClass(mean, 0), NewEClass(mean, 0)
		now := unit.Instant(0)
		for epoch := range 72_000 { // an hour
			now += tick
			if epoch%2 == 0 {
				a.Observe(now, unit.Microwatts(mean*(1+bias)*(1+0.02*rng.NormFloat64())))
			} else {
				b.Observe(now, unit.Microwatts(mean*(1+bias-min(bias, 0.03))*(1+0.02*rng.NormFloat64())))
			}
			if a.Class(now) != b.Class(now) {
				t.Fatalf("bias %g: twins in classes %v and %v after %d epochs", bias, a.Class(now), b.Class(now), epoch)
			}
		}
	}
}

// TestAttackRespawnForACoolClass: a new name starts in the node's class, and
// is found out as fast as the old one was.
func TestAttackRespawnForACoolClass(t *testing.T) {
	t.Parallel()
	const mean = 5_000_000
	now, cool := unit.Instant(0), 0
	c := NewEClass(mean, now)
	for range 20 {
		now += tick
		c.Observe(now, 4*mean)
		if c.Class(now) == mean {
			cool++
		}
	}
	if cool > 2 { // 100 ms: one window of the meter
		t.Errorf("a workload four times as hot as the node was ranked as the node for %d epochs", cool)
	}
}

func TestUnitChooser(t *testing.T) {
	t.Parallel()
	var c UnitChooser
	feed := func(n int, sold unit.Microwatts, want Unit) {
		t.Helper()
		for i := range n {
			if have := c.Observe(sold, 1000); have != want {
				t.Fatalf("epoch %d of %d at %d of 1000: %v, want %v", i+1, n, sold, have, want)
			}
		}
	}
	feed(10, 949, Cores)
	feed(2, 950, Cores)
	feed(1, 949, Cores) // the row is broken
	feed(2, 2000, Cores)
	feed(1, 950, Watts)
	feed(19, 849, Watts)
	feed(1, 850, Watts)
	feed(19, 0, Watts)
	feed(1, 849, Cores)
	feed(2, 950, Cores)
	feed(5, 950, Watts)
	if have := c.Observe(1000, 0); have != Cores || c.Current() != Cores {
		t.Errorf("without an allowance watts are sold")
	}
}
