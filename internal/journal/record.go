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
	Seq  uint64    // 1 for the first
	Wall time.Time // when it was written: for people, nothing is decided by it
	ledger.Entry
	Hash Hash
}

// Head is where a journal ends.
type Head struct {
	Seq  uint64 // of the last record; 0 = empty
	Hash Hash
}

// Store keeps records. Append is called by one goroutine at a time.
type Store interface {
	// Append makes entries durable, numbered and hashed after the last record,
	// and returns the new head. All of them are kept, or none.
	Append(wall time.Time, entries []ledger.Entry) (Head, error)
	// Head returns where the journal ends.
	Head() (Head, error)
	// Records iterates over everything in order. It stops at the first error,
	// which it yields with the number of the record that could not be read.
	Records() iter.Seq2[Record, error]
	// Close ends the use of the store. Nothing that was appended is lost.
	Close() error
}

// The classes of failure.
var (
	// ErrFull refuses an Append for want of space. Nothing was written.
	ErrFull = errors.New("no space left for the journal")
	// ErrBusy refuses to open a journal that another process writes.
	ErrBusy = errors.New("another process writes this journal")
	// ErrForeign refuses a file that is not a journal of Maxwell.
	ErrForeign = errors.New("not a journal of Maxwell")
)

// NewerError refuses a journal that a later version of Maxwell wrote.
type NewerError struct{ Have, Know int }

// Error is one line with the remedy.
func (e *NewerError) Error() string {
	return fmt.Sprintf("journal has version %d, this Maxwell knows up to %d: use the one that wrote it", e.Have, e.Know)
}
