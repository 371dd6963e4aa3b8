package ledger

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Purpose says why money moved. A bill can be added up again from the
// transfers of a wallet, purpose by purpose.
type Purpose uint16

// The purposes of transfers.
const (
	ForFunding   Purpose = iota + 1 // mint -> wallet: a budget, or more of it
	ForIncome                       // mint -> wallet: pay for finished work
	ForEnergy                       // wallet or deposit -> heat
	ForRent                         // wallet or deposit -> treasury
	ForErasure                      // wallet or deposit -> entropy
	ForOther                        // wallet or deposit -> anywhere else
	ForDeposit                      // wallet -> deposit, at admission
	ForRefund                       // deposit -> wallet, when the deposit was not needed
	ForReturn                       // wallet -> mint, what is left at the end
	ForLease                        // wallet -> lease, and back
	ForBond                         // wallet -> bond, and back
	ForPenalty                      // bond -> treasury, a failed audit
	ForSystem                       // system -> heat, the machine's own use
	ForLoss                         // loss -> heat, what nobody could pay
	ForDiscount                     // treasury -> wallet, a migrant of a hot node
	ForReadopted                    // wallet -> heat, what ran while no daemon was there
	ForTransfer                     // wallet -> wallet, a gift
	ForAllowance                    // mint or wallet -> wallet, an allowance that grew
	purposes                        // one past the last
)

var purposeNames = [purposes]string{
	ForFunding: "funding", ForIncome: "income", ForEnergy: "energy", ForRent: "rent", ForErasure: "erasure",
	ForOther: "other", ForDeposit: "deposit", ForRefund: "refund", ForReturn: "return", ForLease: "lease",
	ForBond: "bond", ForPenalty: "penalty", ForSystem: "system", ForLoss: "loss", ForDiscount: "discount",
	ForReadopted: "readopted", ForTransfer: "transfer", ForAllowance: "allowance",
}

// String is the purpose's word in journals and reports.
func (p Purpose) String() string {
	if p == 0 || p >= purposes {
		return "unknown"
	}
	return purposeNames[p]
}

// TransferFlags say how a transfer is to be applied.
type TransferFlags uint8

// The flags of a transfer. At most one of Pending, Post and Void may be set.
const (
	// Linked ties a transfer's fate to the next one's in the same ApplyAll.
	Linked TransferFlags = 1 << iota
	// Pending holds the amount instead of moving it.
	Pending
	// Post moves Amount of the hold PendingID (at least 1, at most the hold)
	// and releases the rest.
	Post
	// Void releases the hold PendingID. Amount is 0.
	Void
	transferFlags = iota // how many there are
)

// Transfer is one movement of money. It is immutable: once applied, the same
// ID always means this body.
type Transfer struct {
	ID     ID
	Debit  ID           // the account that pays; may be zero for Post and Void
	Credit ID           // the account that receives; may be zero for Post and Void
	Amount unit.Credits // micro-$J, more than 0 (Void: 0)

	PendingID ID            // the hold that Post and Void resolve; else zero
	Timeout   time.Duration // of a Pending transfer; 0 = it waits for ever

	Code     Purpose // may be zero for Post and Void: that of the hold
	Flags    TransferFlags
	UserData uint64       // the caller's own: an epoch, an auction; kept, not read
	At       unit.Instant // when the client made it; not part of the body
}

// same reports whether two transfers with one id have one body. At is left
// out: a client that lost its own record may not know it any more.
func (t *Transfer) same(o *Transfer) bool {
	a, b := *t, *o
	a.At, b.At = 0, 0
	return a == b
}
