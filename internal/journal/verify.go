package journal

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Report is what a journal holds that was found whole.
type Report struct {
	Origin    Head // after which it begins; none for a first file
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

// Bearer follows entries and says what they gave: a *ledger.Ledger, or what remembers
// more of them than it does.
type Bearer interface {
	Replay(e *ledger.Entry) ledger.Status
	Books() ledger.Books
}

// verifyBounds let a replay hold what any ledger held that wrote the journal:
// what a larger one accepted a smaller one might refuse.
var verifyBounds = ledger.Config{Window: 1 << 20, Holds: math.MaxInt32, Accounts: math.MaxInt32}

// Verify reads s from its first record to its last: numbers without gaps, each
// hash from the one before, each entry accepted by the books that the earlier ones
// gave, and a sum of all balances that is zero at the end. A file that goes on from
// another is verified from its origin: that is the one thing in it that is believed. A
// *BrokenError names the first record that fails; another error says why it could not
// be read.
func Verify(s Store) (Report, error) { return Replay(s, ledger.New(verifyBounds)) }

// Replay is Verify into books of the caller's, which are empty and at least as
// large as those that wrote the journal: he can go on from them.
func Replay(s Store, books Bearer) (Report, error) {
	origin, err := s.Origin()
	r := Report{Origin: origin, Head: origin}
	if err != nil {
		return r, err
	}
	for rec, err := range s.Records() {
		if err != nil {
			return r, err
		}
		if err := r.check(books, &rec); err != nil {
			return r, err
		}
	}
	return r, r.add(books.Books().Accounts)
}

// add adds up the balances.
func (r *Report) add(accounts []ledger.Account) error {
	r.Books = make(map[string]unit.Credits)
	mint := ledger.Mint().ID
	for i := range accounts {
		a := &accounts[i]
		r.Books[a.Name] = a.Balance()
		r.Sum += a.Balance()
		if a.ID == mint {
			r.Minted = -a.Balance()
		}
	}
	if r.Sum != 0 {
		return &BrokenError{Seq: r.Head.Seq, Why: fmt.Sprintf("the balances sum to %v after it", r.Sum)}
	}
	return nil
}

// check takes one more record into the report.
func (r *Report) check(books Bearer, rec *Record) error {
	broken := func(format string, args ...any) error {
		return &BrokenError{Seq: rec.Seq, Why: fmt.Sprintf(format, args...)}
	}
	first := r.Head == r.Origin
	switch want := r.Head.Seq + 1; {
	case rec.Seq > want:
		return broken("it follows record %d: %d are missing", r.Head.Seq, rec.Seq-want)
	case rec.Seq < want:
		return broken("it follows record %d: their order is not that of their numbers", r.Head.Seq)
	case first && (rec.Change == ledger.Carried) != (r.Origin.Seq > 0):
		return broken("the file begins after record %d, and brings no books forward from there", r.Origin.Seq)
	}
	if want := seal(r.Head.Hash, rec.Seq, rec.Wall, &rec.Entry); rec.Hash != want {
		return broken("its hash does not follow from its content and record %d: one of them was changed after it was written", rec.Seq-1)
	}
	if status := books.Replay(&rec.Entry); status != ledger.OK {
		return broken("its entry (%v) does not fit the books before it: %v", rec.Change, status)
	}
	if first {
		r.First = rec.Wall
	}
	r.Head, r.Last = Head{Seq: rec.Seq, Hash: rec.Hash}, rec.Wall
	if rec.Change == ledger.Opened {
		r.Accounts++
	}
	r.Transfers += len(rec.Chain)
	return nil
}

// Series is what a journal and its closed files hold that were found whole.
type Series struct {
	Report         // from the first record of the first file to the last of the last
	Files   int    // how many
	Missing uint64 // records before the first file: it was not there
}

// FileError says which file of a series it is that a *BrokenError or another error is
// about.
type FileError struct {
	Path string
	Err  error
}

// Error is one line.
func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }

// Unwrap returns what is wrong with the file.
func (e *FileError) Unwrap() error { return e.Err }

// VerifySeries verifies the journal at path and the closed files beside it, the oldest
// first: each as Verify does, each from the head of the one before it, and the books
// that it brings forward those that the one before it gave. fresh makes an empty Bearer
// that remembers what the writer of the journal did. Where the oldest files are not
// there, the series begins with the oldest that is.
func VerifySeries(path string, fresh func() Bearer) (Series, error) {
	var sum Series
	newest, err := Open(path) // before the others are looked for: it may become one of them
	if err != nil {
		return sum, err
	}
	defer newest.Close()
	list, err := closedFiles(path)
	if err != nil {
		return sum, newest.plain(err)
	}
	var before *ledger.Books
	one := func(path string, s Store) error {
		r, books, err := sum.next(s, before, fresh())
		sum.merge(&r)
		before = books
		if err != nil {
			return &FileError{path, err}
		}
		return nil
	}
	for _, f := range list {
		if f.last > newest.origin.Seq { // closed since
			break
		}
		s, err := Open(f.path)
		if err != nil {
			return sum, err
		}
		err = one(f.path, s)
		if err = errors.Join(err, s.Close()); err != nil {
			return sum, err
		}
	}
	return sum, one(path, newest)
}

// next verifies one more file. before is what the last one gave; nil for the first.
func (sum *Series) next(s Store, before *ledger.Books, bearer Bearer) (Report, *ledger.Books, error) {
	origin, err := s.Origin()
	if err != nil {
		return Report{Head: origin, Origin: origin}, nil, err
	}
	if before != nil {
		if why := follows(s, sum.Head, origin, before); why != "" {
			return Report{Head: sum.Head, Origin: sum.Head}, nil, &BrokenError{Seq: sum.Head.Seq + 1, Why: why}
		}
	}
	r, err := Replay(s, bearer)
	books := bearer.Books()
	return r, &books, err
}

// follows tells why s does not go on from head and the books before; empty = it does.
func follows(s Store, head, origin Head, before *ledger.Books) string {
	switch {
	case origin.Seq > head.Seq:
		return fmt.Sprintf("it and %d more are missing: a file between is not there", origin.Seq-head.Seq-1)
	case origin.Seq < head.Seq:
		return fmt.Sprintf("another file begins again at record %d", origin.Seq+1)
	case origin.Hash != head.Hash:
		return "it does not follow from the hash of the record before it, in another file"
	}
	for rec, err := range s.Records() {
		if err == nil && rec.Books != nil && rec.Hash == seal(origin.Hash, rec.Seq, rec.Wall, &rec.Entry) {
			return different(before, rec.Books)
		}
		break // what is wrong then Replay says
	}
	return ""
}

// different tells the first thing in which books that were carried are not those that a
// replay gives; empty = there is none.
func different(want, have *ledger.Books) string {
	if string(appendBooks(nil, want)) == string(appendBooks(nil, have)) {
		return ""
	}
	for i := range max(len(want.Accounts), len(have.Accounts)) {
		switch {
		case i >= len(have.Accounts) || i < len(want.Accounts) && want.Accounts[i].Name < have.Accounts[i].Name:
			return fmt.Sprintf("the books that it brings forward lack %s, which the files before it have", want.Accounts[i].Name)
		case i >= len(want.Accounts) || want.Accounts[i].Name > have.Accounts[i].Name:
			return fmt.Sprintf("the books that it brings forward have %s, which the files before it lack", have.Accounts[i].Name)
		case want.Accounts[i] != have.Accounts[i]:
			return fmt.Sprintf("the books that it brings forward differ in %s from what the files before it give", want.Accounts[i].Name)
		}
	}
	return "the holds, totals or ids that it brings forward are not those that the files before it give"
}

// merge takes a file's report into that of the series.
func (sum *Series) merge(r *Report) {
	if sum.Files == 0 {
		sum.Origin, sum.First, sum.Missing = r.Origin, r.First, r.Origin.Seq
	}
	sum.Files++
	sum.Head, sum.Books, sum.Sum, sum.Minted = r.Head, r.Books, r.Sum, r.Minted
	sum.Accounts += r.Accounts
	sum.Transfers += r.Transfers
	if !r.Last.IsZero() {
		sum.Last = r.Last
	}
}
