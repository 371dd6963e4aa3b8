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
// A journal is a series of files: the one that is written, and beside it those that
// were closed, each called after its records. When the one that is written has grown
// long, its writer lets it go on in a new one (Rotate), whose first record carries the
// books forward: every open account with its four sums, every hold, and what their
// writer has to know beside them. That record is one of the same chain, and the file
// says after which record and hash it begins:
//
//	JOURNAL-1-9         JOURNAL-10-24       JOURNAL
//	1 2 ... 9     <---  10' 11 ... 24 <---  25' 26 ...      ' carries forward
//
// so that whoever goes on needs the last file alone, and whoever checks needs as many
// as he wants to check: a file proves what is in it, given the head before it.
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
//   - Verify recomputes every hash of a file, replays every entry into an empty ledger,
//     and names the first record at which one of them fails; Replay does it into the
//     books from which the caller goes on; VerifySeries does it with all files, and
//     compares what each carries forward with what the one before it gives.
//   - Going on in a new file is all or nothing as well: at any moment the name of the
//     journal is that of one file, and that is where it goes on. The new file is made
//     under another name, up to its last byte, while the journal is read and not
//     written; then the old one gets its closed name beside its own, and the new one
//     takes that in one step (rename). It waits for nobody but queries of this process,
//     for a second, and gives up while another process reads.
//   - A closed file is never written again. Nothing but an audit, and a query for more
//     transfers than the present file has, opens it; it may be moved away.
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
// into it with the sqlite3 that is everywhere. Balances after each record: they can
// disagree with the history; those at the beginning of a file are a record, hashed and
// compared. Deleting old records from the one file: the chain would begin nowhere, and
// the file would have to be rewritten to become smaller. Signing each record: a key
// on the same machine protects from nobody who can write the file.
//
// The engine is SQLite (decisions 0010 and 0014) behind Store; another one has to pass the
// tests called TestConform.
package journal
