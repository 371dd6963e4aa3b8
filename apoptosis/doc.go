// Package apoptosis is the life of a workload as a state machine: how it is
// warned, starved, given time to find money, and how it dies.
//
// # Problem
//
// A workload that cannot pay must stop at once, or the cap on its budget is a
// bill. But a process tree that is killed without notice loses its work, and
// one that is killed for a moment's price is the victim of its neighbours. So
// death comes in stages, and only for reasons that have a name.
//
// # Model
//
//	pending --started--> running <--price--> waiting
//	                        |                   |
//	                        +----- insolvent ---+
//	                        v                   v
//	             (stop)  broke                paused  (pause)
//	                        |  funded: thaw, and back to running
//	                        | grace over        |  no deadline
//	                        v                   v
//	                      dying <--- cap, timeout, heat, stop: from any living state
//	                        |  SIGTERM and a little time; then SIGKILL until empty
//	                        v
//	                      dead (reason)
//
// A step takes what is known now (Input) and gives what has to be done now
// (Actions). Time is an argument; the machine is a value that may be copied,
// compared and stored.
//
// The dying lane lasts until one of these is used up, then the tree is killed:
//
//	min(grace, term) of wall time, term = 250 ms by default
//	50 core-ms of processor time
//	the tree itself
//
// # Guarantees
//
//   - Broke means frozen: the step that first sees the workload insolvent
//     returns Freeze.
//   - A price spike alone never kills, freezes or warns: being outbid
//     (Winning = false) moves a workload between running and waiting only. What
//     counts is whether it can pay for its own energy (Solvent).
//   - Funded in time lives: a step that sees the workload solvent revives it,
//     even if the same step finds the grace over.
//   - Killed by grace + min(grace, term) after going broke, plus the time
//     between two steps; Kill is repeated at every step until the tree is empty.
//   - Dead stays dead: after Bury no step returns any action or changes
//     anything.
//   - The reason is fixed when dying begins: what the child returns afterwards
//     does not change it.
//   - A warning is given once on the way up, and again only after the spent
//     share has fallen ten points below it (the wallet was funded).
//
// # What the caller must do
//
// Call Step at every tick and whenever a deadline (Deadline) passes; carry out
// the actions at once and in the order in which they are declared; report
// Started only after the first process is in its group, and Populated by the
// group's own word. A workload that was never started is never frozen: starting
// a process into a frozen group blocks whoever starts it.
//
// # Rejected
//
// Killing on the first insolvent epoch: a deposit that arrives a second later
// would find nothing to pay for. An unlimited dying lane ("until it has saved
// its work"): SIGTERM handlers that spin would make death the cheapest way to
// compute; 50 core-ms is several times what clean handlers were seen to need
// (10-16 ms, measured on a 2-core VM). Deciding by balance here: the ledger
// knows money, this package knows only yes and no.
package apoptosis
