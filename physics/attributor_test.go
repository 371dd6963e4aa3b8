package physics_test

import (
	"fmt"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		name   string
		energy unit.Microjoules
		idle   unit.Microwatts
		system unit.CoreTime
		used   []unit.CoreTime
		want   physics.Books
		parts  []unit.Microjoules
	}{
		{
			name: "by core time", energy: 1_000_000, idle: 4e6, system: 10e6, used: []unit.CoreTime{30e6, 60e6},
			want:  physics.Books{Node: 1_000_000, Attributed: 540_000, System: 60_000, Idle: 400_000},
			parts: []unit.Microjoules{180_000, 360_000},
		},
		{
			name: "nobody ran", energy: 1_000_000, idle: 4e6, used: []unit.CoreTime{0, 0},
			want:  physics.Books{Node: 1_000_000, Idle: 400_000, Unattributed: 600_000},
			parts: []unit.Microjoules{0, 0},
		},
		{
			name: "no workloads", energy: 1_000_000, idle: 4e6, system: 1,
			want: physics.Books{Node: 1_000_000, Idle: 400_000, System: 600_000},
		},
		{
			name: "below idle", energy: 300_000, idle: 4e6, system: 10e6, used: []unit.CoreTime{90e6},
			want:  physics.Books{Node: 300_000, Idle: 300_000},
			parts: []unit.Microjoules{0},
		},
		{
			name: "no energy", idle: 4e6, system: 10e6, used: []unit.CoreTime{90e6},
			parts: []unit.Microjoules{0},
		},
		{
			name: "a faulty usage counts as none", energy: 1_000_000, system: 0, used: []unit.CoreTime{-5, 7},
			want:  physics.Books{Node: 1_000_000, Attributed: 1_000_000},
			parts: []unit.Microjoules{0, 1_000_000},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := physics.NewAttributor()
			out := make([]unit.Microjoules, len(tt.used))
			got := a.Split(tt.energy, 100*time.Millisecond, tt.idle, tt.system, tt.used, out)
			if got != tt.want || fmt.Sprint(out) != fmt.Sprint(tt.parts) {
				t.Errorf("got %+v, %v\nwant %+v, %v", got, out, tt.want, tt.parts)
			}
			if !got.Balanced() {
				t.Errorf("%+v is not balanced", got)
			}
		})
	}
}

// TestSplitConserves runs random lives (slots that come, use, rest, die and are
// reused) and compares every living slot with exact rationals.
func TestSplitConserves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 8
		a := physics.NewAttributor()
		out := make([]unit.Microjoules, slots)
		owed := make([]*big.Rat, slots) // exact share less what was attributed
		for i := range owed {
			owed[i] = new(big.Rat)
		}
		var idleOwed big.Rat
		for range rapid.IntRange(1, 40).Draw(t, "intervals") {
			if rapid.IntRange(0, 3).Draw(t, "die") == 0 {
				slot := rapid.IntRange(0, slots-1).Draw(t, "slot")
				a.Forget(slot)
				owed[slot].SetInt64(0)
			}
			energy := unit.Microjoules(rapid.OneOf(rapid.Int64Range(0, 50), rapid.Int64Range(0, 20e6)).Draw(t, "energy"))
			dt := time.Duration(rapid.Int64Range(0, 2e8).Draw(t, "dt"))
			idle := unit.Microwatts(rapid.Int64Range(0, 60e6).Draw(t, "idle"))
			used := make([]unit.CoreTime, slots)
			system := unit.CoreTime(rapid.Int64Range(0, 20_000).Draw(t, "system"))
			sum := int64(system)
			for i := range used {
				used[i] = unit.CoreTime(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 20_000)).Draw(t, "used"))
				sum += int64(used[i])
			}
			books := a.Split(energy, dt, idle, system, used, out)
			checkBooks(t, books, energy, used, out, sum)
			checkIdle(t, &idleOwed, books, dt, idle)
			for i := range used {
				if sum > 0 {
					owed[i].Add(owed[i], big.NewRat(int64(energy-books.Idle)*int64(used[i]), sum))
				}
				owed[i].Sub(owed[i], big.NewRat(int64(out[i]), 1))
				if off, _ := owed[i].Float64(); off < -4 || off > 4 {
					t.Fatalf("slot %d is %v uJ from its exact share", i, off)
				}
			}
		}
	})
}

func checkBooks(t *rapid.T, b physics.Books, energy unit.Microjoules, used []unit.CoreTime, out []unit.Microjoules, sum int64) {
	parts := unit.Microjoules(0)
	for i, e := range out {
		if e < 0 || used[i] == 0 && e != 0 {
			t.Fatalf("slot %d used %d and got %d uJ", i, used[i], e)
		}
		parts += e
	}
	if b.Node != energy || !b.Balanced() || parts != b.Attributed || b.System < 0 || b.Idle < 0 || b.Unattributed < 0 {
		t.Fatalf("%d uJ came to %+v, parts %d", energy, b, parts)
	}
	if sum > 0 && b.Unattributed != 0 || sum == 0 && b.Attributed+b.System != 0 {
		t.Fatalf("with %d ns used, books are %+v", sum, b)
	}
}

func checkIdle(t *rapid.T, owed *big.Rat, b physics.Books, dt time.Duration, idle unit.Microwatts) {
	exact := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(int64(dt)), big.NewInt(int64(idle))), big.NewInt(1e9))
	owed.Add(owed, exact)
	if whole := new(big.Int).Quo(owed.Num(), owed.Denom()); whole.Cmp(big.NewInt(int64(b.Node))) > 0 {
		if b.Idle != b.Node {
			t.Fatalf("below idle power, idle took %d of %d uJ", b.Idle, b.Node)
		}
		owed.SetInt64(0)
		return
	}
	owed.Sub(owed, big.NewRat(int64(b.Idle), 1))
	if off, _ := owed.Float64(); off < 0 || off >= 1 {
		t.Fatalf("idle energy is %v uJ from exact", off)
	}
}

// TestSmallUsersAreNotShorted is the attack of hiding below the rounding: many
// slots that each deserve less than half a microjoule an interval, beside one
// that takes the rest.
func TestSmallUsersAreNotShorted(t *testing.T) {
	const small, intervals = 500, 1000
	a := physics.NewAttributor()
	used, out := make([]unit.CoreTime, small+1), make([]unit.Microjoules, small+1)
	for i := range small {
		used[i] = 19_000 // 19 us
	}
	used[small] = 50e6
	totals := make([]unit.Microjoules, small+1)
	sum := int64(50e6 + small*19_000)
	const energy = 800 // uJ an interval: 0.26 uJ for each small one
	for range intervals {
		a.Split(energy, 50*time.Millisecond, 0, 0, used, out)
		for i, e := range out {
			totals[i] += e
		}
	}
	want := unit.Microjoules(intervals * energy * 19_000 / sum)
	for i := range small {
		if d := totals[i] - want; d < -3 || d > 3 {
			t.Fatalf("slot %d was attributed %d uJ in %d intervals, exact share %d", i, totals[i], intervals, want)
		}
	}
}

// TestForgetGivesNothingAway: respawning in the same slot every interval must
// neither leave a debt to the next owner nor lose what was owed.
func TestForgetGivesNothingAway(t *testing.T) {
	a := physics.NewAttributor()
	out := make([]unit.Microjoules, 2)
	var books physics.Books
	const intervals = 3000
	for range intervals {
		books = books.Plus(a.Split(10, time.Millisecond, 0, 1, []unit.CoreTime{1, 1}, out))
		a.Forget(0)
	}
	if !books.Balanced() || books.Node != 10*intervals {
		t.Fatalf("books %+v", books)
	}
	// Slot 1 and the system live on: exact shares 10/3 each. The respawning slot
	// has no memory, and is within a unit an interval of its share.
	if d := books.Attributed + books.System - 10*intervals; d != 0 {
		t.Errorf("%d uJ are lost", d)
	}
	if s := books.System; s < 3*intervals || s > 4*intervals {
		t.Errorf("the system was attributed %d uJ of %d", s, books.Node)
	}
}

func TestSplitPanics(t *testing.T) {
	one, part := []unit.CoreTime{1}, []unit.Microjoules{0}
	for name, f := range map[string]func(a *physics.Attributor){
		"negative energy": func(a *physics.Attributor) { a.Split(-1, 1, 0, 0, one, part) },
		"negative time":   func(a *physics.Attributor) { a.Split(1, -1, 0, 0, one, part) },
		"negative idle":   func(a *physics.Attributor) { a.Split(1, 1, -1, 0, one, part) },
		"short parts":     func(a *physics.Attributor) { a.Split(1, 1, 0, 0, one, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(physics.NewAttributor())
		})
	}
}

func TestSplitDoesNotAllocate(t *testing.T) {
	a := physics.NewAttributor()
	a.Grow(1000)
	used, out := make([]unit.CoreTime, 1000), make([]unit.Microjoules, 1000)
	for i := range used {
		used[i] = unit.CoreTime(i * 7919 % 100_003)
	}
	if n := testing.AllocsPerRun(100, func() {
		a.Split(600_000, 50*time.Millisecond, 4e6, 5e6, used, out)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	b := physics.NewBaseline()
	now := unit.Instant(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += 1e9
		b.Observe(now, time.Second, 5e6, 0)
	}); n != 0 {
		t.Errorf("baseline: %v allocations", n)
	}
}

func BenchmarkSplit(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("slots=%d", n), func(b *testing.B) {
			a := physics.NewAttributor()
			a.Grow(n)
			used, out := make([]unit.CoreTime, n), make([]unit.Microjoules, n)
			for i := range used {
				used[i] = unit.CoreTime(i * 7919 % 100_003)
			}
			b.ReportAllocs()
			for b.Loop() {
				a.Split(600_000, 50*time.Millisecond, 4e6, 5e6, used, out)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/slot")
		})
	}
}
