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

// Owner is the id of the workload that a posting's UserData names; 0 = none.
func Owner(user uint64) uint64 { return user &^ callerMade }

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
	b.loose += amount
	held := b.hold(w, w.purse.balance)
	b.apply(w.ask.Name)
	b.settle(w, held)
	b.asked.remember(id, what)
	d.keep(w)
	return w.purse.balance, nil
}

// Holder is who holds money: the workload in Slot, or the standing wallet of a name.
type Holder struct {
	Slot   int32
	Wallet string
}

// Transfer moves money from one living wallet to another, as one chain that is
// posted at once. What is locked as a deposit cannot be given away.
func (d *Demon) Transfer(from, to int32, amount unit.Credits) error {
	return d.TransferAs(from, to, amount, ledger.ID{})
}

// TransferAs is Transfer under an id that the caller made; see FundAs. A zero id is
// made here.
func (d *Demon) TransferAs(from, to int32, amount unit.Credits, id ledger.ID) error {
	_, _, err := d.Move(d.now, Holder{Slot: from}, Holder{Slot: to}, amount, id)
	return err
}

// Move is TransferAs between any two that hold money. It returns the balances after
// it.
func (d *Demon) Move(now unit.Instant, from, to Holder, amount unit.Credits, id ledger.ID) (left, has unit.Credits, err error) {
	giver, err := d.sideOf(from)
	if err != nil {
		return 0, 0, err
	}
	taker, err := d.sideOf(to)
	if err != nil {
		return 0, 0, err
	}
	what := request{debit: giver.account, credit: taker.account, amount: amount}
	done := false
	if !id.IsZero() {
		if done, err = d.money.asked.judge(id, what); err != nil {
			return 0, 0, err
		}
	}
	if !done {
		if giver.v != nil || taker.v != nil {
			d.refillAll(now) // what a wallet's children were not paid before, it does not owe them
		}
		if err := d.movable(giver, taker, amount); err != nil {
			return 0, 0, err
		}
		d.move(giver, taker, amount, id)
		if !id.IsZero() {
			d.money.asked.remember(id, what)
		}
	}
	return d.balanceOf(giver), d.balanceOf(taker), nil
}

// side is a Holder that was found.
type side struct {
	account ledger.ID
	w       *workload // nil: a standing wallet
	v       *standing
	name    string
}

func (d *Demon) sideOf(h Holder) (side, error) {
	if h.Wallet != "" {
		v := d.wallets[h.Wallet]
		if v == nil {
			return side{}, &Refusal{What: "wallet", Reason: fmt.Sprintf("there is no wallet %q", h.Wallet)}
		}
		return side{account: v.account, v: v, name: v.name}, nil
	}
	w := d.at(h.Slot)
	if w == nil {
		return side{}, &Refusal{What: "name", Reason: "it is dead"}
	}
	account, _ := w.accounts()
	return side{account: account, w: w, name: w.ask.Name}, nil
}

func (d *Demon) balanceOf(s side) unit.Credits {
	if s.w != nil {
		return s.w.purse.balance
	}
	return d.book.Balance(s.account)
}

// movable says why amount cannot be moved, if it cannot.
func (d *Demon) movable(giver, taker side, amount unit.Credits) error {
	for _, s := range []side{giver, taker} {
		switch {
		case s.w == nil:
		case s.w.dead:
			return &Refusal{What: "name", Reason: "it is dead; its wallet neither gives nor takes"}
		case s.w.purse.open:
			return &Refusal{What: "name", Reason: "a wallet is open: it has no budget to give from or to add to"}
		case s.w.draws():
			return s.w.drawsFrom()
		}
	}
	has := d.balanceOf(giver)
	switch {
	case giver.account == taker.account:
		return &Refusal{What: "name", Reason: "both wallets are the same"}
	case amount <= 0:
		return &Refusal{What: "amount", Reason: "give a positive amount"}
	case amount > has:
		return &Refusal{
			What: "amount", Need: amount,
			Reason: fmt.Sprintf("%v is more than the %v that %s has; give less", amount, has, giver.name),
		}
	}
	return nil
}

// move posts both sides and what is moved between them as one chain.
func (d *Demon) move(giver, taker side, amount unit.Credits, id ledger.ID) {
	b := &d.money
	sides := [...]side{giver, taker}
	for _, s := range sides {
		if s.w != nil {
			b.post(s.w)
		}
	}
	b.chain = b.chain[:0]
	for _, s := range sides {
		if s.w != nil {
			b.user = s.w.id
			b.void(s.w)
		}
	}
	b.user = 0
	if giver.w != nil {
		b.user = giver.w.id
		giver.w.purse.moved -= amount
		giver.w.purse.balance -= amount
	}
	if taker.w != nil {
		if giver.w == nil {
			b.user = taker.w.id
		}
		taker.w.purse.moved += amount
		taker.w.purse.balance += amount
	}
	if !id.IsZero() {
		b.user |= callerMade
	}
	b.add(giver.account, taker.account, amount, ledger.ForTransfer)
	b.chain[len(b.chain)-1].ID = id
	held := [len(sides)]int{}
	for i, s := range sides {
		if s.w != nil {
			b.user = s.w.id
			held[i] = b.hold(s.w, s.w.purse.balance)
		}
	}
	b.apply(giver.name)
	for i, s := range sides {
		if s.w != nil {
			b.settle(s.w, held[i])
			d.keep(s.w)
		} else {
			s.v.changed = true
		}
	}
}
