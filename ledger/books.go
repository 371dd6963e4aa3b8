package ledger

import (
	"math"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Books are what the entries of a ledger gave, at one moment: whoever has them can
// go on without those entries. Equal books are equal in every field: each list has
// one order.
type Books struct {
	Accounts []Account    // the open ones with their sums, in order of names
	Retired  []Total      // what the forgotten ones did, by Kind from 0 to the last that did
	Holds    []Transfer   // the open ones, in order of ids
	Last     unit.Instant // time of the newest transfer

	// Beside them what the one who made the transfers has to remember. A ledger
	// does not read it.
	Prefixes []uint64  // first halves of the ids that he made, in order
	Highest  uint64    // of the numbers that he gave (UserData)
	Requests []Request // of the others, the newest, oldest first
}

// Request is what somebody else asked for under an id that he made himself.
type Request struct {
	ID, Debit, Credit ID
	Amount            unit.Credits
}

// Books returns a copy of the ledger's state, for an Entry that is Carried. The ids
// of transfers before it are not in it: a ledger that it is carried to refuses what
// is not younger than the last of them as Stale.
func (l *Ledger) Books() Books {
	did := len(l.retired)
	for did > 0 && l.retired[did-1] == (Total{}) {
		did--
	}
	b := Books{
		Accounts: slices.Collect(l.Accounts()), Retired: append([]Total(nil), l.retired[:did]...),
		Holds: slices.Collect(l.Holds()), Last: l.last,
	}
	slices.SortFunc(b.Holds, func(x, y Transfer) int { return slices.Compare(x.ID[:], y.ID[:]) })
	return b
}

// carry makes books the state of an empty ledger, or changes nothing.
func (l *Ledger) carry(b *Books) Status {
	if len(l.index) > 0 || l.last != math.MinInt64 || l.retired != ([kinds]Total{}) {
		return BooksNotEmpty
	}
	fresh := New(Config{Window: l.window.bound, Holds: l.holds.bound, Accounts: l.bound})
	for i := range b.Accounts {
		if status := fresh.carryAccount(b.Accounts[i]); status != OK {
			return status
		}
	}
	for i := range b.Holds {
		if status := fresh.carryHold(&b.Holds[i]); status != OK {
			return status
		}
	}
	if len(b.Retired) > len(l.retired) {
		return KindInvalid
	}
	copy(fresh.retired[:], b.Retired)
	fresh.last, fresh.window.floor = b.Last, b.Last
	if !fresh.bounded() || !fresh.even(b) {
		return BooksUneven
	}
	*l = *fresh
	return OK
}

// carryAccount opens an account with its posted sums. The pending ones are those of
// the holds that follow.
func (l *Ledger) carryAccount(a Account) Status {
	if status := l.Open(Account{ID: a.ID, Name: a.Name, Code: a.Code, Flags: a.Flags}); status != OK {
		return status
	}
	have := &l.accounts[l.index[a.ID]]
	have.DebitsPosted, have.CreditsPosted = a.DebitsPosted, a.CreditsPosted
	return OK
}

// carryHold opens a hold that was judged when it was made.
func (l *Ledger) carryHold(t *Transfer) Status {
	if t.ID.IsZero() {
		return IDZero
	}
	if status := wellFormed(t); status != OK {
		return status
	}
	debit, ok := l.index[t.Debit]
	if !ok {
		return DebitNotFound
	}
	credit, ok := l.index[t.Credit]
	switch {
	case !ok:
		return CreditNotFound
	case t.Flags&Pending == 0:
		return FlagsInvalid
	case l.holds.find(t.ID) >= 0:
		return ExistsDifferent
	case l.holds.full():
		return HoldsFull
	}
	d, c := &l.accounts[debit], &l.accounts[credit]
	d.DebitsPending = d.DebitsPending.Add(wide(t.Amount))
	c.CreditsPending = c.CreditsPending.Add(wide(t.Amount))
	l.holds.open(hold{transfer: *t, debit: debit, credit: credit, deadline: deadline(t)})
	return OK
}

// bounded reports whether the sums are small enough to be added up: 2^32 transfers
// of the largest amount fit, and as many accounts with as much.
func (l *Ledger) bounded() bool {
	const most = 1 << 31 // in 2^64
	for i := range l.accounts {
		if a := &l.accounts[i]; a.DebitsPosted.Hi >= most || a.CreditsPosted.Hi >= most {
			return false
		}
	}
	for i := range l.retired {
		if t := &l.retired[i]; t.Debits.Hi >= most || t.Credits.Hi >= most {
			return false
		}
	}
	return true
}

// even reports whether the sums of b fit each other: each account's holds are those
// that there are, none owes that must not, and all balances sum to zero.
func (l *Ledger) even(b *Books) bool {
	var debits, credits unit.Wide
	for i := range b.Accounts {
		want, have := &b.Accounts[i], &l.accounts[i]
		_, inRange := difference(have.CreditsPosted, have.DebitsPosted)
		paid, taken := have.DebitsPosted.Add(have.DebitsPending), have.CreditsPosted.Add(have.CreditsPending)
		_, inRange2 := difference(have.CreditsPosted, paid)
		_, inRange3 := difference(taken, have.DebitsPosted)
		switch {
		case *want != *have, !inRange, !inRange2, !inRange3,
			have.Flags&DebitsMustNotExceedCredits != 0 && paid.Cmp(have.CreditsPosted) > 0,
			have.Flags&CreditsMustNotExceedDebits != 0 && taken.Cmp(have.DebitsPosted) > 0:
			return false
		}
		debits, credits = debits.Add(have.DebitsPosted), credits.Add(have.CreditsPosted)
	}
	for i := range b.Retired {
		if b.Retired[i].Debits != b.Retired[i].Credits || b.Retired[i].Accounts < 0 {
			return false
		}
	}
	return debits == credits
}
