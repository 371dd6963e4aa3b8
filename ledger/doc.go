// Package ledger is Maxwell's books: accounts, immutable transfers, two-phase
// holds and refusals that are values.
//
// # Problem
//
// Workloads buy core time with money that somebody minted, locked, lent or
// taxed. A node may crash, a request may arrive twice, a payment may belong to
// five others that must happen together or not at all. The books have to be
// right after any of that, and anybody must be able to add them up again.
//
// # Model
//
// An account has four sums: credits and debits, each posted and pending. Its
// balance is never stored:
//
//	balance   = credits posted - debits posted
//	available = balance - debits pending
//
// A transfer moves Amount from its debit account to its credit account, so the
// sum of all balances is always zero. The two posted sums only ever grow; a
// correction is another transfer, never an edit. The two pending sums are the
// open holds: a hold adds its amount, and posting, voiding or expiry takes it
// off again.
//
//	pending(id 1, 100) --+-- post(60):  60 move, 40 are released
//	                     +-- void:      100 are released
//	                     +-- timeout:   100 are released by Expire
//
// The chart of accounts (Mint, Wallet, Deposit, ...) is in chart.go. Only mint,
// system and loss may owe; every other account carries
// DebitsMustNotExceedCredits, and holds count as spent there, so a wallet
// cannot be overdrawn by any sequence of calls.
//
// # Guarantees
//
//   - Validate, then mutate: Apply either changes everything it should and
//     returns OK, or changes nothing and returns the first Status that holds,
//     in the order in which the statuses are declared.
//   - Idempotent: the client makes the 128-bit id before it sends. The same id
//     again gives Exists (same body) or ExistsDifferent, and moves nothing.
//   - Exactly once for ever, in bounded memory: the last Config.Window
//     transfers are remembered; whatever is not younger than a forgotten one is
//     refused as Stale because of its time, whether it was seen or not. Nothing
//     is ever applied twice because it was forgotten.
//   - A chain (transfers linked to their successor, see ApplyAll) happens as a
//     whole or not at all.
//   - Sums have 128 bits and balances stay within int64 (Overflow is a
//     refusal), so Balance is always exact.
//   - Deterministic: the same calls give the same state and the same answers;
//     Accounts iterates in order of names. Apply allocates nothing once the
//     window has reached its size, but for the map of ids, which is built anew
//     now and then (8 bytes a transfer on average).
//
// # What the caller must do
//
//   - Give At from one clock that does not run backwards, and the same At when
//     it sends the same transfer again.
//   - Call Expire now and then; a hold past its deadline can no longer be
//     posted, but its money is released only by Expire (or a void).
//   - Take a new id after a refusal unless it wants the same attempt judged
//     again: refusals leave no trace.
//   - Use a Ledger from one goroutine.
//
// # Rejected
//
// Storing balances: a stored balance can disagree with its history, four sums
// cannot. Errors for refusals: a caller has to handle "exceeds credits" as
// business, and an enumeration makes the compiler and the tests list all of it.
// Remembering ids for ever, or forgetting the oldest silently: the first has no
// bound, the second charges a late duplicate twice. Floating point, and one
// signed sum per account: neither can be audited.
//
// The model is TigerBeetle's (docs/reference/account and transfer), in the
// size this project needs.
package ledger
