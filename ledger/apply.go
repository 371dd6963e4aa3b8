package ledger

import (
	"math"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// plan is a transfer that has been judged: what commit will change.
type plan struct {
	debit, credit int32        // slots of the accounts
	amount        unit.Credits // to hold, or to move
	hold          int32        // slot of the hold that Post and Void resolve
}

// step is a committed transfer, with what it takes to undo it.
type step struct {
	transfer Transfer
	plan     plan
	hold     hold         // what Post and Void resolved
	last     unit.Instant // the ledger's last before
}

// Apply judges one transfer and, if nothing speaks against it, carries it out.
// A Linked transfer has nothing to be linked to here: ChainOpen.
func (l *Ledger) Apply(t Transfer) Status {
	if t.Flags&Linked != 0 {
		return ChainOpen
	}
	p, status := l.judge(&t)
	if status == OK {
		l.commit(&t, p)
	}
	return status
}

// ApplyAll applies transfers in order and writes one Status each to out, which
// is as long as ts. A transfer with the flag Linked shares its fate with the
// next: such a chain is applied as a whole, or the first refused transfer
// gets its reason, the others get LinkedFailed, and nothing of it stays. It
// returns how many of ts are refused.
//
// A repeated chain is recognised by its first transfer: Exists there refuses
// the rest with LinkedFailed, because all of it happened before.
func (l *Ledger) ApplyAll(ts []Transfer, out []Status) (refused int) {
	if len(ts) != len(out) {
		panic("ledger: ApplyAll with slices of different lengths")
	}
	for start := 0; start < len(ts); {
		end := start
		for end < len(ts) && ts[end].Flags&Linked != 0 {
			end++
		}
		open := end == len(ts)
		end = min(end+1, len(ts))
		l.applyChain(ts[start:end], out[start:end], open)
		start = end
	}
	for _, s := range out {
		if s != OK {
			refused++
		}
	}
	return refused
}

// applyChain applies all of ts or nothing. open says that the last transfer is
// linked to one that is missing.
func (l *Ledger) applyChain(ts []Transfer, out []Status, open bool) {
	switch {
	case open:
		refuseChain(out, len(ts)-1, ChainOpen)
		return
	case len(ts) > l.window.bound: // it would forget its own beginning
		refuseChain(out, 0, WindowFull)
		return
	}
	l.undo = l.undo[:0]
	for i := range ts {
		p, status := l.judge(&ts[i])
		if status != OK {
			refuseChain(out, i, status)
			for _, s := range slices.Backward(l.undo) {
				l.revert(&s)
			}
			return
		}
		s := step{transfer: ts[i], plan: p, last: l.last}
		if ts[i].Flags&(Post|Void) != 0 {
			s.hold = l.holds.slots[p.hold]
		}
		l.commit(&ts[i], p)
		l.undo = append(l.undo, s)
		out[i] = OK
	}
}

// refuseChain answers a chain whose transfer i is refused for its own reason.
func refuseChain(out []Status, i int, reason Status) {
	for j := range out {
		out[j] = LinkedFailed
	}
	out[i] = reason
}

// judge finds the first status that holds for t. It changes nothing.
func (l *Ledger) judge(t *Transfer) (plan, Status) {
	if t.ID.IsZero() {
		return plan{}, IDZero
	}
	if status := l.repeated(t); status != OK {
		return plan{}, status
	}
	if status := wellFormed(t); status != OK {
		return plan{}, status
	}
	if t.At < l.last || t.At <= l.window.floor {
		return plan{}, Stale
	}
	var p plan
	var status Status
	if t.Flags&(Post|Void) != 0 {
		p, status = l.judgeResolution(t)
	} else {
		p, status = l.judgeMovement(t)
	}
	switch {
	case status != OK:
		return plan{}, status
	case !l.window.hasRoom(t.At):
		return plan{}, WindowFull
	case t.Flags&Pending != 0 && l.holds.full():
		return plan{}, HoldsFull
	}
	return p, OK
}

// repeated tells whether the id was applied before. An open hold is remembered
// however old it is.
func (l *Ledger) repeated(t *Transfer) Status {
	var before *Transfer
	if r := l.window.find(t.ID); r != nil {
		before = &r.transfer
	} else if slot := l.holds.find(t.ID); slot >= 0 {
		before = &l.holds.slots[slot].transfer
	}
	switch {
	case before == nil:
		return OK
	case before.same(t):
		return Exists
	}
	return ExistsDifferent
}

// wellFormed judges a transfer by itself.
func wellFormed(t *Transfer) Status {
	resolves := t.Flags&(Post|Void) != 0
	exclusive := t.Flags & (Pending | Post | Void)
	switch {
	case t.Flags>>transferFlags != 0 || exclusive&(exclusive-1) != 0:
		return FlagsInvalid
	case t.Amount < 0 || (t.Amount == 0) != (t.Flags&Void != 0):
		return AmountInvalid
	case t.Timeout < 0 || t.Timeout != 0 && t.Flags&Pending == 0:
		return TimeoutInvalid
	case t.Code >= purposes || t.Code == 0 && !resolves:
		return CodeInvalid
	case resolves && t.PendingID.IsZero():
		return PendingIDZero
	case !resolves && !t.PendingID.IsZero():
		return PendingIDUnexpected
	case !resolves && t.Debit == t.Credit:
		return SameAccount
	}
	return OK
}

// judgeMovement judges a transfer that moves or holds money by the books.
func (l *Ledger) judgeMovement(t *Transfer) (plan, Status) {
	p := plan{amount: t.Amount, hold: -1}
	var ok bool
	if p.debit, ok = l.index[t.Debit]; !ok {
		return p, DebitNotFound
	}
	if p.credit, ok = l.index[t.Credit]; !ok {
		return p, CreditNotFound
	}
	d, c := &l.accounts[p.debit], &l.accounts[p.credit]
	paid := d.DebitsPosted.Add(d.DebitsPending)        // if every hold is posted
	taken := c.CreditsPosted.Add(c.CreditsPending)     // if every hold is posted
	debt, inRange := difference(paid, d.CreditsPosted) // at worst, before t
	gain, inRange2 := difference(taken, c.DebitsPosted)
	switch {
	case d.Flags&DebitsMustNotExceedCredits != 0 && t.Amount > -debt:
		return p, ExceedsCredits
	case c.Flags&CreditsMustNotExceedDebits != 0 && t.Amount > -gain:
		return p, ExceedsDebits
	case !inRange || !inRange2 || debt > math.MaxInt64-t.Amount || gain > math.MaxInt64-t.Amount:
		return p, Overflow
	}
	return p, OK
}

// judgeResolution judges a Post or a Void by the hold that it names. The hold
// was judged when it was made, so no balance can be exceeded here.
func (l *Ledger) judgeResolution(t *Transfer) (plan, Status) {
	slot := l.holds.find(t.PendingID)
	if slot < 0 {
		return plan{}, l.resolved(t.PendingID)
	}
	h := &l.holds.slots[slot]
	switch {
	case !t.Debit.IsZero() && t.Debit != h.transfer.Debit,
		!t.Credit.IsZero() && t.Credit != h.transfer.Credit,
		t.Code != 0 && t.Code != h.transfer.Code:
		return plan{}, PendingDifferent
	case t.At >= h.deadline:
		return plan{}, PendingExpired
	case t.Amount > h.transfer.Amount:
		return plan{}, ExceedsPending
	}
	return plan{debit: h.debit, credit: h.credit, amount: t.Amount, hold: slot}, OK
}

// resolved tells what became of a hold that is not open.
func (l *Ledger) resolved(id ID) Status {
	r := l.window.find(id)
	if r == nil {
		return PendingNotFound
	}
	switch r.outcome {
	case posted:
		return PendingPosted
	case voided:
		return PendingVoided
	case expired:
		return PendingExpired
	case notHeld, held: // an ordinary transfer; an open hold is not looked up here
	}
	return PendingNotFound
}

// commit carries out what was judged. From here on nothing can be refused.
func (l *Ledger) commit(t *Transfer, p plan) {
	d, c := &l.accounts[p.debit], &l.accounts[p.credit]
	o := notHeld
	switch {
	case t.Flags&Pending != 0:
		d.DebitsPending = d.DebitsPending.Add(wide(p.amount))
		c.CreditsPending = c.CreditsPending.Add(wide(p.amount))
		l.holds.open(hold{transfer: *t, debit: p.debit, credit: p.credit, deadline: deadline(t)})
		o = held
	case t.Flags&(Post|Void) != 0:
		l.release(&l.holds.slots[p.hold])
		l.holds.close(p.hold)
		d.DebitsPosted = d.DebitsPosted.Add(wide(p.amount))
		c.CreditsPosted = c.CreditsPosted.Add(wide(p.amount))
		l.window.settle(t.PendingID, resolution(t))
	default:
		d.DebitsPosted = d.DebitsPosted.Add(wide(p.amount))
		c.CreditsPosted = c.CreditsPosted.Add(wide(p.amount))
	}
	l.window.push(t, o)
	l.last = t.At
}

func resolution(t *Transfer) outcome {
	if t.Flags&Post != 0 {
		return posted
	}
	return voided
}

// revert undoes the newest committed step.
func (l *Ledger) revert(s *step) {
	t, p := &s.transfer, s.plan
	d, c := &l.accounts[p.debit], &l.accounts[p.credit]
	l.window.pop()
	l.last = s.last
	if t.Flags&Pending != 0 {
		slot := l.holds.find(t.ID)
		l.release(&l.holds.slots[slot])
		l.holds.close(slot)
		return
	}
	d.DebitsPosted = d.DebitsPosted.Sub(wide(p.amount))
	c.CreditsPosted = c.CreditsPosted.Sub(wide(p.amount))
	if t.Flags&(Post|Void) != 0 {
		d.DebitsPending = d.DebitsPending.Add(wide(s.hold.transfer.Amount))
		c.CreditsPending = c.CreditsPending.Add(wide(s.hold.transfer.Amount))
		l.holds.open(s.hold)
		l.window.settle(t.PendingID, held)
	}
}
