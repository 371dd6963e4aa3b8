// Package node is the market process of one machine and the client's side of
// it: wiring, and the only place that starts goroutines.
//
// # Who is who
//
// Serve runs the market: one process per machine (or, without root, per user).
// The first run or up starts it in the background (Join); then it ends with its
// last client, leaving nothing behind. With Settings.Daemon it is a service: it
// outlives its clients, goes on from its journal, and its workloads outlive it
// (decision 0013; durable.go, reread.go). Every client is equal: it asks for a
// group, starts its own process into it (so terminal, standard streams and exit
// codes are natural), and tells the market when it ended. A client's stream is
// its life: when it breaks, and it does not come back to a daemon in time, its
// workloads are ended and paid for.
//
// A watchdog child of the market holds the other end of a connection. If the
// market dies without a farewell (SIGKILL, panic), the watchdog kills every tree
// below the marked directories, removes them and restores what was changed; a
// daemon's it thaws instead, but for the broke. So a panic anywhere has one way
// out: die at once, let the watchdog clean.
//
// Workloads without a client are guests: groups that others made and that a rule
// or a person attached (guests.go, modes.go).
//
// # Who may do what
//
// Every call makes its actor anew from what the kernel said of the connection
// (actor.go): a user, or from inside a workload that workload alone. What
// others than admins are told of energy is as old as the quantum (discreet.go).
// A change with a request id is made once (once.go); a daemon acknowledges it
// when it is durable with its answer (mutate).
//
// # Threads and goroutines
//
// One locked thread owns the demon (loop): it waits on a descriptor with a
// timeout, so that commands and ticks come through one door. RPC handlers
// never touch the demon; they send closures (loop.do) through a bounded queue
// and wait. What may block (killing a storm, removing directories, reading
// memory counters) is done by workers. Every goroutine is started by
// Market.spawn, which names it, waits for it at the end and turns a panic in
// it into the death of the process.
//
// Where a journal is kept, one more goroutine (keep) writes what the loop hands
// it. A disk that takes nothing holds up new work, not what runs. A daemon has
// more: one that looks for the groups of its rules (surveyor), one that tells the
// service manager that ticks go on (pulse), one for each session whose client is
// away (parted).
//
// Order of locks: none is ever held while another is taken, but for keeper.mu
// under keeper.writing, and loop.late under those of a view; hw guards the meter and the enforcer against the loop's
// own use of them.
package node
