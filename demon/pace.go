package demon

import (
	"errors"
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// leastGrant is the shortest paced run worth a thaw: below it a workload saves
// up for the next epoch. Stopping and starting costs a tenth of it.
const leastGrant = unit.CoreTime(time.Millisecond)

// pace gives w the pacing that its terms ask for.
func (d *Demon) pace(w *workload, now unit.Instant) error {
	a := w.ask
	w.auto, w.pacer = nil, nil
	if w.draws() && a.Auto && a.Rate == 0 && a.Horizon == 0 {
		// An automatic bid paces what comes in.
		if a.Rate = w.purse.from.perSecond(); a.Rate == 0 {
			return &Refusal{What: "bid", Reason: fmt.Sprintf("an automatic bid paces an allowance, and wallet %q has none; give a rate or a horizon", a.Wallet)}
		}
	}
	if !a.Auto && a.Rate == 0 && a.Horizon == 0 {
		return nil
	}
	if w.purse.open && a.Rate == 0 {
		return &Refusal{What: "horizon", Reason: "pacing needs a budget to pace, or a rate"}
	}
	var err error
	if a.Auto && a.Rate == 0 {
		w.auto, err = market.NewAuto(now, a.Horizon)
	} else {
		w.pacer, err = market.NewPacer(now, a.Rate, a.Horizon)
	}
	switch {
	case errors.Is(err, market.ErrShortHorizon):
		return &Refusal{What: "horizon", Reason: fmt.Sprintf("%v is too short to pace; give at least %v", a.Horizon, market.MinHorizon)}
	case err != nil:
		return &Refusal{What: "bid", Reason: err.Error()}
	}
	return nil
}

// paced is w's bid and quantity for the coming epoch. Whether the quantity
// binds is remembered: enforcement alone would hand spare time to a paced
// wallet and end it before its horizon.
func (d *Demon) paced(w *workload, demand unit.CoreTime) (unit.Rate, unit.CoreTime) {
	bid := price.Absolute(w.ask.Bid, d.base())
	w.quantity, w.slack = -1, 0
	if w.auto == nil && w.pacer == nil {
		return bid, demand
	}
	r := market.Round{
		Now: d.now, Length: d.length, Balance: d.means(w), Demand: d.coresOf(w).In(d.length),
		Reserve: w.reserve, Spot: d.spot, Base: d.base(), Cap: bid,
	}
	var most unit.CoreTime
	if w.auto != nil {
		r.Cap = price.Absolute(w.ask.MaxBid, d.base())
		bid, most = w.auto.Bid(r)
		w.slack = w.auto.Slack()
	} else {
		if w.ask.Auto {
			r.Cap = price.Absolute(w.ask.MaxBid, d.base())
		}
		bid, most = w.pacer.Bid(r)
		w.slack = w.pacer.Slack()
	}
	if most < r.Demand {
		w.quantity = most
	}
	return bid, min(demand, most)
}

// settlePace tells w's pacing what the epoch cost.
func (d *Demon) settlePace(w *workload) {
	cost := w.paid.Total()
	switch {
	case w.auto != nil:
		w.auto.Settle(cost, w.wanted, w.ran)
	case w.pacer != nil:
		w.pacer.Settle(cost, w.wanted, w.ran)
	}
}
