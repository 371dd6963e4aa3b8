package demon

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Readopted is what a workload used while no daemon was there, and what it paid
// for it. Nobody metered its energy: it is the node's reference power for the
// core time that the kernel counted. There is no rent, because there was no market.
type Readopted struct {
	Times  int64            `json:"times"`
	CPU    unit.CoreTime    `json:"cpu_ns"`
	Energy unit.Microjoules `json:"energy_uj"`
	Cost   unit.Credits     `json:"cost_ucredits"` // paid by its balance and its deposit; part of its energy cost
	Loss   unit.Credits     `json:"loss_ucredits"` // what those could not pay; part of its loss
}

// Resume returns a market whose books are entries, replayed: what Entries of
// earlier processes handed over, in order; all of it, or from books that were carried
// forward. Its workloads are not in it yet. Before the first Step the caller gives
// every saved one to Readopt or to BuryLost; the first Step returns the money of the
// others to the mint.
func Resume(cfg Config, now unit.Instant, entries iter.Seq[ledger.Entry]) (*Demon, error) {
	d := newDemon(cfg, now)
	t := newTally(d.book)
	count := 0
	for e := range entries {
		count++
		if status := t.Replay(&e); status != ledger.OK {
			return nil, fmt.Errorf("entry %d (%v) does not fit the books before it: %v", count, e.Change, status)
		}
	}
	b := bookkeeper{book: d.book, wallet: make(map[string]bool), at: t.at, asked: t.asked}
	d.nextID = t.highest
	for a := range d.book.Accounts() {
		if name, ok := strings.CutPrefix(a.Name, ledger.KindWallet.String()+":"); ok {
			b.wallet[name] = true
		}
	}
	// No transfer of this process may have the id of an earlier one, even if it
	// was given the same seed.
	b.prefix = d.rng.Uint64()
	for b.asked.taken(b.prefix) {
		b.prefix = d.rng.Uint64()
	}
	b.asked.own[b.prefix] = struct{}{}
	b.keep = cfg.Journal
	b.openChart()
	d.money = b
	d.resumed = true
	return d, nil
}

// Readopt takes a saved workload back into the market. run is the core time of
// its group by the kernel's own counter at this moment, since it was made. What is
// beyond s.Run has not been charged: it is billed here, once, at the node's
// reference power and the grid factor last in force (Config.Grid), from its balance and then its
// deposit; the rest goes to the loss account. A counter below s.Run is not
// believed and costs nothing.
//
// From here on Input.Usage of the slot counts from zero, as for a newcomer. The
// caller makes the group what the demon takes it to be: frozen if Frozen says
// so, free to run if not.
func (d *Demon) Readopt(now unit.Instant, s Saved, run unit.CoreTime) (int32, Readopted, error) {
	w, err := d.restore(now, &s)
	if err != nil {
		return 0, Readopted{}, fmt.Errorf("readopt %s: %w", s.Terms.Name, err)
	}
	gap := d.bridge(w, run-s.Run)
	d.inherited += s.Energy
	d.totals.Node += s.Energy
	d.totals.Attributed += s.Energy
	d.raise(w, Event{Kind: EventReadopted})
	d.save(w)
	return w.slot, gap, nil
}

// Frozen reports whether slot was last told to be frozen.
func (d *Demon) Frozen(slot int32) bool {
	w := d.at(slot)
	return w != nil && w.frozen
}

// BuryLost closes the books of a saved workload whose group is gone: its tree
// ended while no daemon was there, or the machine was started anew. If its counter
// is known (hasRun), what was not charged yet is billed as in Readopt, and it has
// exited; if not, it is lost. One that was dying keeps its reason, and one that was
// broke until after its grace was insolvent. Its line is remembered like those of
// the other dead.
func (d *Demon) BuryLost(now unit.Instant, s Saved, run unit.CoreTime, hasRun bool) (Line, error) {
	if !hasRun {
		run = s.Run
	}
	slot, _, err := d.Readopt(now, s, run)
	if err != nil {
		return Line{}, err
	}
	w := d.slots[slot]
	d.events = d.events[:len(d.events)-1] // it was not taken back
	if !hasRun || !w.started {
		w.trip = apoptosis.Lost
	}
	if at, timed := w.life.Deadline(); timed && now >= at && hasRun {
		// It was frozen, or dying, and its time was over: that is what ended it.
		w.life.Step(apoptosis.Input{Now: now, Started: true, Populated: true})
	}
	w.life.Step(apoptosis.Input{
		Now: now, Solvent: true, Started: w.started, Trip: w.trip, ChildGone: true, ChildSignaled: w.killed,
	})
	d.bury(w)
	w.ended = now
	d.Release(slot)
	return d.dead[len(d.dead)-1], nil
}

// WriteOff closes the books of a saved workload that neither Readopt nor BuryLost takes,
// because what was saved of it does not fit the books. Nothing is billed: what the books
// say it has goes back to the standing wallet that it names, if that is open, or by the
// first Step to the mint. Its line is what was saved, and it is lost.
func (d *Demon) WriteOff(now unit.Instant, s *Saved) Line {
	name := s.Terms.Name
	wallet, bond := ledger.Wallet(name).ID, ledger.Deposit(name).ID
	if _, bonded := d.book.Lookup(bond); bonded && !d.living(name) {
		for t := range d.book.Holds() {
			if t.Debit == wallet {
				d.money.release(name, t.ID)
				break
			}
		}
		if v := d.wallets[s.Terms.Wallet]; v != nil {
			b := &d.money
			b.chain, b.user = b.chain[:0], s.ID
			has := b.book.Balance(bond)
			b.add(bond, wallet, has, ledger.ForRefund)
			if b.add(wallet, v.account, has+b.book.Balance(wallet), ledger.ForReturn); len(b.chain) > 0 {
				b.apply(name)
				v.changed = true
			}
		}
	}
	d.nextID = max(d.nextID, s.ID)
	return Line{
		ID: s.ID, Name: name, Started: s.Started, State: apoptosis.Dead, Reason: apoptosis.Lost,
		Open: s.Open, Budget: s.Granted + s.Moved, Moved: s.Moved, Income: s.Income, Spent: s.Spent, Other: s.Other, Loss: s.Loss,
		Energy: s.Energy, CPU: s.Run, Wait: s.Wait, Erased: s.Erased, Metered: s.HasErased, Peak: s.PeakMemory, Work: s.Work,
		Bid: s.Terms.Bid, Auto: s.Terms.Auto, MaxBid: s.Terms.MaxBid, Alive: max(0, time.Duration(now-s.Admitted)),
		Wallet: s.Terms.Wallet, Enforce: s.Terms.Enforce, WouldHave: s.WouldHave, Readopted: s.Readopted,
	}
}

// restore makes the workload of s and gives it a slot. It changes nothing if it
// fails.
func (d *Demon) restore(now unit.Instant, s *Saved) (*workload, error) {
	life, err := apoptosis.Restore(s.Terms.Policy, s.Life)
	from, open := d.wallets[s.Terms.Wallet]
	switch {
	case s.Version != SavedVersion:
		return nil, fmt.Errorf("saved in version %d, this Maxwell knows %d", s.Version, SavedVersion)
	case err != nil:
		return nil, err
	case int(s.Terms.Enforce) >= len(enforceNames):
		return nil, fmt.Errorf("unknown mode of enforcement %d", s.Terms.Enforce)
	case s.Terms.Wallet != "" && !open:
		return nil, fmt.Errorf("the wallet %q that pays it is not open", s.Terms.Wallet)
	case s.Dead():
		return nil, fmt.Errorf("it is dead: its books are closed")
	case d.living(s.Terms.Name):
		return nil, fmt.Errorf("a workload of its name is alive")
	case s.Run < 0 || s.Wait < 0 || s.Energy < 0 || s.Erased < 0 || !s.Carry.Valid():
		return nil, fmt.Errorf("its saved counters make no sense")
	}
	w := &workload{
		id: s.ID, ask: s.Terms, life: life, trip: s.Trip, carry: s.Carry, admitted: s.Admitted,
		started: s.Started, gone: s.Ended, killed: s.Signaled, asleep: s.Suspended, laneFrom: s.Lane, warned: s.Warned,
		run: s.Run, wait: s.Wait, energy: s.Energy, erased: s.Erased, hasErased: s.HasErased, work: s.Work,
		unitPrice: s.Price, unitGrid: max(s.Grid, price.Lowest), readopted: s.Readopted, would: s.WouldHave, base: base{run: s.Run, wait: s.Wait, erased: s.Erased},
		purse: purse{
			open: s.Open, granted: s.Granted, income: s.Income, moved: s.Moved, balance: s.Balance, deposit: s.Deposit,
			spent: s.Spent, other: s.Other, loss: s.Loss, from: from,
		},
	}
	w.ask.Bid, w.ask.MaxBid = min(w.ask.Bid, MostBid), min(w.ask.MaxBid, MostBid) // an older Maxwell took more
	w.usage.PeakMemory = s.PeakMemory
	w.purse.posted = w.purse.marks()
	w.purse.posted.hold, w.purse.posted.held = s.Hold, s.Held
	if err := d.money.fits(w); err != nil {
		return nil, err
	}
	if err := d.pace(w, now); err != nil {
		// What it was paced by may be gone: its wallet's allowance. It goes on at its bid:
		// money that is in the books is no reason not to come back.
		w.ask.Auto = false
	}
	w.paceUntil(s.PaceEnd)
	state := life.State()
	w.dying = state == apoptosis.Dying
	w.halted = state == apoptosis.Broke || state == apoptosis.Paused
	w.frozen = w.started && !w.dying && (w.halted || w.asleep)
	w.class = market.NewEClass(d.cfg.Reference, now)
	w.floorWeight = d.floorWeight(&w.ask)
	w.slot = d.takeSlot()
	d.nextID = max(d.nextID, s.ID)
	d.stand(w)
	if w.started {
		w.desire = d.newDesire(w)
	}
	d.enter(w)
	return w, nil
}

// paceUntil ends w's horizon at end.
func (w *workload) paceUntil(end unit.Instant) {
	switch {
	case w.auto != nil:
		w.auto.EndAt(end)
	case w.pacer != nil:
		w.pacer.EndAt(end)
	}
}

// bridge bills w for the core time that it used while no daemon was there.
func (d *Demon) bridge(w *workload, ran unit.CoreTime) Readopted {
	gap := Readopted{Times: 1, CPU: max(0, ran)}
	gap.Energy = unit.Microjoules(unit.MulDivSat(int64(d.cfg.Reference), int64(gap.CPU), int64(time.Second)))
	bill := price.Cost(
		price.Cycles{Time: gap.CPU, Energy: gap.Energy}, price.GridPrice{Factor: d.grid}, 0, d.cfg.Landauer, &w.carry,
	)
	loss := w.purse.loss
	if short := bill.Total() - w.purse.balance; short > 0 && w.draws() {
		d.refill(w.purse.from, d.now)
		w.sip(min(short, d.book.Balance(w.purse.from.account)), 0)
	}
	d.bill(w, bill)
	gap.Loss = w.purse.loss - loss
	gap.Cost = bill.Total() - gap.Loss
	w.run += gap.CPU
	w.base.run = w.run
	w.energy += gap.Energy
	w.readopted.add(gap)
	d.gaps += gap.Energy
	d.totals.Node += gap.Energy
	d.totals.Attributed += gap.Energy
	d.money.postAs(w, ledger.ForReadopted)
	return gap
}

// add is the sum of two gaps.
func (r *Readopted) add(o Readopted) {
	r.Times += o.Times
	r.CPU += o.CPU
	r.Energy += o.Energy
	r.Cost += o.Cost
	r.Loss += o.Loss
}

// fits reports whether the books know w's purse as it was saved.
func (b *bookkeeper) fits(w *workload) error {
	p := &w.purse
	wallet, deposit := w.accounts()
	hold, open := b.book.Hold(p.posted.hold)
	switch {
	case !p.whole():
		return fmt.Errorf("its saved sums do not add up")
	case !b.wallet[w.ask.Name]:
		return fmt.Errorf("the books have no wallet of its name")
	case b.book.Balance(wallet) != p.balance || b.book.Balance(deposit) != p.deposit:
		return fmt.Errorf("saved with a balance of %d and a deposit of %d micro-$J, the books say %d and %d",
			p.balance, p.deposit, b.book.Balance(wallet), b.book.Balance(deposit))
	case open != (p.posted.held > 0), open && (hold.Amount != p.posted.held || hold.Debit != wallet):
		return fmt.Errorf("saved with %d micro-$J held, the books say otherwise", p.posted.held)
	case b.book.Available(wallet) != p.balance-p.posted.held:
		return fmt.Errorf("saved with %d micro-$J held, the books hold %d",
			p.posted.held, p.balance-b.book.Available(wallet))
	}
	return nil
}

// closeUnclaimed returns to the mint what wallets have that neither a living
// workload nor a statement names: those of the dead of earlier processes.
func (d *Demon) closeUnclaimed() {
	d.resumed = false
	holds := make(map[ledger.ID]ledger.ID)
	for t := range d.book.Holds() {
		holds[t.Debit] = t.ID
	}
	claimed := make(map[string]bool)
	for i := range d.dead {
		claimed[d.dead[i].Name] = true
	}
	var names []string
	for name := range d.money.wallet {
		_, bonded := d.book.Lookup(ledger.Deposit(name).ID) // else it is a standing wallet
		if bonded && !d.living(name) && !claimed[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		d.money.release(name, holds[ledger.Wallet(name).ID])
		d.money.retire(name)
	}
}
