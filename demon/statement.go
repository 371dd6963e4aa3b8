package demon

import (
	"fmt"
	"slices"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// keepDead is how many statements of the dead a market remembers. A node that
// buries 20 workloads a second forgets the oldest after about eight minutes;
// their totals stay in the ledger.
const keepDead = 10_000

// Line is one workload's statement.
type Line struct {
	Slot     int32
	ID       uint64
	Name     string
	Started  bool
	State    apoptosis.State
	Reason   apoptosis.Reason
	Open     bool
	Budget   unit.Credits // granted, and given by other wallets, less given to them
	Moved    unit.Credits // of which between wallets
	Income   unit.Credits
	Spent    price.Bill
	Other    unit.Credits
	Deposit  unit.Credits
	Balance  unit.Credits
	Loss     unit.Credits
	Energy   unit.Microjoules
	CPU      unit.CoreTime
	Wait     unit.CoreTime
	Erased   unit.Bits
	Metered  bool // Erased was measured
	Peak     unit.Bytes
	Work     int64
	Bid      unit.Price
	Price    unit.Price // of its last core-second
	Power    unit.Microwatts
	CoresNow unit.MilliCores
	Auto     bool       // the market bids
	MaxBid   unit.Price // of Auto
	Refusal  market.Refusal
	Alive    time.Duration

	Wallet    string // standing, that pays it; empty = the mint
	Draws     bool   // it has no budget of its own and draws from there as it spends
	Enforce   Enforce
	WouldHave WouldHave // been stopped, had it been enforced
	Readopted Readopted // gaps without a daemon that were billed to it
}

// Total returns everything the line's wallet has paid.
func (l *Line) Total() unit.Credits { return l.Spent.Total() + l.Other }

// Statement is the market at one instant.
type Statement struct {
	Now         unit.Instant
	Epochs      uint64
	Epoch       time.Duration
	Base        unit.Rate
	Spot        unit.Rate
	Grid        unit.PPM
	Misdelivery unit.PPM
	Share       unit.PPM
	Unit        market.Unit
	Books       physics.Books    // cumulative, with Inherited and Readopted
	Inherited   unit.Microjoules // of Books.Node and Attributed: burnt by readopted workloads before this process
	Readopted   unit.Microjoules // likewise: modelled, burnt while no daemon was there
	Watts       unit.Microwatts
	Source      physics.Source
	Sigma       unit.PPM
	Lines       []Line       // the living by admission, then the dead, newest first
	Wallets     []WalletLine // standing
	Minted      unit.Credits
	Accounts    map[string]unit.Credits
	Sum         unit.Credits
}

// OtherWallets is the account under which a View sums up those that it does not
// name.
const OtherWallets = "wallet:*"

// Statement posts what is outstanding and returns the books.
func (d *Demon) Statement() Statement {
	d.postAll()
	s := d.View(true)
	for _, line := range slices.Backward(d.dead) {
		s.Lines = append(s.Lines, line)
	}
	return s
}

// View is a Statement for those who only look: it writes nothing into the books and
// has in it what is outstanding as if that had been posted. It has no lines of the
// dead, and only if all is true every account of theirs: a node remembers ten
// thousand, and is looked at many times a second. What they hold is summed up as
// OtherWallets.
func (d *Demon) View(all bool) Statement {
	s := Statement{
		Now: d.now, Epochs: d.epoch, Epoch: d.length, Base: d.base(), Spot: d.spot, Grid: d.grid,
		Misdelivery: d.misdelivery(), Share: d.share, Unit: d.unitNow, Books: d.totals,
		Wallets: d.Wallets(), Inherited: d.inherited, Readopted: d.gaps,
		Watts:  perSecond(d.books.Attributed, d.length),
		Source: d.reading.Source, Sigma: d.cfg.Sigma, Sum: d.book.Sum(),
	}
	s.Lines = make([]Line, 0, len(d.active))
	for _, slot := range d.active {
		s.Lines = append(s.Lines, d.line(d.slots[slot]))
	}
	l := d.money.outstanding(d)
	s.Minted = -l.of(mintID)
	if all {
		for a := range d.book.Accounts() {
			l.list(a.ID)
		}
	} else {
		d.listLiving(l)
	}
	s.Accounts = l.by
	for i := range s.Wallets {
		s.Wallets[i].Balance = l.of(d.standing[i].account)
	}
	return s
}

// listLiving lists the accounts of those who live and of nobody in particular, and
// the sum of the others.
func (d *Demon) listLiving(l *balances) {
	for _, account := range theChart {
		l.list(account().ID)
	}
	l.list(d.money.leased)
	for _, v := range d.standing {
		l.list(v.account)
	}
	for _, slot := range d.active {
		wallet, deposit := d.slots[slot].accounts()
		l.list(wallet)
		l.list(deposit)
	}
	if l.listed != 0 {
		l.by[OtherWallets] -= l.listed // all of them sum to zero
	}
}

// LineOf returns the statement of a slot that is not yet released.
func (d *Demon) LineOf(slot int32) (Line, bool) {
	w := d.at(slot)
	if w == nil {
		return Line{}, false
	}
	return d.line(w), true
}

func (d *Demon) line(w *workload) Line {
	until := d.now
	if w.dead {
		until = w.ended
	}
	p := &w.purse
	return Line{
		Slot: w.slot, ID: w.id, Name: w.ask.Name, Started: w.started, State: w.life.State(), Reason: w.life.Reason(),
		Open: p.open, Budget: p.granted + p.moved, Moved: p.moved, Income: p.income, Spent: p.spent, Other: p.other,
		Deposit: p.deposit, Balance: p.balance, Loss: p.loss,
		Energy: w.energy, CPU: w.run, Wait: w.wait, Erased: w.erased, Metered: w.hasErased,
		Peak: w.usage.PeakMemory, Work: w.work,
		Bid: price.Multiple(w.bid, d.base()), Auto: w.ask.Auto, MaxBid: w.ask.MaxBid,
		Price: price.Multiple(w.unitPrice, price.Base(d.cfg.Reference, w.unitGrid)), Power: perSecond(d.scratch.joules[w.slot], d.length),
		CoresNow: unit.MilliCores(unit.MulDiv(int64(w.ran), 1000, int64(d.length))),
		Refusal:  w.last.Refusal, Alive: max(0, time.Duration(until-w.admitted)),
		Wallet: w.ask.Wallet, Draws: w.draws(), Enforce: w.ask.Enforce, WouldHave: w.would, Readopted: w.readopted,
	}
}

// remember keeps the statement of a buried workload.
func (d *Demon) remember(w *workload) {
	if len(d.dead) >= keepDead {
		for i := range d.dead[:keepDead/10] {
			d.forget(&d.dead[i])
		}
		d.dead = append(d.dead[:0], d.dead[keepDead/10:]...)
	}
	l := d.line(w)
	l.Power, l.CoresNow = 0, 0
	d.dead = append(d.dead, l)
}

// forget closes the accounts of a workload that no statement names any more,
// unless a living one has taken its name.
func (d *Demon) forget(l *Line) {
	if !d.living(l.Name) && d.money.wallet[l.Name] {
		d.money.retire(l.Name)
	}
}

// misdelivery is the share of the time sold that was delivered out of score
// order.
func (d *Demon) misdelivery() unit.PPM {
	if d.delivery.used == 0 {
		return 0
	}
	return unit.PPM(unit.MulDiv(int64(d.delivery.misdelivered), int64(unit.One), int64(d.delivery.used)))
}

func perSecond(e unit.Microjoules, t time.Duration) unit.Microwatts {
	if t <= 0 || e < 0 {
		return 0
	}
	return unit.Microwatts(unit.MulDivSat(int64(e), int64(time.Second), int64(t)))
}

// grow returns a slice of length n, reusing s where it can.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2+16)
	}
	return s[:n]
}

func panicf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// Post posts every living wallet's outstanding sums now, and not within a second.
func (d *Demon) Post() { d.postAll() }

// PostTouched posts and saves the workloads that a caller changed (funded, stopped, bid
// for) since the last call, and nobody else: what it costs to make one change durable
// does not grow with the market.
func (d *Demon) PostTouched() {
	for _, slot := range d.touched {
		if w := d.at(slot); w != nil && w.touched {
			w.touched = false
			if !w.dead {
				d.keep(w)
			}
		}
	}
	d.touched = d.touched[:0]
}

// touch notes that a caller changed w.
func (d *Demon) touch(w *workload) {
	if !w.touched {
		w.touched = true
		d.touched = append(d.touched, w.slot)
	}
}
