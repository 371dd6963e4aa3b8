package demon

import (
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Refusal is why a workload was not admitted, as a person reads it.
type Refusal struct {
	What   string // the argument at fault: "budget", "horizon", "workloads"
	Need   unit.Credits
	Reason string
}

// Error implements error.
func (r *Refusal) Error() string { return r.What + ": " + r.Reason }

// Latencies that a deposit has to outlast (DESIGN section 6, measured on a
// 2-core VM): one settlement window, the worst lateness of a tick on a loaded
// machine, and the time a freeze takes.
const (
	settleTime = 100 * time.Millisecond
	lateTime   = 22 * time.Millisecond
	stopTime   = time.Millisecond
	laneCores  = unit.MilliCores(200) // the dying lane's quota: 20 ms in 100
	termTime   = 250 * time.Millisecond
)

// Deposit returns what a workload must lock at today's prices.
func (d *Demon) Deposit(a *Admission) unit.Credits {
	return d.deposit(a, price.Absolute(d.highestBid(a), d.base()), d.grid)
}

// floorWeight is the energy part of a's deposit: what is left of it at a bid of its
// own reserve. It is that of the reference price, or who came when energy was dear
// would have more of the floor.
func (d *Demon) floorWeight(a *Admission) unit.Credits { return d.deposit(a, 0, unit.One) }

// deposit is the deposit of a at the given highest bid and grid factor.
func (d *Demon) deposit(a *Admission, bid unit.Rate, grid unit.PPM) unit.Credits {
	cores := d.cfg.Cores
	if a.Cores > 0 {
		cores = min(a.Cores, cores)
	}
	return price.Deposit(price.DepositTerms{
		Cores: cores, Epoch: d.length, Settle: settleTime, Late: lateTime, Stop: stopTime,
		Energy: d.cfg.Reference, Factor: grid, Sigma: d.cfg.Sigma,
		Bid: bid, Spot: d.spot, Reserve: d.base(),
		Term: termTime, TermCores: laneCores,
	})
}

// highestBid is the most a may come to bid.
func (d *Demon) highestBid(a *Admission) unit.Price {
	if a.Auto {
		return a.MaxBid
	}
	return a.Bid
}

// Admit opens a wallet. The returned slot indexes Input.Usage and names the
// workload in every decision until it is released.
func (d *Demon) Admit(now unit.Instant, a Admission) (int32, error) {
	a = withDefaults(a)
	if len(d.active) >= d.cfg.Capacity {
		return 0, &Refusal{What: "workloads", Reason: fmt.Sprintf("this market holds at most %d at once", d.cfg.Capacity)}
	}
	if err := checkBid(max(a.Bid, a.MaxBid)); err != nil {
		return 0, err
	}
	if d.living(a.Name) {
		return 0, &Refusal{What: "name", Reason: fmt.Sprintf("%q is taken by a workload that is alive", a.Name)}
	}
	from, err := d.draw(now, &a)
	if err != nil {
		return 0, err
	}
	deposit := d.Deposit(&a)
	open := a.Budget == 0 && from == nil
	if a.Budget > 0 && a.Budget < price.MinimumBudget(deposit) {
		return 0, &Refusal{
			What: "budget", Need: price.MinimumBudget(deposit),
			Reason: fmt.Sprintf("%v is below twice the deposit of %v that pays a workload's own death; give at least %v",
				a.Budget, deposit, roundUp(price.MinimumBudget(deposit))),
		}
	}
	if from == nil && !d.money.room(max(a.Budget, deposit)) {
		return 0, &Refusal{What: "budget", Reason: fmt.Sprintf("%v is more money than a market can hold; give less", a.Budget)}
	}
	w := &workload{ask: a, life: apoptosis.New(a.Policy), admitted: now, trip: apoptosis.None, unitGrid: d.grid}
	w.class = market.NewEClass(d.cfg.Reference, now)
	w.floorWeight = d.floorWeight(&a)
	w.purse = purse{open: open, granted: a.Budget, balance: a.Budget - deposit, deposit: deposit}
	if open {
		w.purse.granted, w.purse.balance = deposit, 0
	}
	if from != nil {
		first := a.Budget
		if first == 0 {
			first = price.MinimumBudget(deposit)
		}
		w.purse.granted, w.purse.moved, w.purse.balance, w.purse.from = 0, first, first-deposit, from
		from.changed = true
	}
	if err := d.pace(w, now); err != nil {
		return 0, err
	}
	w.slot, w.id = d.takeSlot(), d.nextID+1
	if err := d.money.open(w); err != nil {
		d.free = append(d.free, w.slot)
		return 0, &Refusal{What: "name", Reason: err.Error()}
	}
	d.nextID++
	d.stand(w)
	d.enter(w)
	d.raise(w, Event{Kind: EventAdmitted})
	d.keep(w)
	return w.slot, nil
}

// stand gives w its place in the epoch that is running. Until it is ranked it
// stands at its bid: a newcomer that displaces others in its first epoch pays for
// that, or respawning every epoch would be free.
func (d *Demon) stand(w *workload) {
	w.quantity = -1
	w.bid, w.watts, w.reserve = price.Absolute(w.ask.Bid, d.base()), d.wattsOf(w), d.reserveOf(w)
	w.last = market.Allocation{Score: d.newcomer(&w.ask), Cap: market.NoCap}
}

// enter puts w into its slot.
func (d *Demon) enter(w *workload) {
	d.names[w.ask.Name] = w.slot
	d.slots[w.slot] = w
	d.active = append(d.active, w.slot)
}

func (d *Demon) living(name string) bool {
	_, taken := d.names[name]
	return taken
}

// newcomer is the score of a bid at the node's own class.
func (d *Demon) newcomer(a *Admission) market.Bucket {
	above := price.Absolute(a.Bid, d.base()) - d.base()
	if d.unitNow == market.Watts {
		above = unit.Rate(unit.MulDivSat(int64(max(0, above)), 1_000_000, int64(d.cfg.Reference)))
	}
	return market.BucketOf(above)
}

// roundUp rounds an amount up to a whole $J: what a person types.
func roundUp(c unit.Credits) unit.Credits {
	const whole = 1_000_000
	return (c + whole - 1) / whole * whole
}

func withDefaults(a Admission) Admission {
	if a.Bid == 0 {
		a.Bid = defaultBid
	}
	if a.MaxBid == 0 {
		a.MaxBid = max(defaultMax, a.Bid)
	}
	return a
}

// takeSlot returns a free slot, the lowest first while none was returned.
func (d *Demon) takeSlot() int32 {
	if n := len(d.free); n > 0 {
		slot := d.free[n-1]
		d.free = d.free[:n-1]
		return slot
	}
	d.slots = append(d.slots, nil)
	d.scratch.used = append(d.scratch.used, 0)
	d.scratch.joules = append(d.scratch.joules, 0)
	d.split.Grow(len(d.slots))
	return int32(len(d.slots) - 1)
}

// Started tells the demon that slot's command runs. Until it shows otherwise
// it is taken to want one core.
func (d *Demon) Started(slot int32) {
	if w := d.at(slot); w != nil && !w.started {
		w.started = true
		w.desire = d.newDesire(w)
		d.raise(w, Event{Kind: EventStarted})
		d.keep(w)
	}
}

// newDesire is what w is taken to want until it shows: one core.
func (d *Demon) newDesire(w *workload) unit.PPM { return min(unit.One, unit.PPM(d.coresOf(w))*1000) }

// Gone tells the demon that slot's main process ended; signaled: by a signal
// that Maxwell did not send.
func (d *Demon) Gone(slot int32, signaled bool) {
	if w := d.at(slot); w != nil && !w.gone {
		w.gone, w.killed = true, signaled && !w.dying
	}
}

// SetPeak corrects the peak memory of a workload whose group is being removed.
func (d *Demon) SetPeak(slot int32, peak unit.Bytes) {
	if w := d.at(slot); w != nil {
		w.usage.PeakMemory = max(w.usage.PeakMemory, peak)
	}
}

// Stop ends slot at the next tick, for the reason given.
func (d *Demon) Stop(slot int32, why apoptosis.Reason) {
	if w := d.at(slot); w != nil && w.trip == apoptosis.None {
		w.trip = why
		d.touch(w)
	}
}

// Suspend stops slot because its owner asked for it (^Z), or lets it go on.
// It takes effect at the next tick.
func (d *Demon) Suspend(slot int32, asleep bool) {
	if w := d.at(slot); w != nil {
		w.asleep = asleep
	}
}

// Fund adds money to slot's wallet and returns the new balance. An open
// wallet has no use for it, a dead one cannot take it.
func (d *Demon) Fund(slot int32, amount unit.Credits) (unit.Credits, error) {
	w := d.at(slot)
	if err := d.fundable(w, amount); err != nil {
		return 0, err
	}
	w.purse.granted += amount
	w.purse.balance += amount
	d.money.loose += amount
	d.touch(w)
	return w.purse.balance, nil
}

// holds reports whether amount more can be minted into w's wallet, which may have given
// away what it was given before.
func (d *Demon) holds(w *workload, amount unit.Credits) bool {
	return d.money.room(amount) && amount <= mostMoney-w.purse.granted-w.purse.income
}

// fundable says why w cannot be given amount, if it cannot.
func (d *Demon) fundable(w *workload, amount unit.Credits) error {
	switch {
	case w == nil || w.dead:
		return &Refusal{What: "name", Reason: "it is dead; money cannot help it any more"}
	case w.purse.open:
		return &Refusal{What: "name", Reason: "its wallet is open: it has no budget to add to"}
	case w.draws():
		return w.drawsFrom()
	case amount <= 0:
		return &Refusal{What: "amount", Reason: "give a positive amount"}
	case !d.holds(w, amount):
		return &Refusal{What: "amount", Reason: fmt.Sprintf("%v is more money than a market can hold; give less", amount)}
	}
	return nil
}

// Report credits units of finished work. It is self-reported: nothing here
// proves it.
func (d *Demon) Report(slot int32, kind string, units int64) {
	w := d.at(slot)
	if w == nil || w.dead || units <= 0 {
		return
	}
	d.Work(slot, units)
	if w.ask.Income == 0 || (w.ask.Kind != "" && kind != "" && kind != w.ask.Kind) {
		return
	}
	income := unit.Credits(unit.MulDivSat(int64(w.ask.Income), units, 1))
	if !d.holds(w, income) {
		return // nobody earns more than a market can hold
	}
	w.purse.income += income
	w.purse.balance += income
	d.money.loose += income
}

// Work counts units of finished work that earn nothing.
func (d *Demon) Work(slot int32, units int64) {
	if w := d.at(slot); w != nil && !w.dead {
		w.work += min(max(0, units), 1<<62-w.work)
	}
}

// checkBid refuses what is more than a market takes.
func checkBid(bid unit.Price) error {
	if bid > MostBid {
		return &Refusal{What: "bid", Reason: fmt.Sprintf("a market takes bids of at most %v; give less", MostBid)}
	}
	return nil
}

// SetBid changes slot's bid from the next tick on.
func (d *Demon) SetBid(slot int32, bid unit.Price) error {
	w := d.at(slot)
	if w == nil || w.dead {
		return &Refusal{What: "name", Reason: "it is dead"}
	}
	if bid <= 0 {
		return &Refusal{What: "bid", Reason: "give a positive multiple, like 4x"}
	}
	if err := checkBid(bid); err != nil {
		return err
	}
	w.ask.Bid, w.ask.Auto = bid, false
	d.touch(w)
	return d.pace(w, d.now)
}

// SetAuto lets the market bid for slot from the next tick on, up to most; 0 = as it
// was, or the usual ceiling. It needs a budget to pace.
func (d *Demon) SetAuto(slot int32, most unit.Price) error {
	w := d.at(slot)
	if w == nil || w.dead {
		return &Refusal{What: "name", Reason: "it is dead"}
	}
	if most < 0 {
		return &Refusal{What: "bid", Reason: "give a positive ceiling, like 8x"}
	}
	if err := checkBid(most); err != nil {
		return err
	}
	d.touch(w)
	before := w.ask
	w.ask.Auto = true
	if most > 0 {
		w.ask.MaxBid = most
	}
	if w.ask.MaxBid == 0 {
		w.ask.MaxBid = max(defaultMax, w.ask.Bid)
	}
	if w.ask.Horizon == 0 && w.ask.Rate == 0 {
		w.ask.Horizon = autoHorizon
	}
	if err := d.pace(w, d.now); err != nil {
		w.ask = before
		return err
	}
	return nil
}

// Abandon buries and releases a workload that was admitted but for which
// nothing could be made on the machine.
func (d *Demon) Abandon(slot int32) {
	w := d.at(slot)
	if w == nil || w.started {
		return
	}
	w.life.Step(apoptosis.Input{Now: d.now, Trip: apoptosis.Failed, Solvent: true})
	d.bury(w)
	d.Release(slot)
}

// Release frees the slot of a buried workload: its group is gone.
func (d *Demon) Release(slot int32) {
	w := d.at(slot)
	if w == nil {
		return
	}
	if !w.dead {
		panicf("demon: release of slot %d, which is %v", slot, w.life.State())
	}
	d.remember(w)
	delete(d.names, w.ask.Name)
	d.split.Forget(int(slot))
	d.slots[slot] = nil
	d.free = append(d.free, slot)
	for i, s := range d.active {
		if s == slot {
			d.active = append(d.active[:i], d.active[i+1:]...)
			return
		}
	}
}
