package demon

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// town is a market whose enforcement delivers what the ranking granted, and
// gives what nobody was granted to whoever still wants it.
type town struct {
	d       *Demon
	in      Input
	out     Decisions
	wants   map[int32]unit.MilliCores // runnable threads, 1000 each
	watts   map[int32]unit.Microwatts // of a core of each
	outside unit.MilliCores           // taken by processes outside
	frozen  map[int32]bool
}

func newTown(t interface{ Helper() }, cores unit.MilliCores, change func(*Config)) *town {
	t.Helper()
	cfg := Config{Cores: cores, Reference: 10_000_000, Modelled: true, Landauer: price.DefaultLandauer(), Seed: [2]uint64{1, 2}}
	if change != nil {
		change(&cfg)
	}
	return &town{
		d: New(cfg, 0), wants: map[int32]unit.MilliCores{}, watts: map[int32]unit.Microwatts{}, frozen: map[int32]bool{},
	}
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// move admits a and lets it want so many cores.
func (c *town) move(t fataler, a Admission, wants unit.MilliCores) int32 {
	t.Helper()
	slot, err := c.d.Admit(c.in.Now, a)
	if err != nil {
		t.Fatalf("admit %s: %v", a.Name, err)
	}
	for int(slot) >= len(c.in.Usage) {
		c.in.Usage = append(c.in.Usage, Usage{})
	}
	c.in.Usage[slot] = Usage{Populated: true}
	c.d.Started(slot)
	c.wants[slot] = wants
	return slot
}

// days lets n epochs go by.
func (c *town) days(n int) {
	for range n {
		c.day()
	}
}

func (c *town) day() {
	free := (max(c.d.cfg.Online, c.d.cfg.Cores) - c.outside).In(tick)
	free = min(free, c.d.cfg.Cores.In(tick))
	ran := map[int32]unit.CoreTime{}
	want := func(slot int32) unit.CoreTime {
		if c.frozen[slot] {
			return 0
		}
		most := c.wants[slot]
		if limit := c.d.slots[slot].ask.Cores; limit > 0 {
			most = min(most, limit) // the quota of --cores
		}
		return most.In(tick)
	}
	for i := range c.out.Shares {
		s := &c.out.Shares[i]
		got := min(s.Allocation.Time, want(s.Slot), free)
		ran[s.Slot] += got
		free -= got
	}
	energy := unit.Microjoules(0)
	for _, slot := range slices.Sorted(maps.Keys(c.wants)) {
		if c.d.cfg.Watts == 0 || c.d.epoch == 0 {
			left := min(want(slot)-ran[slot], free)
			ran[slot] += left
			free -= left
		}
		r := ran[slot]
		u := &c.in.Usage[slot]
		u.Run += r
		u.Wait += want(slot) - r
		c.in.Busy += r
		watts := c.watts[slot]
		if watts == 0 {
			watts = c.d.cfg.Reference
		}
		energy += watts.Over(r)
	}
	c.in.System += c.outside.In(tick)
	c.in.Busy += c.outside.In(tick)
	c.in.Now += unit.Instant(tick)
	c.in.Reading = physics.Reading{Energy: c.in.Reading.Energy + energy + c.d.cfg.Reference.Over(c.outside.In(tick)), Source: physics.SourceGeneric}
	c.d.Step(&c.in, &c.out)
	for _, a := range c.out.Actions {
		switch a.Kind {
		case Freeze:
			c.frozen[a.Slot] = true
		case Thaw, Term:
			c.frozen[a.Slot] = false
		case Kill, Bury:
		}
	}
}

func (c *town) explain(t fataler, slot int32) Explanation {
	t.Helper()
	x, ok := c.d.Explain(slot)
	if !ok {
		t.Fatalf("nothing to explain in slot %d", slot)
	}
	return x
}

func rich(name string, bid unit.Price) Admission {
	return Admission{Name: name, Budget: 1_000_000 * dollar, Bid: bid}
}

// near reports whether a figure is within 3 % of what it should be, or two
// thousandths.
func near[T ~int64](got, want T) bool {
	return max(got-want, want-got) <= max(want*3/100, 2)
}

// situation is one way to be slow, or not.
type situation struct {
	name   string
	cores  unit.MilliCores
	change func(*Config)
	act    func(t *testing.T, c *town) int32
	want   Explanation // near; Got -1: below nine tenths; Lasts 1: some, -1: any
}

// situations are all there are.
var situations = []situation{
	{
		name: "served", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, Admission{Name: "a", Budget: 1010 * dollar}, 4000)
			c.days(20)
			return slot
		},
		want: Explanation{Verdict: VerdictServed, Wanted: 1000, Got: 1000, Rank: 1, Ranked: 1, Supply: 1000, Lasts: 100 * time.Second},
	},
	{
		name: "served beside a loser, but for the floor", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 4000), 1000)
			c.move(t, rich("b", 2000), 1000)
			c.days(20)
			return slot
		},
		want: Explanation{Verdict: VerdictServed, Wanted: 1000, Got: 1000, Rank: 1, Ranked: 2, Supply: 1000, Lasts: 1},
	},
	{
		name: "outbid", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.move(t, rich("b", 3100), 1000)
			c.move(t, rich("c", 3000), 1000)
			c.days(21)
			return slot
		},
		// Just above 3.1x: the next bucket of the score of 2.1x, 1.1 % wide.
		want: Explanation{Verdict: VerdictOutbid, Wanted: 1000, Rank: 3, Ranked: 3, Supply: 1000, Needed: 3107, Got: -1, Lasts: -1},
	},
	{
		name: "outbid for the rest", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.move(t, rich("b", 4000), 500)
			c.days(21)
			return slot
		},
		want: Explanation{Verdict: VerdictOutbid, Wanted: 1000, Got: 500, Rank: 2, Ranked: 2, Supply: 1000, Needed: 4030, Lasts: 1},
	},
	{
		name: "rationed", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.move(t, rich("b", 2000), 1000)
			c.days(20)
			return slot
		},
		want: Explanation{Verdict: VerdictRationed, Wanted: 1000, Got: 500, Rank: 1, Ranked: 2, Supply: 1000, Needed: 2008, Lasts: 1},
	},
	{
		name: "rationed below a higher bid", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.move(t, rich("b", 2000), 1000)
			c.move(t, rich("c", 4000), 500)
			c.days(20)
			return slot
		},
		want: Explanation{Verdict: VerdictRationed, Wanted: 1000, Got: 255, Rank: 2, Ranked: 3, Supply: 1000, Needed: 4030, Lasts: 1},
	},
	{
		name: "wallet", cores: 1000, act: func(t *testing.T, c *town) int32 {
			rival := c.move(t, rich("b", 1500), 1000)
			c.days(1)
			slot := c.move(t, Admission{Name: "a", Budget: 20 * dollar, Bid: 8000}, 1000)
			for range 200 {
				if x := c.explain(t, slot); x.Verdict != VerdictServed && x.Verdict != VerdictStarting {
					break
				}
				c.day()
			}
			_ = rival
			return slot
		},
		want: Explanation{Verdict: VerdictWallet, Wanted: 1000, Got: -1, Rank: 1, Ranked: 2, Supply: 1000, Lasts: -1},
	},
	{
		name: "pacing", cores: 1000, act: func(t *testing.T, c *town) int32 {
			a := Admission{Name: "a", Budget: 101 * dollar, Horizon: 100 * time.Second}
			slot := c.move(t, a, 1000)
			c.days(100)
			for range 40 { // it runs in bursts
				if c.explain(t, slot).Got == 0 {
					break
				}
				c.day()
			}
			return slot
		},
		want: Explanation{Verdict: VerdictPacing, Wanted: 1000, Rank: 1, Ranked: 1, Supply: 1000, Paced: unit.Spend(dollar) * 958 / 1000},
	},
	{
		name: "rate", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, Admission{Name: "a", Rate: unit.Spend(dollar)}, 1000)
			c.days(100)
			for range 40 {
				if c.explain(t, slot).Got == 0 {
					break
				}
				c.day()
			}
			return slot
		},
		want: Explanation{Verdict: VerdictRate, Wanted: 1000, Rank: 1, Ranked: 1, Supply: 1000, Paced: unit.Spend(dollar)},
	},
	{
		name: "below reserve", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 500), 1000)
			c.days(3)
			return slot
		},
		want: Explanation{Verdict: VerdictBelowReserve, Wanted: 1000, Rank: 0, Ranked: 0, Supply: 1000, Needed: 1000},
	},
	{
		name: "own cap", cores: 4000, act: func(t *testing.T, c *town) int32 {
			a := rich("a", 2000)
			a.Cores = 1500
			slot := c.move(t, a, 4000)
			c.days(20)
			return slot
		},
		want: Explanation{Verdict: VerdictCores, Wanted: 1500, Got: 1500, Rank: 1, Ranked: 1, Supply: 4000, Lasts: 1},
	},
	{
		name: "one busy thread", cores: 4000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.days(20)
			return slot
		},
		want: Explanation{Verdict: VerdictCores, Wanted: 1000, Got: 1000, Rank: 1, Ranked: 1, Supply: 4000, Lasts: 1},
	},
	{
		name: "machine", cores: 2000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 2000)
			c.outside = 1000
			c.days(40)
			return slot
		},
		want: Explanation{Verdict: VerdictMachine, Wanted: 2000, Got: 1000, Rank: 1, Ranked: 1, Supply: 1000, Others: 1000, Lasts: 1},
	},
	{
		name: "machine, stop and go", cores: 2000, change: func(c *Config) { c.Duty = true },
		act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.move(t, rich("b", 4000), 1000)
			c.outside = 1000
			c.days(21)
			return slot
		},
		want: Explanation{Verdict: VerdictMachine, Wanted: 1000, Got: -1, Rank: 2, Ranked: 2, Supply: 1000, Others: 1000, Lasts: -1},
	},
	{
		name: "watts", cores: 4000, change: func(c *Config) { c.Watts = 20_000_000 },
		act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 4000)
			c.days(60)
			return slot
		},
		want: Explanation{Verdict: VerdictWatts, Wanted: 4000, Got: 2000, Rank: 1, Ranked: 1, Supply: 4000, Lasts: 1},
	},
	{
		name: "idle", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 0)
			c.move(t, rich("b", 4000), 1000)
			c.days(20)
			return slot
		},
		want: Explanation{Verdict: VerdictIdle, Ranked: 1, Supply: 1000},
	},
	{
		name: "suspended", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.days(5)
			c.d.Suspend(slot, true)
			c.days(2)
			return slot
		},
		want: Explanation{Verdict: VerdictSuspended, Wanted: 1000, Supply: 1000},
	},
	{
		name: "starting", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot, err := c.d.Admit(0, rich("a", 2000))
			if err != nil {
				t.Fatal(err)
			}
			c.in.Usage = append(c.in.Usage, Usage{})
			c.days(1)
			return slot
		},
		want: Explanation{Verdict: VerdictStarting, Supply: 1000},
	},
	{
		name: "starting, not ranked", cores: 1000, act: func(t *testing.T, c *town) int32 {
			c.days(1)
			return c.move(t, rich("a", 2000), 1000)
		},
		want: Explanation{Verdict: VerdictStarting, Wanted: 1000, Supply: 1000},
	},
	{
		name: "broke", cores: 1000, act: broke(apoptosis.Policy{Grace: time.Minute}),
		want: Explanation{Verdict: VerdictBroke, Wanted: 1000, Supply: 1000},
	},
	{
		name: "paused", cores: 1000, act: broke(apoptosis.Policy{WhenBroke: apoptosis.Pause}),
		want: Explanation{Verdict: VerdictPaused, Wanted: 1000, Supply: 1000},
	},
	{
		name: "dying", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, Admission{Name: "a", Timeout: time.Second}, 1000)
			c.days(21)
			return slot
		},
		want: Explanation{Verdict: VerdictDying, Wanted: 1000, Got: 1000, Supply: 1000},
	},
	{
		name: "dead", cores: 1000, act: func(t *testing.T, c *town) int32 {
			slot := c.move(t, rich("a", 2000), 1000)
			c.days(5)
			c.wants[slot], c.in.Usage[slot].Populated = 0, false
			c.d.Gone(slot, false)
			c.days(1)
			return slot
		},
		want: Explanation{Verdict: VerdictDead, Supply: 1000},
	},
}

// TestExplain puts one workload into every situation there is.
func TestExplain(t *testing.T) {
	for _, test := range situations {
		t.Run(test.name, func(t *testing.T) {
			c := newTown(t, test.cores, test.change)
			slot := test.act(t, c)
			have := c.explain(t, slot)
			want := test.want
			want.Reserve = 1000
			if want.Got < 0 { // little: a slice of the floor or none, or what the last balance buys
				want.Got = min(have.Got, want.Wanted*9/10)
			}
			if have.Verdict != want.Verdict || have.Rank != want.Rank || have.Ranked != want.Ranked || have.Others != want.Others ||
				!near(have.Wanted, want.Wanted) || !near(have.Got, want.Got) || !near(have.Needed, want.Needed) ||
				!near(have.Paced, want.Paced) || !near(have.Supply, want.Supply) || have.Reserve != want.Reserve {
				t.Errorf("%v\nhave %+v\nwant %+v\nstate %v, %+v", have.Verdict, have, want, c.d.slots[slot].life.State(), c.d.slots[slot].last)
			}
			switch {
			case want.Lasts > time.Second && !near(have.Lasts, want.Lasts),
				want.Lasts > 0 && have.Lasts <= 0, want.Lasts == 0 && have.Lasts != 0 && want.Verdict != VerdictDying:
				t.Errorf("it lasts for %v, want %v", have.Lasts, want.Lasts)
			}
			before := fmt.Sprintf("%+v %+v", *c.d.slots[slot], c.d.Statement())
			if again := c.explain(t, slot); again != have || fmt.Sprintf("%+v %+v", *c.d.slots[slot], c.d.Statement()) != before {
				t.Errorf("to explain changes something: %+v, then %+v", have, again)
			}
		})
	}
}

// broke spends a small budget and waits until nothing is left.
func broke(p apoptosis.Policy) func(t *testing.T, c *town) int32 {
	return func(t *testing.T, c *town) int32 {
		slot := c.move(t, Admission{Name: "a", Budget: 20 * dollar, Policy: p}, 1000)
		for range 200 {
			if c.frozen[slot] {
				c.day()
				return slot
			}
			c.day()
		}
		t.Fatalf("it still runs: %+v", c.explain(t, slot))
		return slot
	}
}

// TestPacedIsToldItsPace: a wallet whose pace cannot buy what a rival's bid
// costs is told so in every epoch in which it is not served, also while its
// bid has not yet climbed to the rival's.
func TestPacedIsToldItsPace(t *testing.T) {
	c := newTown(t, 1000, nil)
	a := rich("a", 8000)
	a.Rate = unit.Spend(20 * dollar)
	slot := c.move(t, a, 1000)
	c.days(20)
	c.move(t, rich("rival", 3000), 1000)
	seen, climbing := map[Verdict]int{}, 0
	for range 400 {
		c.day()
		x := c.explain(t, slot)
		seen[x.Verdict]++
		w := c.d.slots[slot]
		if x.Verdict == VerdictRate && w.quantity < 0 && w.bid < 3*c.d.base() {
			climbing++
		}
	}
	if seen[VerdictServed] == 0 || seen[VerdictRate] == 0 || len(seen) != 2 || climbing == 0 {
		t.Errorf("verdicts %v, %d of them while its bid climbed", seen, climbing)
	}
}

// TestExplainNobody: a free slot has no explanation.
func TestExplainNobody(t *testing.T) {
	c := newTown(t, 1000, nil)
	for _, slot := range []int32{-1, 0, 7} {
		if x, ok := c.d.Explain(slot); ok {
			t.Errorf("slot %d is explained: %+v", slot, x)
		}
	}
}

// TestExplainedBidIsEnough: whoever is told a bid and makes it, is served; a
// little less would not have been enough. In core time, in watts, with classes
// of energy of their own.
func TestExplainedBidIsEnough(t *testing.T) {
	told, judged := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		cores := unit.MilliCores(rapid.IntRange(1, 8).Draw(t, "cores")) * 1000
		limited := rapid.Bool().Draw(t, "watts")
		c := newTown(t, cores, func(cfg *Config) {
			cfg.Modelled = rapid.Bool().Draw(t, "modelled")
			if limited {
				cfg.Watts = unit.Microwatts(rapid.Int64Range(3_000_000, int64(cores)*10_000).Draw(t, "budget"))
			}
		})
		n := rapid.IntRange(2, 12).Draw(t, "n")
		var slots []int32
		for i := range n {
			bid := unit.Price(rapid.SampledFrom([]int{800, 1200, 1500, 2000, 2000, 2010, 3000, 4000, 7000, 20_000}).Draw(t, "bid"))
			wants := unit.MilliCores(rapid.IntRange(100, 3000).Draw(t, "wants"))
			slot := c.move(t, rich(fmt.Sprintf("w%d", i), bid), wants)
			c.watts[slot] = unit.Microwatts(rapid.Int64Range(6_000_000, 14_000_000).Draw(t, "heat"))
			slots = append(slots, slot)
		}
		c.days(60) // the unit is chosen, the classes are learned
		slot := slots[rapid.IntRange(0, n-1).Draw(t, "who")]
		x := c.explain(t, slot)
		if x.Needed == 0 {
			return
		}
		told++
		market := func() string { // as far as others' orders and the meters make it
			reserves := make([]unit.Rate, 0, n)
			for _, s := range slots {
				reserves = append(reserves, c.d.slots[s].reserve)
			}
			return fmt.Sprint(c.d.unitNow, reserves)
		}
		was := market()
		if had := price.Multiple(c.d.slots[slot].bid, c.d.base()); x.Needed <= had {
			t.Fatalf("it bids %v, is %v, and is told to bid %v", had, x.Verdict, x.Needed)
		}
		// Less than a bucket below, somebody stands in the way.
		at := c.d.slots[slot]
		q := c.d.queueOf(at)
		o := q.orders[q.own]
		if o.Bid = price.Absolute(x.Needed-1, c.d.base()); o.Bid >= o.Reserve && q.fits(q.scoreOf(&o), c.d.supply) {
			t.Errorf("%v would have been enough, told %v", x.Needed-1, x.Needed)
		}
		if err := c.d.SetBid(slot, x.Needed); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.days(1)
			if market() != was {
				return // a class or the commodity changed meanwhile: another market
			}
		}
		judged++
		if after := c.explain(t, slot); after.Verdict != VerdictServed && after.Verdict != VerdictCores {
			t.Fatalf("%+v; then a bid of %v: %+v, %+v", x, x.Needed, after, c.d.slots[slot].last)
		}
	})
	if judged < 10 {
		t.Errorf("told a bid %d times, and judged only %d of them", told, judged)
	}
}

// TestVerdictWords: every verdict has a word, and none has two.
func TestVerdictWords(t *testing.T) {
	seen := map[string]bool{}
	for v := VerdictDead; v <= VerdictObserved; v++ {
		if w := v.String(); w == "" || seen[w] {
			t.Errorf("verdict %d is %q", v, w)
		} else {
			seen[w] = true
		}
	}
	if w := (VerdictObserved + 1).String(); w != "verdict(18)" {
		t.Errorf("a verdict that is none is %q", w)
	}
}
