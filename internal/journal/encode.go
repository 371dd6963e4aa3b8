package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
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
