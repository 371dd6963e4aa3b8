package journal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// Hash ties a record to everything before it: a SHA-256.
type Hash [32]byte

// String prints the hash as 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Record is an entry as the journal keeps it.
type Record struct {
	Seq  uint64    // 1 for the first of the first file
	Wall time.Time // when it was written: for people, nothing is decided by it
	ledger.Entry
	Hash Hash
}

// Head is where a journal ends.
type Head struct {
	Seq  uint64 // of the last record; 0 = empty
	Hash Hash
}

// Store keeps records, and documents beside them. Append, Rotate, DropClosed and
// Prune are called by one goroutine at a time; everything else by any, also while one
// of them runs: what a query yields is the journal as it was when the query began,
// however long it takes, and nobody waits for it but Rotate, for a second. (The log of
// what was written meanwhile cannot be cut before it ends: do not stop in the middle
// to wait for somebody.)
type Store interface {
	// Append makes a batch durable, its entries numbered and hashed after the last
	// record, and returns the new head. All of it is kept, or nothing. A batch
	// without entries leaves the head where it is.
	Append(wall time.Time, b Batch) (Head, error)
	// Rotate closes the file so far and goes on in a new one, whose first record is
	// books: what Origin and Records gave when they were replayed. Documents are in
	// the new file too. It returns the new head. ErrReading says that somebody reads
	// the file for long, and that it is to be tried later; after any error the journal
	// is as it was.
	Rotate(wall time.Time, books ledger.Books) (Head, error)
	// DropClosed deletes closed files that were closed before a time, and returns how
	// many.
	DropClosed(before time.Time) (int, error)
	// Prune drops documents of a kind that are older than before, but none of the
	// newest keep of them, and returns how many it dropped.
	Prune(kind string, before time.Time, keep int) (int, error)
	// Head returns where the journal ends.
	Head() (Head, error)
	// Origin returns after which record the file begins; none in the first file.
	Origin() (Head, error)
	// Records iterates over all records of the file in order. It stops at the first
	// error, which it yields with the number of the record that could not be read.
	Records() iter.Seq2[Record, error]
	// Documents iterates over what q asks for, until the first error.
	Documents(q Query) iter.Seq2[Document, error]
	// Transfers iterates over what q asks for, the newest first, until the first
	// error. Where the file has no more, it goes on in the closed ones, as far as they
	// are still beside it.
	Transfers(q TransferQuery) iter.Seq2[Posting, error]
	// Close ends the use of the store, after the last query. Nothing that was
	// appended is lost.
	Close() error
}

// The classes of failure.
var (
	// ErrFull refuses an Append for want of space. Nothing was written.
	ErrFull = errors.New("no space left for the journal")
	// ErrBusy refuses to open a journal that another process writes.
	ErrBusy = errors.New("another process writes this journal")
	// ErrReading puts off a Rotate while somebody reads.
	ErrReading = errors.New("somebody reads this journal")
	// ErrForeign refuses a file that is not a journal of Maxwell.
	ErrForeign = errors.New("not a journal of Maxwell")
)

// NewerError refuses a journal that a later version of Maxwell wrote.
type NewerError struct{ Have, Know int }

// Error is one line with the remedy.
func (e *NewerError) Error() string {
	return fmt.Sprintf("journal has version %d, this Maxwell knows up to %d: use the one that wrote it", e.Have, e.Know)
}
