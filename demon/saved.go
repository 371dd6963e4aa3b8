package demon

import (
	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// SavedVersion is the layout of Saved that this Maxwell writes and reads.
const SavedVersion = 1

// Saved is one workload as the ledger knew it at its last posting: all that a
// new process needs to go on with it. Its sums are those of the accounts
// wallet:NAME and deposit:NAME in the books of the same moment, so entries and
// saved states that were handed over together belong together.
//
// What a market learns anew within seconds is not in it: its e-class, what it
// wants, and how its pacing stands. A paced bid starts at the spot again, with
// what is left of its horizon and a second of its pace saved up.
type Saved struct {
	Version int    `json:"version"`
	ID      uint64 `json:"id"` // never given twice, also across restarts

	Terms     Admission        `json:"terms"`
	Life      apoptosis.Memory `json:"life"`
	Trip      apoptosis.Reason `json:"trip"` // an end that was decided and is not carried out yet
	Admitted  unit.Instant     `json:"admitted_ns"`
	PaceEnd   unit.Instant     `json:"pace_end_ns"` // of its horizon; 0 = none
	Started   bool             `json:"started"`
	Ended     bool             `json:"ended"`    // its main process
	Signaled  bool             `json:"signaled"` // ... by a foreign signal
	Suspended bool             `json:"suspended"`
	Lane      unit.CoreTime    `json:"lane_from_ns"` // run when its dying lane opened
	Warned    [4]int32         `json:"warned_percent"`

	Open    bool         `json:"open"`
	Granted unit.Credits `json:"granted_ucredits"`
	Income  unit.Credits `json:"income_ucredits"`
	Moved   unit.Credits `json:"moved_ucredits"` // between wallets, net
	Balance unit.Credits `json:"balance_ucredits"`
	Deposit unit.Credits `json:"deposit_ucredits"`
	Spent   price.Bill   `json:"spent"`
	Other   unit.Credits `json:"other_ucredits"`
	Loss    unit.Credits `json:"loss_ucredits"`
	Hold    ledger.ID    `json:"hold"` // zero = none
	Held    unit.Credits `json:"held_ucredits"`
	Carry   price.Carry  `json:"carry"`

	Run        unit.CoreTime    `json:"run_ns"` // charged
	Wait       unit.CoreTime    `json:"wait_ns"`
	Energy     unit.Microjoules `json:"energy_uj"`
	Erased     unit.Bits        `json:"erased_bits"`
	HasErased  bool             `json:"has_erased"`
	PeakMemory unit.Bytes       `json:"peak_memory_bytes"`
	Work       int64            `json:"work"`
	Price      unit.Rate        `json:"price_ucredits_per_core_s"` // of its last core-second
	Grid       unit.PPM         `json:"grid_ppm"`                  // factor at which that was
	Readopted  Readopted        `json:"readopted"`
	WouldHave  WouldHave        `json:"would_have_been_stopped"`
}

// Dead reports whether its books are closed: the last state of a workload,
// which is a receipt and not to be readopted.
func (s *Saved) Dead() bool { return s.Life.State == apoptosis.Dead }

// Saves hands over the newest state of every workload that was posted, started
// or changed its life since the last call (Config.Journal), in the order in which
// they first did. It is meant to be called right after Entries, and both to be made
// durable together. A workload changes at most once a second and at the turns of
// its life, and at every Statement; one that sleeps does not change at all. A state
// that is Dead is the last of its workload.
func (d *Demon) Saves() []Saved {
	list := d.saves
	d.saves = nil
	d.round++
	return list
}

// GridSave hands over the grid factor in force, for Config.Grid of the next process,
// if it is another than at the last call; 0 = it is not. Like Saves, and with them, it
// is meant to be made durable: it changes at most as often as they do, or once a
// second.
func (d *Demon) GridSave() unit.PPM {
	g := d.gridSave
	d.gridSave = 0
	return g
}

// keepGrid notes the factor in force for the next GridSave, where it changed.
func (d *Demon) keepGrid() {
	if d.cfg.Journal && d.grid != d.gridKept {
		d.gridKept, d.gridSave = d.grid, d.grid
	}
}

// keep posts w and, if there is a journal, saves what changed.
func (d *Demon) keep(w *workload) {
	d.money.post(w)
	if d.cfg.Journal {
		d.save(w)
	}
}

// save notes w's state for the next Saves. Its purse has just been posted.
func (d *Demon) save(w *workload) {
	s := d.state(w)
	if w.saved == nil {
		w.saved = new(Saved)
	}
	if s == *w.saved {
		return
	}
	*w.saved = s
	d.keepGrid()
	if w.round == d.round {
		d.saves[w.queued] = s
		return
	}
	w.round, w.queued = d.round, len(d.saves)
	d.saves = append(d.saves, s)
}

// state is w as its last posting left it.
func (d *Demon) state(w *workload) Saved {
	p := &w.purse
	s := Saved{
		Version: SavedVersion, ID: w.id, Terms: w.ask, Life: w.life.Memory(), Trip: w.trip,
		Admitted: w.admitted, PaceEnd: w.paceEnd(), Started: w.started, Ended: w.gone, Signaled: w.killed,
		Suspended: w.asleep, Lane: w.laneFrom, Warned: w.warned,
		Open: p.open, Granted: p.granted, Income: p.income, Moved: p.moved, Balance: p.balance, Deposit: p.deposit,
		Spent: p.spent, Other: p.other, Loss: p.loss, Carry: w.carry, Held: p.posted.held,
		Run: w.run, Wait: w.wait, Energy: w.energy, Erased: w.erased, HasErased: w.hasErased,
		PeakMemory: w.usage.PeakMemory, Work: w.work, Price: w.unitPrice, Grid: w.unitGrid, Readopted: w.readopted,
		WouldHave: w.would,
	}
	if s.Held > 0 {
		s.Hold = p.posted.hold
	}
	return s
}

// paceEnd is when w's horizon ends, 0 if it has none.
func (w *workload) paceEnd() unit.Instant {
	var end unit.Instant
	switch {
	case w.auto != nil:
		end, _ = w.auto.End()
	case w.pacer != nil:
		if at, timed := w.pacer.End(); timed {
			end = at
		}
	}
	return end
}
