package demon

import (
	"maps"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Tally follows the entries of a market: the books that they give and what else a
// process that resumes from them has to know. It is what a keeper of a journal carries
// forward into a new file.
type Tally struct {
	book    *ledger.Ledger
	at      unit.Instant // of the newest transfer
	highest uint64       // id of a workload
	asked   requests
}

// tallyWindow is how many transfers a Tally's ledger remembers: more than any chain of
// a market has, and every chain is younger than the one before it.
const tallyWindow = 1 << 12

// NewTally returns a tally of no entries.
func NewTally() *Tally { return newTally(ledger.New(ledger.Config{Window: tallyWindow})) }

func newTally(book *ledger.Ledger) *Tally {
	return &Tally{book: book, asked: requests{own: make(map[uint64]struct{})}}
}

// Replay takes the next entry. Anything but OK says that it does not fit the books
// before it; then the tally is good for nothing more.
func (t *Tally) Replay(e *ledger.Entry) ledger.Status {
	if status := t.book.Replay(e); status != ledger.OK {
		return status
	}
	if b := e.Books; e.Change == ledger.Carried {
		t.at, t.highest = max(t.at, b.Last), b.Highest
		for _, prefix := range b.Prefixes {
			t.asked.own[prefix] = struct{}{}
		}
		for _, r := range b.Requests {
			t.asked.remember(r.ID, request{debit: r.Debit, credit: r.Credit, amount: r.Amount})
		}
	}
	for i := range e.Chain {
		c := &e.Chain[i]
		t.at = max(t.at, c.At)
		t.highest = max(t.highest, c.UserData&^callerMade)
		if c.UserData&callerMade != 0 {
			t.asked.remember(c.ID, request{debit: c.Debit, credit: c.Credit, amount: c.Amount})
		} else {
			hi, _ := c.ID.Parts()
			t.asked.own[hi] = struct{}{}
		}
	}
	return ledger.OK
}

// Books are what the entries so far have given, to be carried forward: a market that
// resumes from them alone is the one that resumes from all of the entries.
func (t *Tally) Books() ledger.Books {
	b := t.book.Books()
	b.Highest = t.highest
	b.Prefixes = slices.Sorted(maps.Keys(t.asked.own))
	for id := range t.asked.all() {
		r := t.asked.made[id]
		b.Requests = append(b.Requests, ledger.Request{ID: id, Debit: r.debit, Credit: r.credit, Amount: r.amount})
	}
	return b
}
