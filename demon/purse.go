package demon

import (
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// purse is one wallet's money between two postings. At every instant
//
//	granted + income + moved = spent + balance + deposit
//
// where spent is what the bills took (written-off amounts excluded) and moved is
// what other wallets gave it less what it gave them.
type purse struct {
	open    bool // minted as used
	granted unit.Credits
	income  unit.Credits
	moved   unit.Credits // between wallets, net; posted when it happens
	balance unit.Credits // free to spend, never negative
	deposit unit.Credits // locked
	spent   price.Bill
	other   unit.Credits // fees other than the core equation's; none so far
	loss    unit.Credits // written off

	posted       purseMarks // what the ledger already knows
	wallet, bond ledger.ID  // its accounts
	from         *standing  // that paid its budget; nil = the mint
}

// purseMarks are the cumulative sums at the last posting.
type purseMarks struct {
	granted, income, moved, deposit, other, loss unit.Credits

	spent price.Bill
	hold  ledger.ID
	held  unit.Credits
}

// same reports whether p has not changed since.
func (m *purseMarks) same(p *purse) bool {
	return m.granted == p.granted && m.income == p.income && m.moved == p.moved && m.deposit == p.deposit &&
		m.other == p.other && m.loss == p.loss && m.spent == p.spent
}

// marks are the cumulative sums as they are now.
func (p *purse) marks() purseMarks {
	return purseMarks{
		granted: p.granted, income: p.income, moved: p.moved, deposit: p.deposit, other: p.other, loss: p.loss,
		spent: p.spent,
	}
}

// unposted is what was minted into it since the last posting.
func (p *purse) unposted() unit.Credits {
	return p.granted - p.posted.granted + p.income - p.posted.income
}

// total returns everything the wallet has paid.
func (p *purse) total() unit.Credits { return p.spent.Total() + p.other }

// pay takes a bill: from the balance, then from the deposit, then from the
// operator's loss account. Written off is the rent first (scarcity is nobody's
// cost), then erasure, then energy. An open wallet has no more than room minted.
func (p *purse) pay(b price.Bill, room unit.Credits) {
	due := b.Total()
	if due < 0 {
		panicf("demon: negative bill %d", due)
	}
	if p.open && due > p.balance {
		more := min(due-p.balance, room)
		p.granted += more
		p.balance += more
	}
	if short := due - p.balance; short > 0 {
		drawn := min(short, p.deposit)
		p.deposit -= drawn
		p.balance += drawn
		if over := short - drawn; over > 0 {
			p.loss += over
			b = writeOff(b, over)
			due -= over
		}
	}
	p.balance -= due
	p.spent.Energy += b.Energy
	p.spent.Rent += b.Rent
	p.spent.Erasure += b.Erasure
}

// writeOff takes over out of b: rent, then erasure, then energy.
func writeOff(b price.Bill, over unit.Credits) price.Bill {
	for _, part := range []*unit.Credits{&b.Rent, &b.Erasure, &b.Energy} {
		cut := min(over, *part)
		*part -= cut
		over -= cut
	}
	return b
}

// whole reports whether no credit was made or lost.
func (p *purse) whole() bool {
	have := p.granted + p.income + p.moved
	want := p.total() + p.balance + p.deposit
	return have == want && p.balance >= 0 && p.deposit >= 0
}

// check panics when a credit was made or lost.
func (p *purse) check(name string) {
	if !p.whole() {
		panicf("demon: wallet %s: granted %d + income %d + moved %d != spent %d + balance %d + deposit %d",
			name, p.granted, p.income, p.moved, p.total(), p.balance, p.deposit)
	}
}
