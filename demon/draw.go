package demon

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// A workload that names a standing wallet and no budget draws from it as it spends:
// a few seconds' worth at a time, so that what it holds is small and the wallet's
// balance is what is left for all. It is broke when the wallet is empty, and goes on
// when the wallet's allowance has come in.

const (
	// sipTime is how long what is drawn at once lasts. Shorter, and each workload is
	// posted more often; longer, and more of a wallet is in its workloads' hands.
	sipTime = 2 * time.Second
	// leastDraught is drawn for in a second by one that hardly runs.
	leastDraught = unit.CoreTime(100 * time.Millisecond)
	// mostThirst is how long a broke workload waits until its wallet has all that it
	// draws at once. After that it takes what there is. Shorter, and a small
	// allowance wakes it for a moment and stops it again; each time is an event.
	mostThirst = 10 * time.Second
	// refillEvery is how often allowances are paid that nobody asked for, and
	// askedRefill how often those that somebody waits for. Each is a transfer.
	refillEvery = time.Minute
	askedRefill = time.Second
)

// draws reports whether w has no budget of its own and spends a standing wallet's.
func (w *workload) draws() bool { return w.purse.from != nil && w.ask.Budget == 0 }

// drawsFrom refuses to give money to w itself, or to take some from it.
func (w *workload) drawsFrom() *Refusal {
	return &Refusal{What: "name", Reason: fmt.Sprintf("%s draws from wallet %q; name that", w.ask.Name, w.ask.Wallet)}
}

// perSecond is v's allowance in a second, rounded down.
func (v *standing) perSecond() unit.Spend { return unit.Spend(v.allowance.Over(time.Second)) }

// means is all that w can spend: its balance, and its wallet's if it draws.
func (d *Demon) means(w *workload) unit.Credits {
	switch {
	case w.purse.open:
		return maxCredits
	case w.draws():
		return w.purse.balance + d.book.Balance(w.purse.from.account)
	}
	return w.purse.balance
}

// quench lets those who draw from wallets draw what they are short of, in the order
// in which they last did. One that waits until its wallet has enough for it holds up
// those behind it, so that who runs cannot drink what drips from under who waits.
func (d *Demon) quench() {
	if len(d.standing) == 0 {
		return
	}
	queue := d.scratch.thirsty[:0]
	for _, slot := range d.active {
		w := d.slots[slot]
		if w.short = d.thirst(w); w.short > 0 {
			w.purse.from.blocked = false
			queue = append(queue, slot)
		}
	}
	d.scratch.thirsty = queue
	slices.SortFunc(queue, func(a, b int32) int { return cmp.Compare(d.slots[a].served, d.slots[b].served) })
	for _, slot := range queue {
		w := d.slots[slot]
		v := w.purse.from
		has := d.book.Balance(v.account)
		v.blocked = v.blocked || d.waits(w, has)
		if v.blocked || has == 0 {
			continue
		}
		w.served = d.now
		w.sip(min(w.short, has), d.unbonded(w))
		d.keep(w)
	}
}

// sip takes amount from w's wallet: first what its deposit lacks, the rest to spend.
func (w *workload) sip(amount, lacks unit.Credits) {
	bond := min(amount, lacks)
	w.purse.moved += amount
	w.purse.deposit += bond
	w.purse.balance += amount - bond
	w.purse.from.changed = true
}

// unbonded is what w's deposit has paid and does not have again: one that goes broke
// again and again is stopped a little late each time.
func (d *Demon) unbonded(w *workload) unit.Credits {
	return max(0, d.Deposit(&w.ask)-w.purse.deposit)
}

// thirst is what w draws from its wallet in this tick, if the wallet has it.
func (d *Demon) thirst(w *workload) unit.Credits {
	if !w.draws() || w.dead || w.dying {
		return 0
	}
	if !w.halted {
		w.parched = 0
	} else if w.parched == 0 {
		w.parched = d.now
	}
	full := d.mouthful(w)
	if !w.halted && w.purse.balance >= full/2 {
		return 0
	}
	short := full - w.purse.balance + d.unbonded(w)
	v := w.purse.from
	if time.Duration(d.now-v.since) >= askedRefill {
		d.refill(v, d.now)
	}
	return short
}

// waits reports whether w, which is broke, leaves what its wallet has until that is
// all it draws at once, or half of what the wallet ever saves.
func (d *Demon) waits(w *workload, has unit.Credits) bool {
	if !w.halted || time.Duration(d.now-w.parched) >= patience(w) {
		return false
	}
	enough := w.short
	if most := w.purse.from.most; most > 0 {
		enough = min(enough, most/2)
	}
	return has < enough
}

// patience is how long w waits until its wallet has enough for it, broke: less than
// what it has to live.
func patience(w *workload) time.Duration {
	if p := &w.ask.Policy; p.WhenBroke == apoptosis.Stop {
		return min(mostThirst, p.Grace/2)
	}
	return mostThirst
}

// mouthful is what w draws at once: for what it wants, at the price that it expects.
func (d *Demon) mouthful(w *workload) unit.Credits {
	wants := max(leastDraught, unit.CoreTime(unit.MulDiv(int64(w.desire), int64(time.Second), int64(unit.One))))
	inTime := unit.MulDivSat(int64(wants), int64(sipTime), int64(time.Second))
	return unit.Credits(max(1, unit.MulDivSat(inTime, int64(d.expected(w)), int64(time.Second))))
}
