package meter

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// kernelWord does what meter.bpf.c does, and keeps the truth beside it: the
// number of tasks, and the integral as a big integer.
type kernelWord struct {
	word     uint64
	n        int64
	integral *big.Int
	now      uint64
}

func (k *kernelWord) pass(ticks uint64) {
	grow := new(big.Int).Mul(big.NewInt(k.n), new(big.Int).SetUint64(ticks))
	k.integral.Add(k.integral, grow)
	k.now += ticks
}

func (k *kernelWord) enter() { k.word += crowdSpan - k.now; k.n++ }
func (k *kernelWord) leave() { k.word += k.now - crowdSpan; k.n-- }

// TestCrowdDecode plays random histories, up to years long and with integrals
// beyond 48 bits, and wants every look to give the true number and integral.
func TestCrowdDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Uint64Range(0, lastTick-(1<<46)).Draw(t, "start")
		k := &kernelWord{integral: new(big.Int), now: start}
		var c crowd
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				for range rapid.IntRange(1, 500).Draw(t, "tasks") {
					k.enter()
				}
			case 1:
				for range min(k.n, rapid.Int64Range(1, 500).Draw(t, "tasks")) {
					k.leave()
				}
			default:
				// As long as a look may be away: the growth must stay below
				// the span that is left.
				most := (crowdSpan - k.now - slack - 1) / uint64(max(1, k.n+1))
				k.pass(rapid.Uint64Range(0, min(most/2, (lastTick-1-k.now)/2)).Draw(t, "ticks"))
			}
			n, ok := c.look(k.word, k.now)
			if !ok || int64(n) != k.n || new(big.Int).SetUint64(c.integral).Cmp(k.integral) != 0 {
				t.Fatalf("at tick %d: n %d integral %d ok %t, want %d and %d", k.now, n, c.integral, ok, k.n, k.integral)
			}
		}
	})
}

// TestCrowdIntegralOutgrows48Bits holds the case that a plain division gets
// wrong: a thousand tasks for a year, looked at every hour.
func TestCrowdIntegralOutgrows48Bits(t *testing.T) {
	const hour = 3600 * uint64(1e9) >> 10
	k := &kernelWord{integral: new(big.Int)}
	var c crowd
	for range 1000 {
		k.enter()
	}
	for h := range 365 * 24 {
		k.pass(hour)
		if n, ok := c.look(k.word, k.now); !ok || n != 1000 || new(big.Int).SetUint64(c.integral).Cmp(k.integral) != 0 {
			t.Fatalf("hour %d: n %d integral %d, want %d", h, n, c.integral, k.integral)
		}
	}
	if c.integral < crowdSpan {
		t.Fatalf("integral %d did not outgrow the span", c.integral)
	}
}

// TestCrowdLookOutOfOrder: a look's "now" is taken before or after the word is
// loaded, so an event between the two is seen with the wrong time. The error
// is bounded by the time between, and does not stay.
func TestCrowdLookOutOfOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &kernelWord{integral: new(big.Int), now: rapid.Uint64Range(0, lastTick/2).Draw(t, "start")}
		var c crowd
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if k.n > 0 && rapid.Bool().Draw(t, "leave") {
				k.leave()
			} else {
				k.enter()
			}
			k.pass(rapid.Uint64Range(0, 1<<30).Draw(t, "ticks"))
			skew := rapid.Int64Range(-1<<16, 1<<16).Draw(t, "skew")
			n, ok := c.look(k.word, uint64(max(0, int64(k.now)+skew)))
			if !ok || int64(n) != k.n {
				t.Fatalf("skew %d: n %d ok %t, want %d", skew, n, ok, k.n)
			}
			off := new(big.Int).Sub(new(big.Int).SetUint64(c.integral), k.integral)
			if off.CmpAbs(big.NewInt(k.n<<16)) > 0 {
				// Before the first whole stay the integral may be "negative".
				if int64(c.integral) >= 0 || -int64(c.integral) > k.n<<16 {
					t.Fatalf("skew %d with %d tasks: integral off by %d", skew, k.n, off)
				}
			}
		}
		if n, ok := c.look(k.word, k.now); !ok || int64(n) != k.n || new(big.Int).SetUint64(c.integral).Cmp(k.integral) != 0 {
			t.Fatalf("the error stayed: n %d integral %d, want %d and %d", n, c.integral, k.n, k.integral)
		}
	})
}

// TestCrowdKeepsWhatItHad: a word that is negative for an instant (an exit
// seen before its entry) and a clock at its end change nothing.
func TestCrowdKeepsWhatItHad(t *testing.T) {
	k := &kernelWord{integral: new(big.Int), now: 1 << 40}
	var c crowd
	k.enter()
	k.pass(1 << 20)
	k.leave()
	if n, ok := c.look(k.word, k.now); !ok || n != 0 || c.integral != 1<<20 {
		t.Fatalf("n %d integral %d ok %t", n, c.integral, ok)
	}
	k.leave()
	k.pass(1 << 10)
	if n, ok := c.look(k.word, k.now); ok {
		t.Errorf("believed %d tasks where there is one less than none", n)
	}
	k.enter()
	if _, ok := c.look(k.word, lastTick); ok {
		t.Error("believed a word beyond the end of the clock")
	}
	if c.integral != 1<<20 {
		t.Errorf("integral %d, want %d", c.integral, 1<<20)
	}
}
