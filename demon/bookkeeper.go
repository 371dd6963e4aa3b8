package demon

import (
	"fmt"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// bookkeeper posts purses into the ledger. Each posting of a wallet is one
// linked chain: all of it happens or none.
type bookkeeper struct {
	book   *ledger.Ledger
	prefix uint64 // of this market's transfer ids
	seq    uint64
	at     unit.Instant
	wallet map[string]bool // wallets open in the book
	user   uint64          // UserData of the chain: whose posting it is
	chain  []ledger.Transfer
	status []ledger.Status
	leased ledger.ID // the account a hold would go to: the node's own lease
	asked  requests
	loose  unit.Credits // minted into purses and not posted yet

	keep    bool           // somebody keeps a journal
	entries []ledger.Entry // what was done since the last Entries
}

var theChart = [...]func() ledger.Account{
	ledger.Mint, ledger.Heat, ledger.Entropy, ledger.Treasury, ledger.System, ledger.Loss,
}

func newBookkeeper(book *ledger.Ledger, prefix uint64, keep bool) bookkeeper {
	b := bookkeeper{book: book, prefix: prefix, wallet: make(map[string]bool), keep: keep}
	b.asked.own = map[uint64]struct{}{prefix: {}}
	b.openChart()
	return b
}

// openChart opens the accounts that every market has, where they are not open.
func (b *bookkeeper) openChart() {
	for _, account := range theChart {
		b.mustOpen(account())
	}
	lease := ledger.Lease("node")
	b.mustOpen(lease)
	b.leased = lease.ID
}

func (b *bookkeeper) mustOpen(a ledger.Account) {
	if status := b.openAccount(a); !status.Done() {
		panicf("demon: open account %s: %v", a.Name, status)
	}
}

func (b *bookkeeper) openAccount(a ledger.Account) ledger.Status {
	status := b.book.Open(a)
	if status == ledger.OK {
		b.note(ledger.Entry{Change: ledger.Opened, Account: a})
	}
	return status
}

// note keeps what was done to the book for the journal, if there is one.
func (b *bookkeeper) note(e ledger.Entry) {
	if b.keep {
		b.entries = append(b.entries, e)
	}
}

// open makes w's accounts and posts its budget and deposit. A dead workload's
// accounts of the same name are closed first.
func (b *bookkeeper) open(w *workload) error {
	name := w.ask.Name
	if b.wallet[name] {
		b.retire(name)
	}
	for _, account := range []ledger.Account{ledger.Wallet(name), ledger.Deposit(name)} {
		if status := b.openAccount(account); !status.Done() {
			return fmt.Errorf("open %s: %v", account.Name, status)
		}
	}
	b.wallet[name] = true
	b.loose += w.purse.granted
	b.post(w)
	return nil
}

// mostMoney is the most a market mints: a quarter of what the ledger can hold,
// so that rounding and income between two postings cannot reach its end. It is
// 2.3 million million $J, a large power plant's output for 75 minutes.
const mostMoney = unit.Credits(1 << 61)

// room reports whether amount more can be minted.
func (b *bookkeeper) room(amount unit.Credits) bool { return amount >= 0 && amount <= b.left() }

// left is how much more can be minted. What is in purses and not posted yet counts.
func (b *bookkeeper) left() unit.Credits {
	return max(0, mostMoney+b.book.Balance(mintID)-b.loose)
}

// Room is how much more money can be made. What the dead left counts, and is taken back
// where that is less than least.
func (d *Demon) Room(least unit.Credits) unit.Credits {
	for i := 0; i < len(d.dead) && d.money.left() < least; i++ {
		d.forget(&d.dead[i])
	}
	return d.money.left()
}

// MintedFor is the money that was made for slot's workload, or given to it by others for
// whom it was: 0 where a standing wallet pays it.
func (d *Demon) MintedFor(slot int32) unit.Credits {
	w := d.at(slot)
	if w == nil || w.purse.from != nil {
		return 0
	}
	return w.purse.granted + w.purse.income + w.purse.moved
}

// add appends a transfer to the chain in the making; nothing moves for nothing.
func (b *bookkeeper) add(debit, credit ledger.ID, amount unit.Credits, code ledger.Purpose) {
	if amount == 0 {
		return
	}
	b.chain = append(b.chain, ledger.Transfer{Debit: debit, Credit: credit, Amount: amount, Code: code, UserData: b.user})
}

// void appends the release of what w's last posting holds.
func (b *bookkeeper) void(w *workload) {
	if was := &w.purse.posted; was.held > 0 {
		b.chain = append(b.chain, ledger.Transfer{PendingID: was.hold, Flags: ledger.Void, UserData: b.user})
	}
}

// hold appends a hold on amount of w's wallet and returns its place in the chain,
// or -1.
func (b *bookkeeper) hold(w *workload, amount unit.Credits) int {
	if amount <= 0 {
		return -1
	}
	wallet, _ := w.accounts()
	b.chain = append(b.chain, ledger.Transfer{
		Debit: wallet, Credit: b.leased, Amount: amount, Code: ledger.ForLease, Flags: ledger.Pending, UserData: b.user,
	})
	return len(b.chain) - 1
}

// settle notes that the chain that was applied has posted w, with the hold at
// its place held.
func (b *bookkeeper) settle(w *workload, held int) {
	was := &w.purse.posted
	b.loose -= w.purse.unposted()
	*was = w.purse.marks()
	if held >= 0 {
		was.hold, was.held = b.chain[held].ID, b.chain[held].Amount
	}
}

// post tells the book what happened to w's purse since the last posting.
func (b *bookkeeper) post(w *workload) { b.postAs(w, ledger.ForEnergy) }

// postAs is post with the purpose of what was burnt.
func (b *bookkeeper) postAs(w *workload, burnt ledger.Purpose) {
	held, news := b.draft(w, burnt)
	if !news {
		return
	}
	b.apply(w.ask.Name)
	b.settle(w, held)
}

// draft makes the chain that would tell the book what happened to w's purse since
// the last posting, and returns the place of the hold in it, or -1. It is false if
// nothing did.
func (b *bookkeeper) draft(w *workload, burnt ledger.Purpose) (hold int, news bool) {
	p, was := &w.purse, &w.purse.posted
	wallet, deposit := w.accounts()
	held := p.balance
	if w.dead {
		held = 0
	}
	if was.same(p) && was.held == held {
		return -1, false
	}
	b.chain, b.user = b.chain[:0], w.id
	b.void(w)
	mint, heat := mintID, heatID
	b.add(mint, wallet, p.granted-was.granted, ledger.ForFunding)
	b.add(mint, wallet, p.income-was.income, ledger.ForIncome)
	if given := p.moved - was.moved; given > 0 {
		b.add(p.from.account, wallet, given, ledger.ForFunding)
	}
	if p.deposit > was.deposit {
		b.add(wallet, deposit, p.deposit-was.deposit, ledger.ForDeposit)
	} else {
		b.add(deposit, wallet, was.deposit-p.deposit, ledger.ForRefund)
	}
	b.add(wallet, heat, p.spent.Energy-was.spent.Energy, burnt)
	b.add(wallet, treasuryID, p.spent.Rent-was.spent.Rent, ledger.ForRent)
	b.add(wallet, entropyID, p.spent.Erasure-was.spent.Erasure, ledger.ForErasure)
	b.add(wallet, treasuryID, p.other-was.other, ledger.ForOther)
	// What nobody paid may be more than an account can say.
	b.add(lossID, heat, min(p.loss-was.loss, max(0, mostMoney+b.book.Balance(lossID))), ledger.ForLoss)
	if left := was.moved - p.moved; left > 0 {
		b.add(wallet, p.from.account, left, ledger.ForReturn)
	}
	return b.hold(w, held), true
}

// The chart's ids. They are hashes of names: values, not state.
var (
	mintID     = ledger.Mint().ID
	heatID     = ledger.Heat().ID
	entropyID  = ledger.Entropy().ID
	treasuryID = ledger.Treasury().ID
	lossID     = ledger.Loss().ID
)

// accounts returns the ids of w's wallet and deposit, hashed once.
func (w *workload) accounts() (wallet, deposit ledger.ID) {
	if w.purse.wallet.IsZero() {
		w.purse.wallet = ledger.Wallet(w.ask.Name).ID
		w.purse.bond = ledger.Deposit(w.ask.Name).ID
	}
	return w.purse.wallet, w.purse.bond
}

// apply numbers, links and applies the chain. The purses have been checked
// before, so a refusal is a broken invariant.
func (b *bookkeeper) apply(name string) {
	b.at++
	for i := range b.chain {
		if b.chain[i].ID.IsZero() { // else the caller made it
			b.seq++
			b.chain[i].ID = ledger.MakeID(b.prefix, b.seq)
		}
		b.chain[i].At = b.at
		if i < len(b.chain)-1 {
			b.chain[i].Flags |= ledger.Linked
		}
	}
	b.status = grow(b.status, len(b.chain))
	if refused := b.book.ApplyAll(b.chain, b.status); refused != 0 {
		for i, s := range b.status {
			if s != ledger.OK && s != ledger.LinkedFailed {
				panicf("demon: posting %s: transfer %d of %d (%v, %d): %v",
					name, i+1, len(b.chain), b.chain[i].Code, b.chain[i].Amount, s)
			}
		}
		panicf("demon: posting %s: refused", name)
	}
	if b.keep {
		b.note(ledger.Entry{Change: ledger.Applied, Chain: slices.Clone(b.chain)})
	}
}

// release frees what a wallet whose workload is not known any more still holds.
func (b *bookkeeper) release(name string, hold ledger.ID) {
	if hold.IsZero() {
		return
	}
	b.chain = append(b.chain[:0], ledger.Transfer{PendingID: hold, Flags: ledger.Void})
	b.apply(name)
}

// retire returns what a dead wallet left to the mint and closes its accounts.
func (b *bookkeeper) retire(name string) {
	wallet, deposit := ledger.Wallet(name).ID, ledger.Deposit(name).ID
	b.chain, b.user = b.chain[:0], 0
	b.add(deposit, wallet, b.book.Balance(deposit), ledger.ForRefund)
	b.add(wallet, mintID, b.book.Balance(wallet)+b.book.Balance(deposit), ledger.ForReturn)
	if len(b.chain) > 0 {
		b.apply(name)
	}
	b.forget(name, wallet, deposit)
	delete(b.wallet, name)
}

// forget closes accounts that are empty.
func (b *bookkeeper) forget(name string, ids ...ledger.ID) {
	for _, id := range ids {
		if status := b.book.Forget(id); status != ledger.OK {
			panicf("demon: close accounts of %s: %v", name, status)
		}
		b.note(ledger.Entry{Change: ledger.Forgot, Account: ledger.Account{ID: id}})
	}
}

// balances are account balances by name, with what is not posted yet.
type balances struct {
	book    *ledger.Ledger
	pending map[ledger.ID]unit.Credits // what a posting now would add
	by      map[string]unit.Credits
	listed  unit.Credits // their sum
}

// of is an account's balance.
func (l *balances) of(id ledger.ID) unit.Credits { return l.book.Balance(id) + l.pending[id] }

// list adds an account, if it is open.
func (l *balances) list(id ledger.ID) {
	if a, open := l.book.Lookup(id); open {
		v := a.Balance() + l.pending[id]
		l.by[a.Name] = v
		l.listed += v
	}
}

// outstanding is the books with what the living have not posted yet. It
// writes nothing.
func (b *bookkeeper) outstanding(d *Demon) *balances {
	l := &balances{book: b.book, pending: make(map[ledger.ID]unit.Credits), by: make(map[string]unit.Credits)}
	for _, slot := range d.active {
		w := d.slots[slot]
		if w.dead {
			continue
		}
		if _, news := b.draft(w, ledger.ForEnergy); !news {
			continue
		}
		for i := range b.chain {
			if t := &b.chain[i]; t.Flags&(ledger.Pending|ledger.Void) == 0 {
				l.pending[t.Debit] -= t.Amount
				l.pending[t.Credit] += t.Amount
			}
		}
	}
	return l
}

// Entries hands over what was done to the books since the last call, for a
// journal (Config.Journal): replayed in order into an empty ledger they give these
// books. It may be called between any two other calls.
func (d *Demon) Entries() []ledger.Entry {
	list := d.money.entries
	d.money.entries = nil
	return list
}

// postAll posts every living wallet.
func (d *Demon) postAll() {
	d.keepGrid()
	for _, slot := range d.active {
		w := d.slots[slot]
		w.touched = false
		if !w.dead {
			d.keep(w)
		}
	}
	d.touched = d.touched[:0]
}
