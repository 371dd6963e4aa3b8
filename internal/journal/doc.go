// Package journal is the ledger on disk: every change of the books in the order
// in which it happened, each tied to the one before it by a hash; and beside it
// what its writer needs to go on after a crash.
//
// # Problem
//
// Money that lives in a process dies with it, and a history that its keeper can
// edit is no evidence. The journal is what is left after a crash, and what
// somebody else can add up again: from an empty ledger, record by record.
//
// # Model
//
// A record is a ledger.Entry (an account opened or forgotten, a chain of
// transfers applied) with a number and the wall clock. Records are numbered 1, 2,
// ... without gaps, and
//
//	hash(n) = SHA-256( hash(n-1) || n || wall || entry ),  hash(0) = 32 zero bytes
//
// over a fixed encoding (encode.go), so that a record cannot be changed, dropped,
// inserted or moved without every later hash being wrong. Whoever notes the last
// hash somewhere else (a log, another node, a printout) can later tell that the
// whole history up to it is the one that he saw; without such a note the chain
// tells accidents and careless edits, not a forger who recomputes it all.
//
// A document is a text of a kind under a key: state of the writer's that is
// replaced and dropped (a workload, an event). It has no hash. A batch is records
// and documents that belong together: who reads that a workload was charged also
// reads up to which count of its cgroup.
//
// # Guarantees
//
//   - Acknowledged implies present: when Append has returned without an error, its
//     records are in the file after a crash of the process, the kernel or the power
//     (SQLite's write-ahead log with synchronous=FULL: one flush a call, however
//     many entries it brings).
//   - All or nothing: what one Append brings is there together or not at all.
//   - A refused Append (a full disk: ErrFull) leaves the journal as it was, and can
//     be tried again.
//   - Verify recomputes every hash, replays every entry into an empty ledger, and
//     names the first record at which one of them fails; Replay does it into the
//     books from which the caller goes on.
//   - A query reads the journal as it was when the query began. It never waits for
//     the writer nor the writer for it: they have connections of their own, and the
//     write-ahead log holds what either of them needs. That log cannot be cut while
//     an old query still reads, so it grows until that ends.
//   - Documents and transfers are found by an index, in order: a limit is the work.
//   - A file of an older version can be read, and is brought to the newest one in one
//     transaction when it is opened for writing.
//
// # What the caller must do
//
// One writer at a time: a second Create of the same file is refused. Hand over
// entries in the order in which the ledger made them.
//
// # Rejected
//
// A log of our own: the recovery code would be ours too, and nobody could look
// into it with the sqlite3 that is everywhere. Balances in the file: they can
// disagree with the history, and the history is small. Signing each record: a key
// on the same machine protects from nobody who can write the file.
//
// The engine is SQLite (decision 0010) behind Store; another one has to pass the
// tests called TestConform.
package journal
