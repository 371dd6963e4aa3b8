package ledger

// Status is the answer to a request. Everything but OK is a refusal that
// changed nothing.
//
// Precedence: where several refusals hold, the one declared first is given.
type Status uint8

// The statuses, in order of precedence.
const (
	OK Status = iota

	// The chain.
	LinkedFailed // another transfer of its chain was refused
	ChainOpen    // marked Linked, but no transfer follows

	// Idempotence: a repeated request is recognised before anything else about
	// it is judged, so that it gets the same answer whatever happened since.
	IDZero          // the zero id names nothing
	Exists          // this id and body were applied before; nothing to do
	ExistsDifferent // this id was used for another body

	// The request by itself.
	FlagsInvalid        // unknown flags, or flags that exclude each other
	AmountInvalid       // not positive (Void: not zero)
	TimeoutInvalid      // negative, or on a transfer that is not Pending
	CodeInvalid         // no purpose, or an unknown one
	PendingIDZero       // Post and Void must name their hold
	PendingIDUnexpected // only Post and Void may name one
	SameAccount         // debit and credit are one account
	Stale               // older than what the ledger still remembers

	// The request against the books.
	DebitNotFound    // no open account has this id
	CreditNotFound   // no open account has this id
	PendingNotFound  // no such hold, or forgotten since it was resolved
	PendingDifferent // the hold has other accounts or another purpose
	PendingPosted    // the hold was posted before
	PendingVoided    // the hold was voided before
	PendingExpired   // the hold's deadline has passed
	ExceedsPending   // more than was held
	ExceedsCredits   // the debit account would be overdrawn
	ExceedsDebits    // the credit account would take back more than it gave
	Overflow         // a balance would leave +-(2^63 - 1) micro-$J

	// Bounds.
	WindowFull // more transfers in one instant than Config.Window
	HoldsFull  // more open holds than Config.Holds

	// Accounts: Open and Forget.
	NameInvalid            // an account needs a name
	KindInvalid            // an account needs a kind of the chart
	SumsNotZero            // a new account cannot bring money
	AccountExists          // this account is open; nothing to do
	AccountExistsDifferent // this id is open with another name, kind or flags
	AccountsFull           // more accounts than Config.Accounts
	AccountNotFound        // nothing to forget
	AccountHasHolds        // a hold still names the account
	AccountHasMoney        // its balance is not zero

	// Books that are brought forward.
	BooksNotEmpty        // the ledger has accounts or a past already
	BooksUneven          // their sums do not fit each other
	statuses      = iota // how many there are
)

var statusNames = [statuses]string{
	OK: "ok", LinkedFailed: "linked_failed", ChainOpen: "chain_open",
	IDZero: "id_zero", Exists: "exists", ExistsDifferent: "exists_different",
	FlagsInvalid: "flags_invalid", AmountInvalid: "amount_invalid", TimeoutInvalid: "timeout_invalid",
	CodeInvalid: "code_invalid", PendingIDZero: "pending_id_zero", PendingIDUnexpected: "pending_id_unexpected",
	SameAccount: "same_account", Stale: "stale",
	DebitNotFound: "debit_not_found", CreditNotFound: "credit_not_found",
	PendingNotFound: "pending_not_found", PendingDifferent: "pending_different", PendingPosted: "pending_posted",
	PendingVoided: "pending_voided", PendingExpired: "pending_expired", ExceedsPending: "exceeds_pending",
	ExceedsCredits: "exceeds_credits", ExceedsDebits: "exceeds_debits", Overflow: "overflow",
	WindowFull: "window_full", HoldsFull: "holds_full",
	NameInvalid: "name_invalid", KindInvalid: "kind_invalid", SumsNotZero: "sums_not_zero",
	AccountExists: "account_exists", AccountExistsDifferent: "account_exists_different",
	AccountsFull: "accounts_full", AccountNotFound: "account_not_found",
	AccountHasHolds: "account_has_holds", AccountHasMoney: "account_has_money",
	BooksNotEmpty: "books_not_empty", BooksUneven: "books_uneven",
}

// String is the status' word in journals and transcripts.
func (s Status) String() string {
	if int(s) >= statuses {
		return "unknown"
	}
	return statusNames[s]
}

// Done reports whether the request is in the books, now or from before: what
// a client that retries wants to know.
func (s Status) Done() bool { return s == OK || s == Exists || s == AccountExists }
