package demon

import (
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Verdict is the one reason why a workload runs as it does. When several
// apply it is the one that would have to change first.
type Verdict uint8

// The verdicts. Those of a life's end come first, then those of money, then
// those of the market, then those in which nothing is missing.
const (
	VerdictDead         Verdict = iota
	VerdictDying                // it is being ended
	VerdictPaused               // broke, and frozen until it is funded
	VerdictBroke                // broke, and ends after its grace
	VerdictSuspended            // frozen by its owner (^Z)
	VerdictStarting             // its command does not run yet, or no round has ranked it
	VerdictBelowReserve         // its own energy per core-second costs more than it bids
	VerdictRate                 // its --rate holds it back
	VerdictPacing               // its horizon, or the market that bids for it, holds it back
	VerdictOutbid               // others bid more
	VerdictRationed             // equal bids share what is left
	VerdictWallet               // its balance buys less than it wants
	VerdictMachine              // processes outside of the market take the cores
	VerdictWatts                // the watt budget alone is below what it wants
	VerdictIdle                 // it does not want to run
	VerdictCores                // it gets all it asks for: its own cap, or its busy threads
	VerdictServed               // it gets all it asks for
	VerdictObserved             // for a node that only observes; Explain never says so
)

// String names the verdict as the API does.
func (v Verdict) String() string {
	names := [...]string{
		"dead", "dying", "paused", "broke", "suspended", "starting", "below-reserve", "rate", "pacing",
		"outbid", "rationed", "wallet", "machine", "watts", "idle", "cores", "served", "observed",
	}
	if int(v) >= len(names) {
		return fmt.Sprintf("verdict(%d)", uint8(v))
	}
	return names[v]
}

// Explanation says why one workload gets what it gets. Its figures are those
// of the last epoch, the only ones the demon keeps: ask again before acting
// on one answer. What was wanted while the workload was held back is what it
// showed when it was last free to.
type Explanation struct {
	Verdict Verdict
	Wanted  unit.MilliCores // run and runnable-waiting
	Got     unit.MilliCores
	// Needed is the lowest bid that would have been served in full (but for
	// the floor) against the others' present orders; 0 where no bid helps,
	// and where the bid is not what matters.
	Needed  unit.Price
	Rank    int        // 1 = the highest score of those that want to run; 0 = not among them
	Ranked  int        // how many want to run
	Reserve unit.Price // its own energy per core-second
	// Lasts is how long the balance lasts at what the last epoch cost; 0 =
	// for ever, or it spent nothing.
	Lasts time.Duration
	// Paced is what its rate and its horizon let it spend; 0 = not paced.
	Paced  unit.Spend
	Supply unit.MilliCores // for sale in the running epoch
	Others unit.MilliCores // taken by what is not governed
}

// What counts as all of what was wanted: the twentieth that enforcement may
// miss in an epoch, beside the floor. And as wanting nothing: a hundredth of
// a core.
const (
	nearly  = unit.One / 20
	nothing = unit.MilliCores(10)
)

// Explain says why slot's workload gets what it gets, as of the last tick. It
// changes nothing and looks at every order of the last ranking once for each
// price at which somebody stands.
func (d *Demon) Explain(slot int32) (Explanation, bool) {
	w := d.at(slot)
	if w == nil {
		return Explanation{}, false
	}
	x := Explanation{
		Wanted: unit.MilliCores(w.desire / 1000), Got: coresIn(w.ran, d.elapsed),
		Reserve: price.Multiple(w.reserve, d.base()), Paced: d.pacedSpend(w),
		Supply: coresIn(d.supply, d.length), Others: coresIn(d.others, d.elapsed),
	}
	if due := w.paid.Total(); due > 0 && !w.purse.open {
		x.Lasts = time.Duration(unit.MulDivSat(int64(d.means(w)), int64(d.elapsed), int64(due)))
	}
	q := d.queueOf(w)
	x.Rank, x.Ranked = q.standing()
	x.Verdict = d.ofLife(w, q)
	if x.Verdict != VerdictServed {
		return x, true
	}
	x.Verdict = d.ofMarket(w, &x, q)
	switch x.Verdict {
	case VerdictOutbid, VerdictRationed, VerdictBelowReserve:
		x.Needed = q.needed()
	default:
	}
	return x, true
}

// ofLife is the verdict on a workload that is not in the market, and
// VerdictServed on one that is.
func (d *Demon) ofLife(w *workload, q *queue) Verdict {
	switch state := w.life.State(); {
	case w.dead || state == apoptosis.Dead:
		return VerdictDead
	case w.dying || state == apoptosis.Dying || w.trip != apoptosis.None:
		return VerdictDying
	case state == apoptosis.Paused:
		return VerdictPaused
	case state == apoptosis.Broke:
		return VerdictBroke
	case w.asleep:
		return VerdictSuspended
	case !w.started || q.own < 0:
		return VerdictStarting
	}
	return VerdictServed
}

// ofMarket is the verdict on a workload that may bid.
func (d *Demon) ofMarket(w *workload, x *Explanation, q *queue) Verdict {
	a := &w.last
	paced := w.pacer != nil || w.auto != nil
	switch {
	case a.Refusal == market.BelowReserve:
		return VerdictBelowReserve
	case x.Wanted < nothing && x.Got < nothing:
		return VerdictIdle
	case paced && d.heldByPace(w, q):
		return d.pacedBy(w)
	case q.enough(int64(x.Got), int64(x.Wanted)):
		return d.content(w, x)
	case a.Refusal == market.WalletBinds:
		return VerdictWallet
	}
	return d.contested(w, x, q)
}

// contested is the verdict on a workload that wants more than it got, at a
// price that it can pay.
func (d *Demon) contested(w *workload, x *Explanation, q *queue) Verdict {
	own := q.allocs[q.own].Score
	switch {
	case q.fits(own, d.supply):
		// The ranking grants it all: what is missing, somebody else took, or
		// enforcement has not caught up.
		if x.Others > d.cfg.Cores/20 {
			return VerdictMachine
		}
		return VerdictServed
	case q.fits(own, d.configured(d.length)):
		return VerdictMachine
	case w.last.Refusal == market.Rationed && q.beside(own):
		return VerdictRationed
	case q.above(own):
		return VerdictOutbid
	case q.beside(own):
		return VerdictRationed
	case d.unitNow == market.Watts || d.cfg.Watts > 0 && q.fitsTime(own, d.supply):
		return VerdictWatts
	}
	return VerdictMachine
}

// content tells who gets all it asks for because it asks for little: its own
// cap, or a whole number of busy threads below what is for sale.
func (d *Demon) content(w *workload, x *Explanation) Verdict {
	if w.ask.Cores > 0 && w.ask.Cores < d.cfg.Cores {
		if x.Wanted >= w.ask.Cores-w.ask.Cores/20 {
			return VerdictCores
		}
	}
	threads := (x.Wanted + unit.Core/2) / unit.Core
	off := x.Wanted - threads*unit.Core
	if threads >= 1 && threads*unit.Core < d.cfg.Cores && max(off, -off) <= unit.Core/20 {
		return VerdictCores
	}
	return VerdictServed
}

// heldByPace reports whether w's own pacing is what it lacks: its quantity, or
// a bid that is below the one it may make, with which it would be served.
func (d *Demon) heldByPace(w *workload, q *queue) bool {
	wants := unit.CoreTime(unit.MulDiv(int64(w.desire), int64(d.length), int64(unit.One)))
	if w.saving || w.quantity >= 0 && !q.enough(int64(w.quantity), int64(wants)) {
		return true
	}
	if q.enough(int64(w.ran), int64(w.wanted)) || q.fits(w.last.Score, d.supply) {
		return false
	}
	o := q.orders[q.own]
	o.Bid = price.Absolute(d.highestBid(&w.ask), d.base())
	return o.Bid > w.bid && q.fits(q.scoreOf(&o), d.supply)
}

// pacedBy tells a rate from a horizon, where a wallet has both: the lower one.
func (d *Demon) pacedBy(w *workload) Verdict {
	if w.ask.Rate > 0 && d.pacedSpend(w) == w.ask.Rate {
		return VerdictRate
	}
	return VerdictPacing
}

// pacedSpend is what w's pacing lets it spend in a second: its rate, or what
// makes the balance last for its horizon, or the lower of the two; 0 if it is
// not paced. A horizon is counted from admission; a change of the bid begins
// it anew, which is not seen here.
func (d *Demon) pacedSpend(w *workload) unit.Spend {
	if w.pacer == nil && w.auto == nil {
		return 0
	}
	spend := w.ask.Rate
	if w.ask.Horizon > 0 && !w.purse.open {
		left := max(time.Second, w.ask.Horizon-time.Duration(d.now-w.admitted))
		even := unit.Spend(unit.MulDivSat(int64(d.means(w)), int64(time.Second), int64(left)))
		if spend == 0 || even < spend {
			spend = even
		}
	}
	return spend
}

// coresIn is t of core time over d, in cores, rounded.
func coresIn(t unit.CoreTime, d time.Duration) unit.MilliCores {
	if d <= 0 || t <= 0 {
		return 0
	}
	return unit.MilliCores(unit.MulDivSat(int64(t)+int64(d)/2000, 1000, int64(d)))
}
