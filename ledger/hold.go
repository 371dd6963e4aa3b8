package ledger

import (
	"iter"
	"math"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// never is the deadline of a hold without one.
const never unit.Instant = math.MaxInt64

// hold is an open Pending transfer. Accounts with holds cannot be forgotten,
// so the slots stay true.
type hold struct {
	transfer      Transfer
	debit, credit int32
	deadline      unit.Instant // first instant at which it can no longer be posted
}

// holds is a slab of open holds: places are reused, last freed first, so that
// undoing a chain finds them where they were.
type holds struct {
	slots []hold // a free slot has a zero transfer ID
	free  []int32
	index map[ID]int32
	bound int
	next  unit.Instant // no deadline is earlier than this
}

func newHolds(bound int) holds {
	return holds{index: make(map[ID]int32), bound: bound, next: never}
}

func (h *holds) full() bool { return len(h.index) >= h.bound }

// find returns the slot of the open hold id, or -1.
func (h *holds) find(id ID) int32 {
	if slot, ok := h.index[id]; ok {
		return slot
	}
	return -1
}

func (h *holds) open(v hold) {
	var slot int32
	if n := len(h.free); n > 0 {
		slot = h.free[n-1]
		h.free = h.free[:n-1]
		h.slots[slot] = v
	} else {
		slot = int32(len(h.slots))
		h.slots = append(h.slots, v)
	}
	h.index[v.transfer.ID] = slot
	h.next = min(h.next, v.deadline)
}

func (h *holds) close(slot int32) {
	delete(h.index, h.slots[slot].transfer.ID)
	h.slots[slot] = hold{}
	h.free = append(h.free, slot)
}

// deadline of a Pending transfer. A sum beyond the clock's range is never.
func deadline(t *Transfer) unit.Instant {
	if t.Timeout == 0 {
		return never
	}
	d := t.At + unit.Instant(t.Timeout)
	if d < t.At {
		return never
	}
	return d
}

// Expire releases every hold whose deadline is not after now and returns how
// many. It looks at the holds only when one may be due.
//
// Expiry is a change of the books that no transfer tells: a journal has to
// record the call beside the transfers.
func (l *Ledger) Expire(now unit.Instant) int {
	if now < l.holds.next {
		return 0
	}
	count, next := 0, never
	for slot := range l.holds.slots {
		h := &l.holds.slots[slot]
		switch {
		case h.transfer.ID.IsZero():
		case h.deadline <= now:
			l.release(h)
			l.window.settle(h.transfer.ID, expired)
			l.holds.close(int32(slot))
			count++
		default:
			next = min(next, h.deadline)
		}
	}
	l.holds.next = next
	return count
}

// release takes a hold off the pending sums of its two accounts.
func (l *Ledger) release(h *hold) {
	d, c := &l.accounts[h.debit], &l.accounts[h.credit]
	d.DebitsPending = d.DebitsPending.Sub(wide(h.transfer.Amount))
	c.CreditsPending = c.CreditsPending.Sub(wide(h.transfer.Amount))
}

// Hold returns the open hold id.
func (l *Ledger) Hold(id ID) (Transfer, bool) {
	slot := l.holds.find(id)
	if slot < 0 {
		return Transfer{}, false
	}
	return l.holds.slots[slot].transfer, true
}

// Holds iterates over the open holds, in no order that means anything (it is
// the same for the same calls).
func (l *Ledger) Holds() iter.Seq[Transfer] {
	return func(yield func(Transfer) bool) {
		for i := range l.holds.slots {
			if t := l.holds.slots[i].transfer; !t.ID.IsZero() && !yield(t) {
				return
			}
		}
	}
}
