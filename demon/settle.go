package demon

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// measure turns cumulative counters into what happened in the epoch, and the
// node's joules into everybody's.
func (d *Demon) measure(in *Input, elapsed time.Duration) {
	s := &d.scratch
	clear(s.used)
	for _, slot := range d.active {
		w := d.slots[slot]
		u := in.Usage[slot]
		u.Run += w.base.run
		u.Wait += w.base.wait
		u.Erased += w.base.erased
		w.ran = max(0, u.Run-w.run)
		w.waited = max(0, u.Wait-w.wait)
		w.run, w.wait = max(w.run, u.Run), max(w.wait, u.Wait)
		w.wanted = d.demand(w, u, w.ran+w.waited, elapsed)
		if u.HasErased {
			w.hasErased = true
		}
		u.PeakMemory = max(u.PeakMemory, w.usage.PeakMemory)
		w.usage = u
		s.used[slot] = w.ran
	}
	d.attribute(in, elapsed)
}

// demand is what w wanted in the epoch: what it showed, or, if Maxwell held
// it back while it was in the market, what it showed when it was last free.
func (d *Demon) demand(w *workload, u Usage, shown unit.CoreTime, elapsed time.Duration) unit.CoreTime {
	most := unit.CoreTime(unit.MulDiv(int64(d.coresOf(w)), int64(elapsed), 1000))
	held := w.frozen || u.Stopped
	if held {
		if !d.inMarket(w) {
			return min(w.ran, most)
		}
		asStopped := unit.CoreTime(unit.MulDiv(int64(w.desire), int64(elapsed), int64(unit.One)))
		return min(max(shown, asStopped), most)
	}
	shown = max(w.ran, min(shown, most))
	w.desire = unit.PPM(unit.MulDiv(int64(shown), int64(unit.One), int64(elapsed)))
	return shown
}

// inMarket reports whether w's bid counts: it is alive, solvent and not
// paused or dying.
func (d *Demon) inMarket(w *workload) bool {
	if w.dead || w.dying || w.asleep || w.trip != apoptosis.None {
		return false
	}
	switch w.life.State() {
	case apoptosis.Broke, apoptosis.Paused, apoptosis.Dying, apoptosis.Dead:
		return false
	case apoptosis.Pending, apoptosis.Running, apoptosis.Waiting:
	}
	return true
}

func (d *Demon) coresOf(w *workload) unit.MilliCores {
	if w.ask.Cores > 0 {
		return min(w.ask.Cores, d.cfg.Cores)
	}
	return d.cfg.Cores
}

// attribute splits the interval's energy exactly: workloads + system + idle +
// unattributed = node.
func (d *Demon) attribute(in *Input, elapsed time.Duration) {
	s := &d.scratch
	d.edge = in.Reading.At > d.reading.At
	energy := max(0, in.Reading.Energy-d.reading.Energy)
	system := max(0, in.System-d.system)
	busy := max(0, in.Busy-d.busy)
	d.others, d.elapsed = system, elapsed
	idle := d.cfg.Idle
	if !d.cfg.Modelled {
		d.idle.Observe(in.Now, elapsed, energy, busy)
		idle = d.idle.Idle()
	}
	books := d.split.Split(energy, elapsed, idle, system, s.used, s.joules)
	d.totals.Node += books.Node
	d.totals.Attributed += books.Attributed
	d.totals.System += books.System
	d.totals.Idle += books.Idle
	d.totals.Unattributed += books.Unattributed
	if got := books.Attributed + books.System + books.Idle + books.Unattributed; got != energy {
		panicf("demon: energy not conserved: %d uJ in, %d uJ out", energy, got)
	}
	d.books = books
	d.reading = in.Reading
	d.system, d.busy = max(d.system, in.System), max(d.busy, in.Busy)
}

// price asks the market what the epoch was worth.
func (d *Demon) price(elapsed time.Duration) market.Outcome {
	s := &d.scratch
	s.uses, s.index = s.uses[:0], s.index[:0]
	for _, slot := range d.active {
		w := d.slots[slot]
		w.paid = price.Bill{}
		if w.ran == 0 && w.wanted == 0 && (!w.hasErased || w.usage.Erased <= w.erased) {
			continue
		}
		s.index = append(s.index, slot)
		s.uses = append(s.uses, market.Use{
			ID: w.id, Score: w.last.Score, Energy: w.watts,
			Demand: w.backed(), Used: w.ran, Floor: w.last.Floor,
		})
	}
	s.rents = grow(s.rents, len(s.uses))
	out := d.market.Price(market.Epoch{
		Length: elapsed, Cores: d.delivered(elapsed), Watts: d.cfg.Watts, Unit: d.unitNow,
		Floor: d.cfg.Floor, Spot: d.spot, Base: d.base(),
	}, s.uses, s.rents)
	d.spot, d.marginal = out.Spot, out.Marginal
	d.delivery.used += out.Used
	d.delivery.misdelivered += out.Misdelivered
	return out
}

// backed is the demand that others are priced against: what w wanted as far as
// its money and its pacing backed it, and at least what it used. Demand that
// nobody would have paid for sets no price.
func (w *workload) backed() unit.CoreTime { return max(w.ran, min(w.wanted, w.backing())) }

// backing is the most demand that w's money and its pacing back.
func (w *workload) backing() unit.CoreTime {
	if w.quantity >= 0 {
		return min(w.last.Cap, w.quantity)
	}
	return w.last.Cap
}

// delivered is the supply of the epoch that ended: it was quoted for the
// nominal length, the machine ran for the real one.
func (d *Demon) delivered(elapsed time.Duration) unit.CoreTime {
	return unit.CoreTime(unit.MulDiv(int64(d.supply), int64(elapsed), int64(d.length)))
}

// charge debits every wallet for the epoch: the core equation, once each.
func (d *Demon) charge(out *Decisions) {
	s := &d.scratch
	for i, slot := range s.index {
		w := d.slots[slot]
		erased := unit.Bits(0)
		if w.hasErased {
			erased = max(0, w.usage.Erased-w.erased)
			w.erased += erased
		}
		joules := s.joules[slot]
		bill := price.Cost(
			price.Cycles{Time: w.ran, Energy: joules},
			price.GridPrice{Factor: d.grid, Rent: s.rents[i]},
			erased, d.cfg.Landauer, &w.carry,
		)
		w.energy += joules
		w.paid = bill
		if w.ran > 0 {
			w.unitPrice = unit.Rate(unit.MulDiv(int64(bill.Total()), int64(time.Second), int64(w.ran)))
			w.unitGrid = d.grid
		}
		d.bill(w, bill)
		d.observe(w, joules)
		out.Settlements = append(out.Settlements, Settlement{
			Slot: slot, ID: w.id, Bid: w.bid, Reserve: w.reserve, Watts: w.watts, Score: w.last.Score,
			Demand: w.wanted, Cap: w.backing(), Used: w.ran, Floor: w.last.Floor, Energy: joules, Bill: bill,
		})
	}
	for _, slot := range d.active {
		d.settlePace(d.slots[slot])
	}
}

// bill takes what w owes.
func (d *Demon) bill(w *workload, b price.Bill) {
	room := unit.Credits(0)
	if w.purse.open {
		room = d.money.left()
	}
	before := w.purse.granted
	w.purse.pay(b, room)
	d.money.loose += w.purse.granted - before
}

// observe feeds the e-class of w with what the epoch cost in energy. On a
// modelled source there is nothing to learn: every class is the node's.
func (d *Demon) observe(w *workload, joules unit.Microjoules) {
	if d.cfg.Modelled || w.ran == 0 {
		return
	}
	w.class.Observe(d.now, unit.Microwatts(unit.MulDiv(int64(joules), int64(time.Second), int64(w.ran))))
}
