package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// seal returns the hash of a record that follows the one with hash before. The
// encoding is fixed: every number big-endian in full width, every text after its
// length, so that two different records never have one encoding.
func seal(before Hash, seq uint64, wall time.Time, e *ledger.Entry) Hash {
	return sha256.Sum256(encode(make([]byte, 0, 128+len(e.Account.Name)+transferBytes*len(e.Chain)), before, seq, wall, e))
}

func encode(b []byte, before Hash, seq uint64, wall time.Time, e *ledger.Entry) []byte {
	b = append(b, before[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, uint64(wall.UnixNano()))
	b = append(b, byte(e.Change))
	b = append(b, e.Account.ID[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(e.Account.Code))
	b = append(b, byte(e.Account.Flags))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Account.Name)))
	b = append(b, e.Account.Name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Chain)))
	for i := range e.Chain {
		b = appendTransfer(b, &e.Chain[i])
	}
	if e.Change == ledger.Carried && e.Books != nil {
		b = appendBooks(b, e.Books)
	}
	return b
}

// transferBytes is the length of one encoded transfer.
const transferBytes = 4*16 + 4*8 + 2 + 1

func appendTransfer(b []byte, t *ledger.Transfer) []byte {
	b = append(b, t.ID[:]...)
	b = append(b, t.Debit[:]...)
	b = append(b, t.Credit[:]...)
	b = append(b, t.PendingID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Amount))
	b = binary.BigEndian.AppendUint64(b, uint64(t.Timeout))
	b = binary.BigEndian.AppendUint64(b, t.UserData)
	b = binary.BigEndian.AppendUint64(b, uint64(t.At))
	b = binary.BigEndian.AppendUint16(b, uint16(t.Code))
	return append(b, byte(t.Flags))
}

func appendBooks(b []byte, books *ledger.Books) []byte {
	number := func(n uint64) { b = binary.BigEndian.AppendUint64(b, n) }
	wide := func(list ...unit.Wide) {
		for _, w := range list {
			number(w.Hi)
			number(w.Lo)
		}
	}
	number(uint64(books.Last))
	number(books.Highest)
	number(uint64(len(books.Accounts)))
	for i := range books.Accounts {
		a := &books.Accounts[i]
		b = append(b, a.ID[:]...)
		b = binary.BigEndian.AppendUint16(b, uint16(a.Code))
		b = append(b, byte(a.Flags))
		b = binary.BigEndian.AppendUint32(b, uint32(len(a.Name)))
		b = append(b, a.Name...)
		wide(a.DebitsPosted, a.DebitsPending, a.CreditsPosted, a.CreditsPending)
	}
	number(uint64(len(books.Retired)))
	for _, t := range books.Retired {
		number(uint64(t.Accounts))
		wide(t.Debits, t.Credits)
	}
	number(uint64(len(books.Holds)))
	for i := range books.Holds {
		b = appendTransfer(b, &books.Holds[i])
	}
	number(uint64(len(books.Prefixes)))
	for _, prefix := range books.Prefixes {
		number(prefix)
	}
	number(uint64(len(books.Requests)))
	for i := range books.Requests {
		r := &books.Requests[i]
		b = append(b, r.ID[:]...)
		b = append(b, r.Debit[:]...)
		b = append(b, r.Credit[:]...)
		number(uint64(r.Amount))
	}
	return b
}
