package demon

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	dollar = unit.Credits(1_000_000)
	tick   = 50 * time.Millisecond
)

// bench is a one-core machine of 10 W on which a test says who runs.
type bench struct {
	t   *testing.T
	d   *Demon
	in  Input
	out Decisions
	log []Event

	lose   bool             // readings are lost
	energy unit.Microjoules // that the next one shows
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	cfg := Config{
		Cores: 1000, Reference: 10_000_000, Modelled: true, Landauer: price.DefaultLandauer(), Seed: [2]uint64{1, 2},
	}
	if change != nil {
		change(&cfg)
	}
	return &bench{t: t, d: New(cfg, 0)}
}

func (b *bench) admit(a Admission) int32 {
	b.t.Helper()
	slot, err := b.d.Admit(b.in.Now, a)
	if err != nil {
		b.t.Fatalf("admit %s: %v", a.Name, err)
	}
	for int(slot) >= len(b.in.Usage) {
		b.in.Usage = append(b.in.Usage, Usage{})
	}
	b.in.Usage[slot] = Usage{Populated: true}
	b.d.Started(slot)
	return slot
}

// pass lets dt go by in which each slot ran so long; everybody wanted it all.
func (b *bench) pass(dt time.Duration, ran map[int32]time.Duration) {
	b.t.Helper()
	busy := unit.CoreTime(0)
	for slot, r := range ran {
		b.in.Usage[slot].Run += unit.CoreTime(r)
		b.in.Usage[slot].Wait += unit.CoreTime(dt - r)
		busy += unit.CoreTime(r)
	}
	b.in.Now += unit.Instant(dt)
	b.in.Busy += busy
	b.energy += unit.Microjoules(busy / 100)
	if !b.lose {
		b.in.Reading = physics.Reading{At: b.in.Now, Energy: b.energy, Source: physics.SourceGeneric}
	}
	b.d.Step(&b.in, &b.out)
	b.log = append(b.log, b.out.Events...)
}

// step lets an epoch go by in which nobody ran or wanted to.
func (b *bench) step() {
	b.t.Helper()
	b.pass(tick, nil)
}

func (b *bench) told(slot int32, kind ActionKind) bool {
	for _, a := range b.out.Actions {
		if a.Slot == slot && a.Kind == kind {
			return true
		}
	}
	return false
}

func (b *bench) line(slot int32) Line {
	b.t.Helper()
	l, ok := b.d.LineOf(slot)
	if !ok {
		b.t.Fatalf("no line for slot %d", slot)
	}
	return l
}

// alone runs slot by itself until it is told to stop, at most n ticks.
func (b *bench) alone(slot int32, n int) {
	b.t.Helper()
	for range n {
		b.pass(tick, map[int32]time.Duration{slot: tick})
		if b.told(slot, Freeze) {
			return
		}
	}
	b.t.Fatalf("slot %d still runs after %d ticks: %+v", slot, n, b.line(slot))
}

// TestAloneBuysAJouleForADollar: nobody competes, so 1x is the price.
func TestAloneBuysAJouleForADollar(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Budget: 100 * dollar})
	for range 20 {
		b.pass(tick, map[int32]time.Duration{slot: tick})
	}
	l := b.line(slot)
	if l.Energy != 10_000_000 || l.Spent.Energy != 10*dollar || l.Spent.Rent != 0 {
		t.Errorf("one core-second of 10 W cost %v and %v rent for %v", l.Spent.Energy, l.Spent.Rent, l.Energy)
	}
}

// TestTwinsPayWhatTheOtherBid: of two equal hogs each displaces the other.
func TestTwinsPayWhatTheOtherBid(t *testing.T) {
	b := newBench(t, nil)
	x := b.admit(Admission{Name: "x", Budget: 500 * dollar, Bid: 2000})
	y := b.admit(Admission{Name: "y", Budget: 500 * dollar, Bid: 2000})
	for range 40 {
		b.pass(tick, map[int32]time.Duration{x: tick / 2, y: tick / 2})
	}
	for _, slot := range []int32{x, y} {
		l := b.line(slot)
		// 10 $J of energy; rent at one base price (bid 2x - reserve 1x), less
		// the floor's 2 % and the bucket's 1.1 %.
		if l.Spent.Energy != 10*dollar || l.Spent.Rent < 9_500_000 || l.Spent.Rent > 10*dollar {
			t.Errorf("%s paid %v energy and %v rent", l.Name, l.Spent.Energy, l.Spent.Rent)
		}
	}
	if spot := price.Multiple(b.d.Spot(), b.d.BaseRate()); spot < 1950 || spot > 2000 {
		t.Errorf("spot is %v, want 2x less a bucket", spot)
	}
}

// TestBrokeIsFrozenAtOnceAndDies walks the whole road of DESIGN section 6.
func TestBrokeIsFrozenAtOnceAndDies(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "leech", Budget: 10 * dollar, Policy: apoptosis.Policy{Grace: time.Second}})
	deposit := b.line(slot).Deposit
	b.alone(slot, 100)
	l := b.line(slot)
	if l.State != apoptosis.Broke {
		t.Fatalf("state %v, want broke", l.State)
	}
	if drawn := deposit - l.Deposit; drawn > deposit/2 {
		t.Errorf("a tick's overdraft took %v of the deposit of %v", drawn, deposit)
	}
	for range 21 {
		b.pass(tick, nil)
	}
	if !b.told(slot, Term) && b.line(slot).State != apoptosis.Dying {
		t.Fatalf("after its grace it is %v", b.line(slot).State)
	}
	b.in.Usage[slot].Populated = false
	b.d.Gone(slot, true)
	b.pass(tick, nil)
	l = b.line(slot)
	if !b.told(slot, Bury) || l.State != apoptosis.Dead || l.Reason != apoptosis.Insolvent {
		t.Fatalf("%v of %v, want dead of insolvency", l.State, l.Reason)
	}
	if l.Deposit != 0 || l.Budget != l.Total()+l.Balance {
		t.Errorf("closing books: budget %v, spent %v, balance %v, deposit %v", l.Budget, l.Total(), l.Balance, l.Deposit)
	}
	b.d.Release(slot)
	if s := b.d.Statement(); s.Sum != 0 || len(s.Lines) != 1 || s.Lines[0].Reason != apoptosis.Insolvent {
		t.Errorf("statement %+v", s)
	}
}

// TestFundedInTimeLives thaws a broke workload that somebody helps.
func TestFundedInTimeLives(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Budget: 10 * dollar, Policy: apoptosis.Policy{Grace: time.Second}})
	b.alone(slot, 100)
	if _, err := b.d.Fund(slot, 5*dollar); err != nil {
		t.Fatal(err)
	}
	b.pass(tick, nil)
	if !b.told(slot, Thaw) || b.line(slot).State != apoptosis.Running && b.line(slot).State != apoptosis.Waiting {
		t.Errorf("funded and %v, actions %v", b.line(slot).State, b.out.Actions)
	}
}

// TestSuspendedMachineIsALoss: an epoch of an hour costs more than there is.
func TestSuspendedMachineIsALoss(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Budget: 20 * dollar})
	b.pass(time.Hour, map[int32]time.Duration{slot: time.Hour})
	l := b.line(slot)
	if l.Total() > l.Budget || l.Balance != 0 || l.Deposit != 0 {
		t.Errorf("spent %v of %v, balance %v, deposit %v", l.Total(), l.Budget, l.Balance, l.Deposit)
	}
	if want := 36_000*dollar - 20*dollar; l.Loss != want {
		t.Errorf("written off %v, want %v", l.Loss, want)
	}
	if s := b.d.Statement(); s.Sum != 0 || s.Accounts["loss"] != -l.Loss {
		t.Errorf("loss account %v, sum %v", s.Accounts["loss"], s.Sum)
	}
}

// TestStoppedLosersStillCompete: on a rung that stops its losers, the winner
// pays for what they wanted, not for what they could show.
func TestStoppedLosersStillCompete(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Duty = true })
	x := b.admit(Admission{Name: "x", Budget: 500 * dollar, Bid: 8000})
	y := b.admit(Admission{Name: "y", Budget: 500 * dollar, Bid: 4000})
	b.pass(tick, map[int32]time.Duration{x: tick / 2, y: tick / 2})
	for range 20 {
		b.in.Usage[y].Stopped = true
		b.pass(tick, map[int32]time.Duration{x: tick})
	}
	l := b.line(x)
	rent := float64(l.Spent.Rent) / float64(l.Spent.Energy)
	if rent < 2.7 || rent > 3.0 {
		t.Errorf("the winner paid %.2f base prices of rent, want the loser's 3 less floor and bucket", rent)
	}
}

// TestCapsEndWithTheirReason trips each cap.
func TestCapsEndWithTheirReason(t *testing.T) {
	for _, test := range []struct {
		name string
		ask  Admission
		hurt func(*Usage)
		want apoptosis.Reason
	}{
		{"cpu", Admission{MaxCPU: unit.CoreTime(200 * time.Millisecond)}, nil, apoptosis.CapCPU},
		{"energy", Admission{MaxEnergy: 2_000_000}, nil, apoptosis.CapEnergy},
		{"timeout", Admission{Timeout: 200 * time.Millisecond}, nil, apoptosis.Timeout},
		{"memory", Admission{Memory: 1 << 20}, func(u *Usage) { u.OOMKills = 1 }, apoptosis.CapMemory},
		{"pids", Admission{Pids: 10}, func(u *Usage) { u.PidsRefused = 1 }, apoptosis.CapPids},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, nil)
			test.ask.Name = test.name
			slot := b.admit(test.ask)
			for range 4 {
				b.pass(tick, map[int32]time.Duration{slot: tick})
			}
			if test.hurt != nil {
				test.hurt(&b.in.Usage[slot])
				b.pass(tick, map[int32]time.Duration{slot: tick})
			}
			if l := b.line(slot); l.Reason != test.want {
				t.Errorf("reason %v, want %v", l.Reason, test.want)
			}
			warned := false
			for _, e := range b.log {
				warned = warned || (e.Kind == EventWarned && e.What == test.want)
			}
			if (test.name == "cpu" || test.name == "energy") && !warned {
				t.Errorf("no warning before the %s cap", test.name)
			}
		})
	}
}

// TestGateComesBeforeTheTick: who may go broke before the next tick is named,
// with the core time the balance buys.
func TestGateComesBeforeTheTick(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Budget: 10 * dollar})
	for range 100 {
		b.pass(tick, map[int32]time.Duration{slot: tick})
		if len(b.out.Gates) > 0 {
			break
		}
	}
	if len(b.out.Gates) == 0 {
		t.Fatal("no gate")
	}
	g, l := b.out.Gates[0], b.line(slot)
	if want := unit.CoreTime(l.Balance) * 100; g.Allowance != want { // 10 $J a core-second: 100 ns a micro-$J
		t.Errorf("allowance %v for a balance of %v", time.Duration(g.Allowance), l.Balance)
	}
}

// TestSupplyIsWhatThereWas: while the rest of the machine takes half, half is
// for sale.
func TestSupplyIsWhatThereWas(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Budget: 1000 * dollar})
	for range 30 {
		b.pass(tick, map[int32]time.Duration{slot: tick / 2})
	}
	// One hog alone on a shared core is not unmet demand of the market.
	if l := b.line(slot); l.Spent.Rent != 0 {
		t.Errorf("a lone workload paid rent: %v", l.Spent.Rent)
	}
	other := b.admit(Admission{Name: "b", Budget: 1000 * dollar})
	for range 30 {
		b.pass(tick, map[int32]time.Duration{slot: tick / 4, other: tick / 4})
	}
	if s := b.d.Statement(); s.Share < 450_000 || s.Share > 550_000 {
		t.Errorf("the market believes in %v of its cores, want half", s.Share)
	}
}

// TestRefusals says why, in one line, and leaves nothing behind.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name string
		ask  Admission
		want string
	}{
		{"poor", Admission{Name: "a", Budget: dollar}, "below twice the deposit"},
		{"rich", Admission{Name: "a", Budget: 1 << 62}, "more money than a market can hold"},
		{"hasty", Admission{Name: "a", Budget: 100 * dollar, Horizon: time.Second}, "too short to pace"},
		{"open auto", Admission{Name: "a", Auto: true, Horizon: time.Minute}, "needs a budget"},
		{"taken", Admission{Name: "there", Budget: 100 * dollar}, "is taken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, nil)
			b.admit(Admission{Name: "there", Budget: 100 * dollar})
			before := b.d.Statement()
			_, err := b.d.Admit(b.in.Now, test.ask)
			if _, ok := errors.AsType[*Refusal](err); !ok || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if after := b.d.Statement(); after.Minted != before.Minted || len(after.Lines) != len(before.Lines) {
				t.Errorf("a refusal changed the books")
			}
		})
	}
}

// TestAutoLastsForItsHorizon plays a lone --bid auto: the node paces it, by
// quantity too, because spare time would end it early.
func TestAutoLastsForItsHorizon(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Budget: 100 * dollar, Auto: true, Horizon: 20 * time.Second})
	frozen := false
	for range 399 { // the last tick of the horizon may spend the last of it
		run := tick
		if frozen {
			run = 0
		}
		for _, g := range b.out.Gates {
			if g.Slot == slot && unit.CoreTime(run) > g.Allowance {
				run = time.Duration(g.Allowance)
				frozen = true
				b.d.Exhausted(slot)
			}
		}
		b.pass(tick, map[int32]time.Duration{slot: run})
		if b.told(slot, Freeze) {
			frozen = true
		}
		if b.told(slot, Thaw) {
			frozen = false
		}
		if st := b.line(slot).State; st == apoptosis.Broke {
			t.Fatalf("bankrupt at %v of 20s", time.Duration(b.in.Now))
		}
	}
	l := b.line(slot)
	spent := float64(l.Total()) / float64(l.Budget-l.Deposit)
	if spent < 0.95 || spent > 1 {
		t.Errorf("spent %.1f %% of what it had at the horizon, want 95 to 100", 100*spent)
	}
}

// TestNewcomerPaysForWhomItDisplaces: before it was ever ranked a wallet is
// priced at its bid, in core time and in watts alike.
func TestNewcomerPaysForWhomItDisplaces(t *testing.T) {
	for name, watts := range map[string]unit.Microwatts{"cores": 0, "watts": 10_000_000} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.Watts, c.Floor = watts, -1 })
			old := b.admit(Admission{Name: "old", Budget: 100 * dollar, Bid: 4000})
			for range 10 {
				b.pass(tick, map[int32]time.Duration{old: tick})
			}
			if got := b.out.Ended.Unit.String(); got != name {
				t.Fatalf("the commodity is %s, want %s", got, name)
			}
			young := b.admit(Admission{Name: "young", Budget: 100 * dollar, Bid: 8000})
			b.pass(tick, map[int32]time.Duration{young: tick, old: 0})
			l := b.line(young)
			// 50 ms of a core that "old" wanted for 3x above physics: 1.5 $J.
			if want := 1500 * dollar / 1000; l.Spent.Rent < want*98/100 || l.Spent.Rent > want {
				t.Errorf("paid %v rent, want just below %v", l.Spent.Rent, want)
			}
		})
	}
}

// TestSmallBudgetIsWarned: what is locked for a workload's own death cannot be
// spent, so warnings count the rest; of 25 $J more than a fifth is locked.
func TestSmallBudgetIsWarned(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Sigma = 500_000 })
	slot := b.admit(Admission{Name: "a", Budget: 25 * dollar})
	b.alone(slot, 100)
	var warned []int32
	for _, e := range b.log {
		if e.Kind == EventWarned && e.What == apoptosis.Insolvent {
			warned = append(warned, e.Percent)
		}
	}
	if len(warned) != 2 || warned[0] != 80 || warned[1] != 95 {
		t.Errorf("warned at %v %% before it was broke, want 80 and 95", warned)
	}
}

// TestSoftGates: whom only its pacing stops is watched as closely as it may run:
// from the first nanosecond when nothing is in its way, hardly in a queue, and in
// a crowd not at all while it sleeps and can pay for waking up.
func TestSoftGates(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Capacity = ShortUpTo + 50 })
	lone := b.admit(Admission{Name: "lone", Budget: 200 * dollar, Rate: unit.Spend(dollar / 4)})
	gate := func() (Gate, bool) {
		for _, g := range b.out.Gates {
			if g.Slot == lone {
				return g, true
			}
		}
		return Gate{}, false
	}
	b.pass(tick, map[int32]time.Duration{lone: tick})
	b.pass(tick, map[int32]time.Duration{lone: tick})
	if g, ok := gate(); ok && g.Cores != 1000 {
		t.Errorf("nobody is in its way, and it is expected to use %v", g.Cores)
	}
	for range 10 { // until it owes
		if b.told(lone, Freeze) {
			break
		}
		b.pass(tick, map[int32]time.Duration{lone: tick})
	}
	if !b.told(lone, Freeze) {
		t.Fatalf("it runs at 10 $J a second, is paced at a quarter and was not stopped")
	}
	for range 400 { // held, until its pace has caught up
		b.step()
		if b.told(lone, Thaw) {
			break
		}
	}
	if g, ok := gate(); !ok || !g.Soft || g.Cores != 1000 {
		t.Errorf("thawed it may do anything, and its gate is %+v, %v", g, ok)
	}
	b.pass(tick, map[int32]time.Duration{lone: tick / 500}) // it ran 0.1 ms and waited
	if g, ok := gate(); ok && g.Cores > 400 {
		t.Errorf("in a queue it is expected to use %v", g.Cores)
	}
	for i := range ShortUpTo {
		b.admit(Admission{Name: "sleeper" + string(rune('a'+i%26)) + string(rune('a'+i/26))})
	}
	b.step()
	if _, ok := gate(); ok {
		t.Errorf("asleep in a crowd and rich it has a gate")
	}
}

// TestSleeperIsNotWaiting: who wants no core time is not priced out, however dear it is.
func TestSleeperIsNotWaiting(t *testing.T) {
	b := newBench(t, nil)
	sleeper := b.admit(Admission{Name: "sleeper", Budget: 100 * dollar, Bid: 1500})
	hogs := map[int32]time.Duration{}
	for _, name := range []string{"a", "b"} {
		hogs[b.admit(Admission{Name: name, Budget: 1000 * dollar, Bid: 8000})] = tick / 2
	}
	for i := range 40 {
		b.pass(tick, hogs)
		if have := b.line(sleeper).State; i > 0 && have != apoptosis.Running { // a newcomer is not ranked yet
			t.Fatalf("tick %d: it wants nothing and is %v", i, have)
		}
	}
	hogs[sleeper] = 0 // wakes
	for range 10 {
		b.pass(tick, hogs)
	}
	if have := b.line(sleeper).State; have != apoptosis.Waiting {
		t.Errorf("outbid and awake it is %v", have)
	}
}
