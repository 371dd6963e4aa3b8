package journal

import (
	"fmt"
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Report is what a journal holds that was found whole.
type Report struct {
	Head      Head
	Accounts  int // opened, in all
	Transfers int
	First     time.Time // of the first and the last record; zero if empty
	Last      time.Time
	Books     map[string]unit.Credits // balances at the end, by account
	Sum       unit.Credits            // of them: zero
	Minted    unit.Credits
}

// BrokenError names the first record that is not what it should be.
type BrokenError struct {
	Seq uint64 // of the record
	Why string
}

// Error is one line.
func (e *BrokenError) Error() string { return fmt.Sprintf("record %d: %s", e.Seq, e.Why) }

// verifyBounds let a replay hold what any ledger held that wrote the journal:
// what a larger one accepted a smaller one might refuse.
var verifyBounds = ledger.Config{Window: 1 << 20, Holds: math.MaxInt32, Accounts: math.MaxInt32}

// Verify reads s from its first record to its last: numbers without gaps, each
// hash from the one before, each entry accepted by the books that the earlier ones
// gave, and a sum of all balances that is zero at the end. A *BrokenError names the
// first record that fails; another error says why it could not be read.
func Verify(s Store) (Report, error) { return Replay(s, ledger.New(verifyBounds)) }

// Replay is Verify into books of the caller's, which are empty and at least as
// large as those that wrote the journal: he can go on from them.
func Replay(s Store, books *ledger.Ledger) (Report, error) {
	r := Report{}
	for rec, err := range s.Records() {
		if err != nil {
			return r, err
		}
		if err := r.check(books, &rec); err != nil {
			return r, err
		}
	}
	r.Books = make(map[string]unit.Credits)
	for a := range books.Accounts() {
		r.Books[a.Name] = a.Balance()
	}
	r.Sum, r.Minted = books.Sum(), -books.Balance(ledger.Mint().ID)
	if r.Sum != 0 {
		return r, &BrokenError{Seq: r.Head.Seq, Why: fmt.Sprintf("the balances sum to %v after it", r.Sum)}
	}
	return r, nil
}

// check takes one more record into the report.
func (r *Report) check(books *ledger.Ledger, rec *Record) error {
	broken := func(format string, args ...any) error {
		return &BrokenError{Seq: rec.Seq, Why: fmt.Sprintf(format, args...)}
	}
	if want := r.Head.Seq + 1; rec.Seq != want {
		return broken("it follows record %d: %d are missing", r.Head.Seq, rec.Seq-want)
	}
	if want := seal(r.Head.Hash, rec.Seq, rec.Wall, &rec.Entry); rec.Hash != want {
		return broken("its hash does not follow from its content and record %d: one of them was changed after it was written", rec.Seq-1)
	}
	if status := books.Replay(&rec.Entry); status != ledger.OK {
		return broken("its entry (%v) does not fit the books before it: %v", rec.Change, status)
	}
	if rec.Seq == 1 {
		r.First = rec.Wall
	}
	r.Head, r.Last = Head{Seq: rec.Seq, Hash: rec.Hash}, rec.Wall
	if rec.Change == ledger.Opened {
		r.Accounts++
	}
	r.Transfers += len(rec.Chain)
	return nil
}
