package ledger

// Change says what an Entry did to the books.
type Change uint8

// The changes of an Entry.
const (
	Opened  Change = iota + 1 // an account was opened
	Forgot                    // an account was forgotten
	Applied                   // a chain of transfers was applied
	Carried                   // books were brought forward into an empty ledger
	changes                   // one past the last
)

var changeNames = [changes]string{Opened: "opened", Forgot: "forgot", Applied: "applied", Carried: "carried"}

// String is the change's word in journals and reports.
func (c Change) String() string {
	if c == 0 || c >= changes {
		return "unknown"
	}
	return changeNames[c]
}

// Entry is one change of a ledger that was carried out: what a journal keeps.
// The entries of a ledger, replayed in order into an empty one, give its books.
type Entry struct {
	Change  Change
	Account Account    // Opened: without sums; Forgot: its ID alone
	Chain   []Transfer // Applied: one transfer, or several linked ones
	Books   *Books     // Carried: what the entries before it gave
}

// Replay carries e out again. OK says that it was; everything else that it does
// not fit these books, which it did once, so that one of the two is not what it
// was. Of a chain it is the answer to the first transfer that was refused.
func (l *Ledger) Replay(e *Entry) Status {
	switch e.Change {
	case Opened:
		return l.Open(e.Account)
	case Forgot:
		return l.Forget(e.Account.ID)
	case Applied:
		out := make([]Status, len(e.Chain))
		if len(e.Chain) > 0 && l.ApplyAll(e.Chain, out) == 0 {
			return OK
		}
		for _, s := range out {
			if s != OK && s != LinkedFailed {
				return s
			}
		}
	case Carried:
		if e.Books != nil {
			return l.carry(e.Books)
		}
	case changes: // not a change
	}
	return ChainOpen
}
