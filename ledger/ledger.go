package ledger

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Bounds that a zero Config means. A record of the window takes about 150
// bytes with its index, a hold 200, an account 200: 10 MB of window at most.
const (
	DefaultWindow   = 1 << 16
	DefaultHolds    = 1 << 16
	DefaultAccounts = 1 << 17
)

// Config bounds the memory of a ledger. The zero value is good for a node.
type Config struct {
	// Window is how many applied transfers are remembered for recognising a
	// repeated id. Raised, late duplicates get Exists instead of Stale, and
	// more transfers fit in one instant; lowered, less memory.
	Window int
	// Holds is how many holds may be open at once.
	Holds int
	// Accounts is how many accounts may be open at once.
	Accounts int
}

// Validate reports the first bound that makes no sense.
func (c Config) Validate() error {
	for _, b := range []struct {
		name  string
		value int
	}{{"window", c.Window}, {"holds", c.Holds}, {"accounts", c.Accounts}} {
		if b.value < 0 || b.value > math.MaxInt32 {
			return fmt.Errorf("ledger %s of %d: want 0 (default) to %d", b.name, b.value, math.MaxInt32)
		}
	}
	return nil
}

// Ledger is a set of accounts and everything that ever happened to them, as
// sums. The zero value is not usable; see New.
type Ledger struct {
	accounts []Account // a free slot has a zero ID
	free     []int32
	index    map[ID]int32
	bound    int
	retired  [kinds]Total // what forgotten accounts did, by kind

	window window
	holds  holds
	last   unit.Instant // time of the newest applied transfer
	undo   []step       // scratch of ApplyAll
}

// Total is what the forgotten accounts of one kind did while they were open.
type Total struct {
	Accounts        int       // how many were forgotten
	Debits, Credits unit.Wide // posted; equal, because only empty accounts are forgotten
}

// New returns an empty ledger. It panics on a Config that Validate refuses.
func New(c Config) *Ledger {
	if err := c.Validate(); err != nil {
		panic(err.Error())
	}
	return &Ledger{
		index:  make(map[ID]int32),
		bound:  cmp.Or(c.Accounts, DefaultAccounts),
		window: newWindow(cmp.Or(c.Window, DefaultWindow)),
		holds:  newHolds(cmp.Or(c.Holds, DefaultHolds)),
		last:   math.MinInt64,
	}
}

// Open adds an account without money. An account that is open already gives
// AccountExists, so opening is as repeatable as applying.
func (l *Ledger) Open(a Account) Status {
	switch {
	case a.ID.IsZero():
		return IDZero
	case a.Flags>>accountFlags != 0,
		a.Flags&DebitsMustNotExceedCredits != 0 && a.Flags&CreditsMustNotExceedDebits != 0:
		return FlagsInvalid
	case a.Name == "":
		return NameInvalid
	case a.Code == 0 || a.Code >= kinds:
		return KindInvalid
	case a != Account{ID: a.ID, Name: a.Name, Code: a.Code, Flags: a.Flags}:
		return SumsNotZero
	}
	if slot, ok := l.index[a.ID]; ok {
		have := &l.accounts[slot]
		if have.Name != a.Name || have.Code != a.Code || have.Flags != a.Flags {
			return AccountExistsDifferent
		}
		return AccountExists
	}
	if len(l.index) >= l.bound {
		return AccountsFull
	}
	if n := len(l.free); n > 0 {
		slot := l.free[n-1]
		l.free = l.free[:n-1]
		l.accounts[slot], l.index[a.ID] = a, slot
		return OK
	}
	l.index[a.ID] = int32(len(l.accounts))
	l.accounts = append(l.accounts, a)
	return OK
}

// Forget closes an account that has neither money nor holds. What it did is
// added to its kind's Total, so the books still add up. A later Open of the
// same account starts it anew.
func (l *Ledger) Forget(id ID) Status {
	slot, ok := l.index[id]
	if !ok {
		return AccountNotFound
	}
	a := &l.accounts[slot]
	switch {
	case !a.DebitsPending.IsZero() || !a.CreditsPending.IsZero():
		return AccountHasHolds
	case a.DebitsPosted != a.CreditsPosted:
		return AccountHasMoney
	}
	t := &l.retired[a.Code]
	t.Accounts++
	t.Debits = t.Debits.Add(a.DebitsPosted)
	t.Credits = t.Credits.Add(a.CreditsPosted)
	*a = Account{}
	l.free = append(l.free, slot)
	delete(l.index, id)
	return OK
}

// Lookup returns a copy of the account id.
func (l *Ledger) Lookup(id ID) (Account, bool) {
	slot, ok := l.index[id]
	if !ok {
		return Account{}, false
	}
	return l.accounts[slot], true
}

// Balance is credits posted minus debits posted of the account id: what it
// has, or (negative) owes. It is 0 for an account that is not open.
func (l *Ledger) Balance(id ID) unit.Credits {
	slot, ok := l.index[id]
	if !ok {
		return 0
	}
	return l.accounts[slot].Balance()
}

// Available is Balance minus what is held to leave: what the account id can
// spend now. It is 0 for an account that is not open.
func (l *Ledger) Available(id ID) unit.Credits {
	slot, ok := l.index[id]
	if !ok {
		return 0
	}
	a := &l.accounts[slot]
	return mustDifference(a.CreditsPosted, a.DebitsPosted.Add(a.DebitsPending))
}

// Balance is credits posted minus debits posted.
func (a *Account) Balance() unit.Credits { return mustDifference(a.CreditsPosted, a.DebitsPosted) }

// Sum is the sum of all balances, added up from the accounts now. It is zero;
// anything else is a defect of this package.
func (l *Ledger) Sum() unit.Credits {
	var debits, credits unit.Wide
	for i := range l.accounts {
		debits = debits.Add(l.accounts[i].DebitsPosted)
		credits = credits.Add(l.accounts[i].CreditsPosted)
	}
	for i := range l.retired {
		debits = debits.Add(l.retired[i].Debits)
		credits = credits.Add(l.retired[i].Credits)
	}
	return mustDifference(credits, debits)
}

// Retired is what the forgotten accounts of a kind did.
func (l *Ledger) Retired(k Kind) Total {
	if k >= kinds {
		return Total{}
	}
	return l.retired[k]
}

// Len is how many accounts are open.
func (l *Ledger) Len() int { return len(l.index) }

// Accounts iterates over copies of the open accounts in order of their names
// (equal names: of their ids).
func (l *Ledger) Accounts() iter.Seq[Account] {
	order := make([]int32, 0, len(l.index))
	for slot := range l.accounts {
		if !l.accounts[slot].ID.IsZero() {
			order = append(order, int32(slot))
		}
	}
	slices.SortFunc(order, func(i, j int32) int {
		a, b := &l.accounts[i], &l.accounts[j]
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
	return func(yield func(Account) bool) {
		for _, slot := range order {
			if !yield(l.accounts[slot]) {
				return
			}
		}
	}
}
