// Package node is the market process of one machine and the client's side of
// it: wiring, and the only place that starts goroutines.
//
// # Who is who
//
// Serve runs the market: one background process per machine (or, without
// root, per user), in a session of its own. It is started on demand by the
// first run or up (Join) and ends with its last client, leaving nothing
// behind. Every client is equal: it asks for a group, starts its own process
// into it (so terminal, standard streams and exit codes are natural), and
// tells the market when it ended. A client's stream is its life: when it
// breaks, its workloads are ended and paid for.
//
// A watchdog child of the market holds the other end of a pipe. If the market
// dies without a farewell (SIGKILL, panic), the watchdog kills every tree
// below the marked directories, removes them and restores what was changed.
// So a panic anywhere has one way out: die at once, let the watchdog clean.
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
// it. A disk that takes nothing holds up new work, not what runs.
//
// Order of locks: none is ever held while another is taken, but for keeper.mu
// under keeper.writing; hw guards the meter and the enforcer against the loop's
// own use of them.
package node
