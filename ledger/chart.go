package ledger

import "github.com/maxwell-hypervisor/maxwell/unit"

// Kind says what an account is for. The chart of accounts has one kind for
// every place money can be.
type Kind uint16

// The chart of accounts.
const (
	KindMint     Kind = iota + 1 // where money comes from; its balance is minus all money
	KindWallet                   // wallet:NAME, what a workload may spend
	KindDeposit                  // deposit:NAME, locked at admission, pays the workload's own death
	KindHeat                     // energy that was burnt
	KindEntropy                  // Landauer's tax
	KindTreasury                 // rent: what scarcity added above physics
	KindSystem                   // the machine's own use; owed by the operator
	KindLoss                     // what nobody could pay; owed by the operator
	KindBond                     // bond:NAME, escrow of audits
	KindLease                    // lease:NAME, money a node may spend on its own
	kinds                        // one past the last
)

var kindNames = [kinds]string{
	KindMint: "mint", KindWallet: "wallet", KindDeposit: "deposit", KindHeat: "heat", KindEntropy: "entropy",
	KindTreasury: "treasury", KindSystem: "system", KindLoss: "loss", KindBond: "bond", KindLease: "lease",
}

// String is the kind's word in account names and reports.
func (k Kind) String() string {
	if k == 0 || k >= kinds {
		return "unknown"
	}
	return kindNames[k]
}

// AccountFlags limit what may happen to an account.
type AccountFlags uint8

// The flags of an account.
const (
	// DebitsMustNotExceedCredits forbids an overdraft. Pending debits count
	// as spent, pending credits do not count as received.
	DebitsMustNotExceedCredits AccountFlags = 1 << iota
	// CreditsMustNotExceedDebits is the mirror image: an account that cannot
	// take back more than it gave (mint).
	CreditsMustNotExceedDebits
	accountFlags = iota // how many there are
)

// Account is one place where money can be. An account handed to Open has no
// sums yet; one that Lookup returns is a copy.
type Account struct {
	ID    ID
	Name  string // unique with ID; what reports print, "wallet:agent-7"
	Code  Kind
	Flags AccountFlags

	DebitsPosted   unit.Wide // money that left, for good
	DebitsPending  unit.Wide // money held to leave
	CreditsPosted  unit.Wide // money that came, for good
	CreditsPending unit.Wide // money held to come
}

// Mint is the source of money. It owes everything there is.
func Mint() Account { return single(KindMint, CreditsMustNotExceedDebits) }

// Wallet is what the workload called name may spend.
func Wallet(name string) Account { return named(KindWallet, name) }

// Deposit is what the workload called name locked at admission to pay for its
// own death and for what metering finds after an epoch.
func Deposit(name string) Account { return named(KindDeposit, name) }

// Heat is where money for energy goes.
func Heat() Account { return single(KindHeat, DebitsMustNotExceedCredits) }

// Entropy is where Landauer's tax goes.
func Entropy() Account { return single(KindEntropy, DebitsMustNotExceedCredits) }

// Treasury is where rent goes.
func Treasury() Account { return single(KindTreasury, DebitsMustNotExceedCredits) }

// System pays for the energy of the machine itself. It may owe: nobody funds
// it, and its debt is the operator's bill.
func System() Account { return single(KindSystem, 0) }

// Loss pays what nobody else could (a machine that was paused, a node that was
// killed). It may owe: its debt is the operator's loss.
func Loss() Account { return single(KindLoss, 0) }

// Bond is the escrow of the claimant called name, forfeited to a failed audit.
func Bond(name string) Account { return named(KindBond, name) }

// Lease is money that the holder called name may spend without asking.
func Lease(name string) Account { return named(KindLease, name) }

func single(k Kind, flags AccountFlags) Account {
	return Account{ID: NameID(k.String()), Name: k.String(), Code: k, Flags: flags}
}

func named(k Kind, name string) Account {
	full := k.String() + ":" + name
	return Account{ID: NameID(full), Name: full, Code: k, Flags: DebitsMustNotExceedCredits}
}
