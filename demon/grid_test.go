package demon

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const never = unit.Instant(math.MaxInt64)

// minutes lets n minutes go by in steps of a second in which slot runs a tenth.
func (b *bench) minutes(slot int32, n int) {
	b.t.Helper()
	for range n * 60 {
		b.pass(time.Second, map[int32]time.Duration{slot: time.Second / 10})
	}
}

// TestGridIsInEveryPrice: at twice the grid price everything costs twice as much in
// $J, and nothing in multiples of the base.
func TestGridIsInEveryPrice(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Bid: 3000})
	b.step()
	terms := Admission{Name: "later", Bid: 3000, Budget: 1000 * dollar}
	before := b.line(slot)
	base, spot, deposit := b.d.BaseRate(), b.d.Spot(), b.d.Deposit(&terms)
	reserve, bid := b.d.at(slot).reserve, b.d.at(slot).bid
	b.in.Grid = Tariff{Factor: 2 * unit.One, Until: never}
	b.pass(time.Second, map[int32]time.Duration{slot: time.Second / 10})
	b.in.Grid = Tariff{}
	if g := b.d.grid; g != unit.One {
		t.Errorf("the factor is %v at the moment the tariff is first seen", g)
	}
	b.minutes(slot, 10)
	e, s := b.out.Ended, b.out.Settlements[0]
	if e.Grid != 2*unit.One || e.Base != 2*base || s.Bill.Energy != unit.Credits(2*s.Energy) {
		t.Errorf("settled at %v and a base of %v: %v for %v", e.Grid, e.Base, s.Bill.Energy, s.Energy)
	}
	b.step() // in which nobody wants anything
	w := b.d.at(slot)
	if b.d.BaseRate() != 2*base || b.d.Spot() != 2*spot || b.d.Deposit(&terms) != 2*deposit || w.reserve != 2*reserve || w.bid != 2*bid {
		t.Errorf("at twice the grid price the base is %v for %v, spot %v for %v, a deposit %v for %v, the reserve %v for %v, the bid %v for %v",
			b.d.BaseRate(), base, b.d.Spot(), spot, b.d.Deposit(&terms), deposit, w.reserve, reserve, w.bid, bid)
	}
	if l := b.line(slot); l.Bid != before.Bid || l.Price != unit.Times {
		t.Errorf("it bids %v for %v and pays %v for %v", l.Bid, before.Bid, l.Price, unit.Price(unit.Times))
	}
	if x, _ := b.d.Explain(slot); x.Reserve != unit.Times {
		t.Errorf("its reserve is explained as %v", x.Reserve)
	}
	if st := b.d.Statement(); st.Grid != 2*unit.One {
		t.Errorf("the statement says %v", st.Grid)
	}
	// Who sleeps while the price falls has still paid 1x when it last ran.
	for range 10 * 60 {
		b.pass(time.Second, nil)
	}
	b.in.Grid = Tariff{Factor: unit.One / 2, Until: never}
	b.pass(time.Second, nil)
	b.in.Grid = Tariff{}
	for range 20 * 60 {
		b.pass(time.Second, nil)
	}
	if l := b.line(slot); l.Price != unit.Times {
		t.Errorf("after its sleep it is said to have paid %v", l.Price)
	}
	if p := b.d.expected(w); p != base/2 {
		t.Errorf("after its sleep it is expected to pay %v, want %v", p, base/2)
	}
}

// TestGridDoesNotWeighTheFloor: who came when energy was dear has no more of it.
func TestGridDoesNotWeighTheFloor(t *testing.T) {
	b := newBench(t, nil)
	early := b.admit(Admission{Name: "early"})
	b.in.Grid = Tariff{Factor: price.Highest, Until: never}
	b.minutes(early, 30)
	if late := b.admit(Admission{Name: "late"}); b.d.at(late).floorWeight != b.d.at(early).floorWeight {
		t.Errorf("the floor weighs %v for who came at 1x, %v at 10x", b.d.at(early).floorWeight, b.d.at(late).floorWeight)
	}
}

// TestGridDecays: a tariff that nobody renews is forgotten.
func TestGridDecays(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a"})
	b.in.Grid = Tariff{Factor: 2 * unit.One, Until: b.in.Now + unit.Instant(20*time.Minute)}
	b.minutes(slot, 20)
	b.in.Grid = Tariff{}
	if b.d.grid != 2*unit.One {
		t.Fatalf("the factor is %v", b.d.grid)
	}
	b.minutes(slot, 1)
	if g := b.d.grid; g > 1_840_000 || g < 1_800_000 {
		t.Errorf("a minute after its end it is %v", g)
	}
	b.minutes(slot, 10)
	if g := b.d.grid; g != unit.One {
		t.Errorf("ten minutes later it is %v", g)
	}
}

// TestGridSurvives: a market goes on with the factor of the one before it, and a gap
// is charged at that, also to who was last saved when it was another.
func TestGridSurvives(t *testing.T) {
	j := newJournaled(t)
	hog, sleeper := j.admit(Admission{Name: "hog"}), j.admit(Admission{Name: "sleeper"})
	j.pass(time.Second, map[int32]time.Duration{sleeper: time.Second / 2})
	j.in.Grid = Tariff{Factor: 2 * unit.One, Until: never}
	for range 9 * 60 {
		j.pass(time.Second, map[int32]time.Duration{hog: time.Second / 10})
		j.take()
	}
	if j.grid != 2*unit.One || j.docs["sleeper"].Grid != unit.One {
		t.Fatalf("saved with a factor of %v, the sleeper paid at %v", j.grid, j.docs["sleeper"].Grid)
	}
	j.pass(time.Second, nil)
	j.take()
	if g := j.d.GridSave(); g != 0 {
		t.Errorf("%v is saved again", g)
	}
	j.crash(time.Hour)
	_, gap := j.readopt("sleeper", 2*time.Second)
	if gap.Energy != 15_000_000 || gap.Cost != 30*dollar {
		t.Errorf("gap %+v, want 15 J at twice the price", gap)
	}
	slot, _ := j.readopt("hog", time.Duration(j.docs["hog"].Run))
	if j.d.BaseRate() != 20_000_000 || j.d.Spot() != 20_000_000 {
		t.Errorf("it goes on with a base of %v and a spot of %v", j.d.BaseRate(), j.d.Spot())
	}
	j.pass(time.Second, map[int32]time.Duration{slot: time.Second})
	if e := &j.out.Ended; e.Grid != 2*unit.One {
		t.Errorf("its first epoch is settled at %v", e.Grid)
	}
	j.minutes(slot, 1) // nobody says anything
	if g := j.d.grid; g > 1_840_000 || g < 1_800_000 {
		t.Errorf("a minute after its start it is %v", g)
	}
	// A market in which nothing happens is saved too.
	j = newJournaled(t)
	j.in.Grid = Tariff{Factor: 2 * unit.One, Until: never}
	for range 60 {
		j.pass(time.Second, nil)
	}
	if j.take(); j.grid < 1_090_000 {
		t.Errorf("a minute without workloads saved %v", j.grid)
	}
	// What no market had in force is bounded like a tariff.
	if d := New(Config{Cores: 1000, Reference: 10_000_000, Grid: 50 * unit.One}, 0); d.grid != price.Highest {
		t.Errorf("a market begins with %v", d.grid)
	}
}

// TestGridChangesBetweenReadings: over random tariffs, lengths and lost readings, the
// energy of one reading has one price, which is a second grid's on that edge; and the
// parts of every bill sum to it exactly.
func TestGridChangesBetweenReadings(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t, func(c *Config) {
			c.Grid = unit.PPM(rapid.Int64Range(0, 12_000_000).Draw(rt, "start"))
			c.Modelled = rapid.Bool().Draw(rt, "modelled")
		})
		slot := b.admit(Admission{Name: "a", Bid: 100_000})
		twin := price.GridFrom(0, b.d.cfg.Grid)
		want, owed := twin.Factor(0), uint64(0)
		var lost physics.Reading
		for range rapid.IntRange(1, 80).Draw(rt, "ticks") {
			b.in.Grid = Tariff{}
			if rapid.IntRange(0, 3).Draw(rt, "tariff") == 0 {
				b.in.Grid = Tariff{
					Factor: unit.PPM(rapid.Int64Range(-1, 20_000_000).Draw(rt, "factor")),
					Until:  b.in.Now + unit.Instant(rapid.Int64Range(-1e9, 6e11).Draw(rt, "validity")),
				}
			}
			dt := time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(rt, "length"))
			ran := time.Duration(rapid.Int64Range(0, int64(dt)).Draw(rt, "ran"))
			silent := rapid.IntRange(0, 2).Draw(rt, "reading lost") == 0
			lost, b.lose = b.in.Reading, silent
			b.pass(dt, map[int32]time.Duration{slot: ran})
			if silent && b.in.Reading != lost {
				rt.Fatal("no reading was lost: this tests nothing")
			}
			if b.out.Ended.Grid != want || b.out.Ended.Base != price.Base(b.d.cfg.Reference, want) {
				rt.Fatalf("settled at %v and a base of %v, want %v", b.out.Ended.Grid, b.out.Ended.Base, want)
			}
			for _, s := range b.out.Settlements {
				owed += uint64(s.Energy) * uint64(want)
				if s.Bill.Energy != unit.Credits(owed/1_000_000) {
					rt.Fatalf("%v of energy at %v cost %v", s.Energy, want, s.Bill.Energy)
				}
				owed %= 1_000_000
			}
			if b.d.Spot() < b.d.BaseRate() {
				rt.Fatalf("the spot is %v, below the base of %v", b.d.Spot(), b.d.BaseRate())
			}
			twin.Observe(b.in.Now, b.in.Grid.Factor, b.in.Grid.Until)
			if !silent {
				want = twin.Factor(b.in.Now)
			}
		}
	})
}
