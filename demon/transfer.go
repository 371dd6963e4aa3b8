package demon

import (
	"fmt"
	"iter"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// callerMade marks, in UserData, a transfer whose id somebody outside made; the
// rest of UserData is the id of the workload whose posting it is.
const callerMade = uint64(1) << 63

// mostRequests is how many caller-made ids a market remembers: 25 MB at most. A
// request that is repeated after so many others would be carried out again;
// whoever keeps the journal can find it there.
const mostRequests = 1 << 18

// request is what was asked for under a caller-made id.
type request struct {
	debit, credit ledger.ID
	amount        unit.Credits
}

// requests remembers the newest caller-made ids.
type requests struct {
	made  map[ledger.ID]request
	order []ledger.ID // a ring once it is full
	next  int
	own   map[uint64]struct{} // first halves of the ids that markets of this journal made
}

// remember notes that id was carried out.
func (r *requests) remember(id ledger.ID, what request) {
	if r.made == nil {
		r.made = make(map[ledger.ID]request)
	}
	if len(r.order) < mostRequests {
		r.order = append(r.order, id)
	} else {
		delete(r.made, r.order[r.next])
		r.order[r.next] = id
		r.next = (r.next + 1) % mostRequests
	}
	r.made[id] = what
}

// all iterates over the ids that are remembered, the oldest first.
func (r *requests) all() iter.Seq[ledger.ID] {
	return func(yield func(ledger.ID) bool) {
		for i := range r.order {
			if !yield(r.order[(r.next+i)%len(r.order)]) {
				return
			}
		}
	}
}

// taken reports whether an id that is known begins with prefix.
func (r *requests) taken(prefix uint64) bool {
	if _, own := r.own[prefix]; own {
		return true
	}
	for _, id := range r.order {
		if hi, _ := id.Parts(); hi == prefix {
			return true
		}
	}
	return false
}

// judge reports whether id was carried out before, or why it cannot be.
func (r *requests) judge(id ledger.ID, what request) (done bool, err error) {
	if before, seen := r.made[id]; seen {
		if before != what {
			return false, &Refusal{What: "id", Reason: fmt.Sprintf("%v was used for another request; take a new one", id)}
		}
		return true, nil
	}
	hi, _ := id.Parts()
	if _, own := r.own[hi]; own || id.IsZero() {
		return false, &Refusal{What: "id", Reason: fmt.Sprintf("%v cannot be used; take a random one", id)}
	}
	return false, nil
}

// FundAs is Fund under an id that the caller made: the same request again, also to
// a process that resumed the books, has no further effect. It is posted at once.
func (d *Demon) FundAs(slot int32, amount unit.Credits, id ledger.ID) (unit.Credits, error) {
	w := d.at(slot)
	if w == nil {
		return 0, &Refusal{What: "name", Reason: "it is dead; money cannot help it any more"}
	}
	wallet, _ := w.accounts()
	what := request{debit: mintID, credit: wallet, amount: amount}
	switch done, err := d.money.asked.judge(id, what); {
	case err != nil:
		return 0, err
	case done:
		return w.purse.balance, nil
	}
	if err := d.fundable(w, amount); err != nil {
		return 0, err
	}
	b := &d.money
	b.post(w)
	b.chain = b.chain[:0]
	b.user = w.id
	b.void(w)
	b.user |= callerMade
	b.chain = append(b.chain, ledger.Transfer{ID: id, Debit: mintID, Credit: wallet, Amount: amount, Code: ledger.ForFunding, UserData: b.user})
	b.user = w.id
	w.purse.granted += amount
	w.purse.balance += amount
	held := b.hold(w, w.purse.balance)
	b.apply(w.ask.Name)
	b.settle(w, held)
	b.asked.remember(id, what)
	d.keep(w)
	return w.purse.balance, nil
}

// Transfer moves money from one living wallet to another, as one chain that is
// posted at once. What is locked as a deposit cannot be given away.
func (d *Demon) Transfer(from, to int32, amount unit.Credits) error {
	return d.transfer(from, to, amount, ledger.ID{})
}

// TransferAs is Transfer under an id that the caller made; see FundAs.
func (d *Demon) TransferAs(from, to int32, amount unit.Credits, id ledger.ID) error {
	giver, taker := d.at(from), d.at(to)
	if giver == nil || taker == nil {
		return &Refusal{What: "name", Reason: "it is dead"}
	}
	debit, _ := giver.accounts()
	credit, _ := taker.accounts()
	what := request{debit: debit, credit: credit, amount: amount}
	if done, err := d.money.asked.judge(id, what); done || err != nil {
		return err
	}
	if err := d.transfer(from, to, amount, id); err != nil {
		return err
	}
	d.money.asked.remember(id, what)
	return nil
}

// transfer is Transfer; a zero id is made here.
func (d *Demon) transfer(from, to int32, amount unit.Credits, id ledger.ID) error {
	giver, taker := d.at(from), d.at(to)
	switch {
	case giver == nil || giver.dead || taker == nil || taker.dead:
		return &Refusal{What: "name", Reason: "it is dead; its wallet neither gives nor takes"}
	case giver.purse.open || taker.purse.open:
		return &Refusal{What: "name", Reason: "a wallet is open: it has no budget to give from or to add to"}
	case giver == taker:
		return &Refusal{What: "name", Reason: "both wallets are the same"}
	case amount <= 0:
		return &Refusal{What: "amount", Reason: "give a positive amount"}
	case amount > giver.purse.balance:
		return &Refusal{
			What: "amount", Need: amount,
			Reason: fmt.Sprintf("%v is more than the %v that %s has; give less", amount, giver.purse.balance, giver.ask.Name),
		}
	}
	b := &d.money
	b.post(giver)
	b.post(taker)
	b.chain = b.chain[:0]
	b.user = giver.id
	b.void(giver)
	b.user = taker.id
	b.void(taker)
	b.user = giver.id
	if !id.IsZero() {
		b.user |= callerMade
	}
	debit, _ := giver.accounts()
	credit, _ := taker.accounts()
	b.add(debit, credit, amount, ledger.ForTransfer)
	b.chain[len(b.chain)-1].ID = id
	giver.purse.moved -= amount
	giver.purse.balance -= amount
	taker.purse.moved += amount
	taker.purse.balance += amount
	b.user = giver.id
	given := b.hold(giver, giver.purse.balance)
	b.user = taker.id
	taken := b.hold(taker, taker.purse.balance)
	b.apply(giver.ask.Name)
	b.settle(giver, given)
	b.settle(taker, taken)
	d.keep(giver)
	d.keep(taker)
	return nil
}
