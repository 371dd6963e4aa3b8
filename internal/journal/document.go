package journal

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
)

// Batch is what becomes durable together. Documents are dropped before others are
// put: what is in both lists is there afterwards, as a new one.
type Batch struct {
	Entries []ledger.Entry
	Drop    []Ref      // what is not there is dropped already
	Put     []Document // of two with one kind and key the later is kept
}

func (b *Batch) empty() bool { return len(b.Entries) == 0 && len(b.Drop) == 0 && len(b.Put) == 0 }

// Document is state beside the records, under a name of its own: a workload, a
// receipt, an event. Unlike a record it can be replaced and dropped, and no hash
// vouches for it.
type Document struct {
	Kind, Key string    // its name; neither is empty
	UID       uint32    // of the user whom it concerns
	Wall      time.Time // what it is sorted by; zero in a batch = the batch's
	Body      []byte    // the writer's own, say JSON
}

// Ref names a document.
type Ref struct{ Kind, Key string }

// Query asks for documents of one kind, by time, those of one time in the order in
// which their names first came.
type Query struct {
	Kind   string
	Key    string    // empty = any
	UID    *uint32   // nil = anybody's
	Since  time.Time // and later; zero = always
	Newest bool      // first
	Limit  int       // 0 = all
}

// TransferQuery asks for transfers, the newest first.
type TransferQuery struct {
	Account ledger.ID // that paid or was paid; zero = any
	Limit   int       // 0 = all
}

// Posting is a transfer with what its record and the account records say of it. A
// Post or Void that leaves the accounts to its hold has none, and is found under
// none.
type Posting struct {
	Seq  uint64 // of the record; the transfers of one chain share it
	Wall time.Time
	ledger.Transfer

	// DebitName and CreditName are those under which the accounts were last
	// opened, whether they are open still or not; empty = unknown.
	DebitName, CreditName string
}
