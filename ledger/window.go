package ledger

import (
	"math"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// outcome is what became of a Pending transfer.
type outcome uint8

const (
	notHeld outcome = iota // was not Pending
	held
	posted
	voided
	expired
)

// record is one applied transfer as the window remembers it.
type record struct {
	transfer Transfer
	outcome  outcome
}

// window remembers the last applied transfers by id: a ring that grows to its
// bound and then forgets the oldest.
//
// floor is the time of the newest transfer it has forgotten. Whatever is not
// younger than that may have been applied before, so the ledger refuses it as
// stale; this is what makes forgetting safe.
type window struct {
	records []record
	head    int // the oldest
	count   int
	bound   int
	index   map[ID]int32
	floor   unit.Instant
}

func newWindow(bound int) window {
	return window{bound: bound, index: make(map[ID]int32), floor: math.MinInt64}
}

// find returns the record of id, or nil.
func (w *window) find(id ID) *record {
	i, ok := w.index[id]
	if !ok {
		return nil
	}
	return &w.records[i]
}

// hasRoom reports whether a transfer made at may be pushed: there is a free
// place, or the oldest record is older and can be forgotten.
func (w *window) hasRoom(at unit.Instant) bool {
	return w.count < w.bound || w.records[w.head].transfer.At < at
}

// push remembers a transfer. hasRoom was true for its time.
func (w *window) push(t *Transfer, o outcome) {
	if w.count == w.bound {
		oldest := &w.records[w.head]
		w.floor = max(w.floor, oldest.transfer.At)
		delete(w.index, oldest.transfer.ID)
		w.head = (w.head + 1) % w.bound
		w.count--
	}
	at := (w.head + w.count) % w.bound
	if at == len(w.records) {
		w.records = append(w.records, record{})
	}
	w.records[at] = record{transfer: *t, outcome: o}
	w.index[t.ID] = int32(at)
	w.count++
}

// pop takes the newest record back. What its push made the window forget stays
// forgotten, and floor stays where it is.
func (w *window) pop() {
	w.count--
	last := (w.head + w.count) % w.bound
	delete(w.index, w.records[last].transfer.ID)
}

// settle notes what became of the hold id, if it is still remembered.
func (w *window) settle(id ID, o outcome) {
	if r := w.find(id); r != nil {
		r.outcome = o
	}
}
