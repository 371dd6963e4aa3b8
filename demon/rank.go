package demon

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// configured is what is for sale in an epoch of length when nothing else runs.
func (d *Demon) configured(length time.Duration) unit.CoreTime { return d.cfg.Cores.In(length) }

// offer is the supply of the coming epoch. Where enforcement stops and goes,
// it is the configured cores less what the system measurably takes; elsewhere
// it is the share of them that the market measurably gets.
func (d *Demon) offer(length time.Duration) unit.CoreTime {
	terms := price.OfferTerms{
		Machine: max(d.cfg.Online, d.cfg.Cores), Sold: d.cfg.Cores, Length: length, Watts: d.cfg.Watts,
	}
	if d.cfg.Duty {
		terms.System, terms.Elapsed = d.others, d.elapsed
		return price.Offer(terms).Cores
	}
	full := price.Offer(terms).Cores
	return unit.CoreTime(unit.MulDiv(int64(full), int64(d.share), int64(unit.One)))
}

// quote learns the market's real share of the configured cores. While demand
// is unmet, what was used is what there was; otherwise the share recovers. Where
// watts are sold, demand is unmet for want of watts, which says nothing of cores.
// A quarter of the distance an epoch: three epochs of a strange reading move
// it by half, a real change is followed within half a second.
func (d *Demon) quote(o market.Outcome, elapsed time.Duration) {
	full := d.configured(elapsed)
	unmet := o.Demand - o.Used
	seen := unit.One
	if unmet > full/50 && full > 0 && d.unitNow != market.Watts {
		seen = min(unit.One, unit.PPM(unit.MulDiv(int64(o.Used), int64(unit.One), int64(full))))
	}
	d.share = max(d.share+(seen-d.share)/4, unit.One/100)
	sold := unit.Microwatts(unit.MulDiv(int64(d.books.Attributed), int64(time.Second), int64(elapsed)))
	d.unitNow = d.units.Observe(sold, d.cfg.Watts)
}

// reserveOf is w's physical floor for ranking: class watts x grid factor.
func (d *Demon) reserveOf(w *workload) unit.Rate {
	return price.Base(d.wattsOf(w), d.grid)
}

// wattsOf is w's e-class; on modelled sources it is the node's.
func (d *Demon) wattsOf(w *workload) unit.Microwatts {
	if d.cfg.Modelled {
		return d.cfg.Reference
	}
	return w.class.Class(d.now)
}

// rank orders the coming epoch.
func (d *Demon) rank(out *Decisions) {
	s := &d.scratch
	s.orders, s.index = s.orders[:0], s.index[:0]
	for _, slot := range d.active {
		w := d.slots[slot]
		if w.dead {
			continue
		}
		s.index = append(s.index, slot)
		s.orders = append(s.orders, d.order(w))
	}
	s.allocs = grow(s.allocs, len(s.orders))
	d.market.Rank(market.Epoch{
		Length: d.length, Cores: d.supply, Watts: d.cfg.Watts, Unit: d.unitNow,
		Floor: d.cfg.Floor, Spot: d.spot, Base: d.base(), Offset: d.rng.Uint64(),
	}, s.orders, s.allocs)
	for i, slot := range s.index {
		w := d.slots[slot]
		w.last = s.allocs[i]
		held := w.started && d.inMarket(w) && !w.free()
		w.starved = held && w.last.Refusal == market.BelowReserve
		w.saving = held && w.quantity >= 0 && w.quantity < leastGrant
		d.hold(w, out)
		out.Shares = append(out.Shares, Share{
			Slot: slot, Allocation: w.last, Demand: w.wanted, Used: w.ran, Neutral: w.free(),
		})
	}
}

// order is w's standing: its bid as paced, its demand as forecast.
func (d *Demon) order(w *workload) market.Order {
	w.watts = d.wattsOf(w)
	w.reserve = d.reserveOf(w)
	demand := unit.CoreTime(unit.MulDiv(int64(w.desire), int64(d.length), int64(unit.One)))
	bid, quantity := d.paced(w, demand)
	w.bid = bid
	balance := w.purse.balance
	if w.purse.open {
		balance = maxCredits
	}
	return market.Order{
		ID: w.id, Bid: bid, Reserve: w.reserve, Energy: w.watts, Demand: quantity,
		Balance: balance, Deposit: w.floorWeight, Solvent: d.inMarket(w) && !w.would.Still,
	}
}

// maxCredits stands for a wallet that cannot bind; a quarter of the range, so
// that sums of a few stay inside it.
const maxCredits = unit.Credits(1 << 61)

// gates lists who may exhaust a limit before the next tick.
func (d *Demon) gates(out *Decisions) {
	for _, slot := range d.active {
		w := d.slots[slot]
		if w.frozen || !w.started || w.free() || !d.inMarket(w) {
			continue
		}
		allowance, limited := d.allowance(w)
		cores := d.coresOf(w)
		soft := w.quantity >= 0 && w.quantity+w.slack < allowance
		if soft {
			if d.dormant(w, cores) {
				continue
			}
			allowance, limited = w.quantity+w.slack, true
			cores = w.pace(cores, d.elapsed)
		}
		// Half an epoch of slack: a late tick must not outrun its gate.
		span := d.length + d.length/2
		if soft {
			span = d.length
		}
		burn := unit.CoreTime(unit.MulDiv(int64(cores), int64(span), 1000))
		if limited && allowance < burn {
			out.Gates = append(out.Gates, Gate{Slot: slot, Allowance: allowance, Cores: cores, Soft: soft})
		}
	}
}

// dormantShare is the part of a sleeper's wallet that one epoch awake may cost
// it before it gets a soft gate in a crowd.
const dormantShare = 64

// dormant reports whether w sleeps in a crowd and is rich enough to wake for an
// epoch unwatched. The gates of a thousand sleepers would have to be looked at
// like those of runners.
func (d *Demon) dormant(w *workload, cores unit.MilliCores) bool {
	if w.wanted > 0 || w.frozen || len(d.active) <= ShortUpTo {
		return false
	}
	burn := unit.MulDiv(int64(cores), int64(d.length), 1000)
	return int64(w.purse.balance)/dormantShare > unit.MulDivSat(burn, int64(d.expected(w)), int64(time.Second))
}

// In a crowd nobody gets much of a core, and a hundred soft gates that are never
// reached cost more than the market: one that waited is expected to run at most
// haste times as fast as it did, counting at least one slice of the kernel.
const (
	haste = 4
	slice = unit.CoreTime(4 * time.Millisecond)
)

// pace is how many of cores w is expected to use until the next tick, where
// being wrong can be made up for.
func (w *workload) pace(cores unit.MilliCores, elapsed time.Duration) unit.MilliCores {
	if elapsed <= 0 || w.waited < unit.CoreTime(elapsed/4) {
		return cores // nobody was in its way, or it was held
	}
	return min(cores, unit.MilliCores(unit.MulDivCeil(haste*1000, int64(max(w.ran, slice)), int64(elapsed))))
}

// allowance is the core time w can still use before its wallet or a cap is
// exhausted, at the price it is expected to pay.
func (d *Demon) allowance(w *workload) (unit.CoreTime, bool) {
	least, limited := unit.CoreTime(1<<62), false
	cut := func(t int64) {
		least, limited = min(least, unit.CoreTime(max(0, t))), true
	}
	if !w.purse.open {
		if p := d.expected(w); p > 0 {
			cut(unit.MulDivSat(int64(w.purse.balance), int64(time.Second), int64(p)))
		}
	}
	if w.ask.MaxCPU > 0 {
		cut(int64(w.ask.MaxCPU - w.run))
	}
	if w.ask.MaxEnergy > 0 && w.watts > 0 {
		cut(unit.MulDivSat(max(0, int64(w.ask.MaxEnergy-w.energy)), int64(time.Second), int64(w.watts)))
	}
	return least, limited
}

// expected is what a core-second is going to cost w: what it last paid, at the grid
// factor of now, or today's spot above its own reserve, never more than it can be
// charged.
func (d *Demon) expected(w *workload) unit.Rate {
	paid := unit.Rate(unit.MulDivSat(int64(w.unitPrice), int64(d.grid), int64(w.unitGrid)))
	p := max(paid, w.reserve+d.spot-d.base(), w.reserve)
	return min(p, max(w.bid, w.reserve))
}

// Exhausted tells the demon that the node froze slot at its gate. The next
// tick either finds it broke, or over a cap, or lets it go on.
func (d *Demon) Exhausted(slot int32) {
	if w := d.at(slot); w != nil && !w.dead {
		w.frozen = true
	}
}
