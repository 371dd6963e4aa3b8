package demon

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// solvencyUnit is the least core time a wallet must be able to pay for at its
// own reserve: below it a workload is broke (DESIGN section 6).
const solvencyUnit = unit.CoreTime(time.Millisecond)

// decide lets every workload live, warns it, stops it or ends it.
func (d *Demon) decide(out *Decisions) {
	for _, slot := range d.active {
		w := d.slots[slot]
		if w.dead {
			continue
		}
		life, warned, would := w.life.Memory(), w.warned, w.would
		if w.ask.Enforce != EnforceObserve {
			d.warnCaps(w)
		}
		solvent := d.solvent(w)
		switch {
		case w.free():
			d.wouldStop(w, solvent)
			solvent = true
		case w.trip == apoptosis.None:
			w.trip = d.tripped(w)
		}
		acts := w.life.Step(apoptosis.Input{
			Now: d.now, Solvent: solvent, Winning: w.last.Time > 0 || w.ran > 0 || w.last.Refusal == market.NoDemand,
			Populated: w.usage.Populated, Started: w.started,
			Spent: w.purse.total(), Budget: d.limit(w),
			LaneUsed: d.laneUsed(w), Trip: w.trip, ChildGone: w.gone, ChildSignaled: w.killed,
		})
		d.carryOut(w, acts, out)
		w.purse.check(w.ask.Name)
		if d.cfg.Journal && !w.dead && (turned(life, w.life.Memory()) || warned != w.warned || would != w.would) {
			d.keep(w)
		}
	}
}

// turned reports whether a life has turned: being outbid and winning again is
// not a turn.
func turned(a, b apoptosis.Memory) bool {
	for _, m := range []*apoptosis.Memory{&a, &b} {
		if m.State == apoptosis.Waiting {
			m.State = apoptosis.Running
		}
	}
	return a != b
}

// limit is the budget that warnings are counted against: what was granted and
// earned, less what is locked for the workload's own death. Open wallets have
// none, and neither has what draws from a standing one.
func (d *Demon) limit(w *workload) unit.Credits {
	if w.purse.open || w.draws() {
		return 0
	}
	return w.purse.granted + w.purse.income + w.purse.moved - w.purse.deposit
}

func (d *Demon) laneUsed(w *workload) unit.CoreTime {
	if !w.dying {
		return 0
	}
	return w.run - w.laneFrom
}

// solvent reports whether w can pay for the next millisecond of what it wants
// at its own reserve.
func (d *Demon) solvent(w *workload) bool {
	if w.purse.open {
		return true
	}
	wants := unit.CoreTime(unit.MulDiv(int64(w.desire), int64(d.length), int64(unit.One)))
	return d.affords(w, min(max(w.wanted, wants), solvencyUnit))
}

// affords reports whether w can pay for t at its own reserve.
func (d *Demon) affords(w *workload, t unit.CoreTime) bool {
	need := unit.MulDivCeil(int64(d.reserveOf(w)), int64(t), int64(time.Second))
	return w.purse.open || w.purse.balance >= unit.Credits(need)
}

// tripped names the cap that w has exceeded, if any.
func (d *Demon) tripped(w *workload) apoptosis.Reason {
	a := &w.ask
	switch {
	case w.usage.OOMKills > 0:
		return apoptosis.CapMemory
	case w.usage.PidsRefused > 0:
		return apoptosis.CapPids
	case a.MaxCPU > 0 && w.run >= a.MaxCPU:
		return apoptosis.CapCPU
	case a.MaxEnergy > 0 && w.energy >= a.MaxEnergy:
		return apoptosis.CapEnergy
	case a.Timeout > 0 && time.Duration(d.now-w.admitted) >= a.Timeout:
		return apoptosis.Timeout
	}
	return apoptosis.None
}

// warnCaps raises the 80 % and 95 % warnings of every cap but the budget.
func (d *Demon) warnCaps(w *workload) {
	a := &w.ask
	d.warn(w, 0, apoptosis.CapCPU, int64(w.run), int64(a.MaxCPU), int64(w.ran))
	d.warn(w, 1, apoptosis.CapEnergy, int64(w.energy), int64(a.MaxEnergy), int64(d.scratch.joules[w.slot]))
	d.warn(w, 2, apoptosis.CapMemory, int64(w.usage.PeakMemory), int64(a.Memory), 0)
	d.warn(w, 3, apoptosis.CapPids, w.usage.Processes, a.Pids, 0)
}

func (d *Demon) warn(w *workload, i int, what apoptosis.Reason, have, limit, perEpoch int64) {
	if limit <= 0 || w.warned[i] >= 95 {
		return
	}
	for _, percent := range []int32{95, 80} {
		if w.warned[i] >= percent || have < unit.MulDivCeil(limit, int64(percent), 100) {
			continue
		}
		w.warned[i] = percent
		d.raise(w, Event{Kind: EventWarned, Percent: percent, What: what, Left: d.left(limit-have, perEpoch)})
		return
	}
}

// left is how long rest lasts at perEpoch an epoch; 0 when it is not used up
// at all.
func (d *Demon) left(rest, perEpoch int64) time.Duration {
	if perEpoch <= 0 || rest <= 0 {
		return 0
	}
	return time.Duration(unit.MulDivSat(rest, int64(d.length), perEpoch))
}

// carryOut turns the state machine's actions into actions on the group and
// events for people.
func (d *Demon) carryOut(w *workload, acts apoptosis.Actions, out *Decisions) {
	if (acts.Has(apoptosis.Warn80) || acts.Has(apoptosis.Warn95)) && w.ask.Enforce != EnforceObserve {
		percent := int32(80)
		if acts.Has(apoptosis.Warn95) {
			percent = 95
		}
		left := d.left(int64(w.purse.balance), int64(w.paid.Total()))
		d.raise(w, Event{Kind: EventWarned, Percent: percent, What: apoptosis.Insolvent, Left: left})
	}
	if acts.Has(apoptosis.Freeze) {
		w.halted = true
	}
	if acts.Has(apoptosis.NoticeBroke) {
		d.raise(w, Event{Kind: EventBroke, Reason: apoptosis.Insolvent, Left: d.graceLeft(w)})
	}
	if acts.Has(apoptosis.NoticePaused) {
		d.raise(w, Event{Kind: EventPaused, Reason: apoptosis.Insolvent})
	}
	if acts.Has(apoptosis.Thaw) {
		w.halted = false
	}
	if acts.Has(apoptosis.NoticeFunded) {
		d.raise(w, Event{Kind: EventFunded})
	}
	d.carryOutEnd(w, acts, out)
}

// carryOutEnd handles the actions of the last two states.
func (d *Demon) carryOutEnd(w *workload, acts apoptosis.Actions, out *Decisions) {
	if acts.Has(apoptosis.Term) {
		w.dying, w.laneFrom, w.frozen = true, w.run, false
		out.Actions = append(out.Actions, Action{Slot: w.slot, Kind: Term})
		d.raise(w, Event{Kind: EventDying, Reason: w.life.Reason(), Left: w.ask.Policy.Term})
	}
	if acts.Has(apoptosis.Kill) {
		w.dying = true
		out.Actions = append(out.Actions, Action{Slot: w.slot, Kind: Kill})
	}
	if acts.Has(apoptosis.Bury) {
		d.bury(w)
		out.Actions = append(out.Actions, Action{Slot: w.slot, Kind: Bury})
		d.raise(w, Event{Kind: EventDead, Reason: w.life.Reason()})
	}
}

func (d *Demon) graceLeft(w *workload) time.Duration {
	if at, ok := w.life.Deadline(); ok {
		return max(0, time.Duration(at-d.now))
	}
	return 0
}

// hold, the last word of a tick on w, freezes or thaws it when what enforcement was last told is no longer
// what holds. In the dying lane nothing holds it but the lane's own quota.
func (d *Demon) hold(w *workload, out *Decisions) {
	if w.dead || w.dying {
		return
	}
	want := w.halted || w.starved || w.saving || w.asleep
	if w.frozen == want {
		return
	}
	w.frozen = want
	kind := Thaw
	if want {
		kind = Freeze
	}
	out.Actions = append(out.Actions, Action{Slot: w.slot, Kind: kind})
}

// bury closes w's books: remainders are posted rounded up, the deposit goes
// back to the wallet.
func (d *Demon) bury(w *workload) {
	d.bill(w, w.carry.Flush())
	w.purse.balance += w.purse.deposit
	w.purse.deposit = 0
	if v := w.purse.from; v != nil {
		d.refill(v, d.now) // before there is less room in it
		w.purse.moved -= w.purse.balance
		w.purse.balance = 0
		v.changed = true
	}
	w.dead, w.ended = true, d.now
	d.keep(w)
}
