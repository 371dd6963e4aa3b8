// Package signal enforces the market without root: it stops and continues
// process trees with signals.
//
// # Problem
//
// A user without privilege may stop (SIGSTOP) and continue (SIGCONT) what runs
// as the same user, and nothing else that helps: SCHED_IDLE cannot be taken
// back, a raised nice value neither, quotas and freezers need cgroups. And a
// tree of processes is not a thing one can name: children that call setsid or
// fork twice leave every group, and a walk through /proc is always late (a fork
// storm ran at 1.4-1.9 cores of 2 under a walk that was to hold it to 0.5;
// measured on a 2-core VM).
//
// # How
//
// The client, which owns the terminal, does not start the command itself. It
// starts the shim (this binary again, a hidden verb) as the first process of
// a new user, pid and mount namespace, and the shim starts the command:
//
//	client --Start--> shim (pid 1 of the namespace) --> command --> its tree
//	   \__ channel 4 __/  \__ channel 3 (control) __ node
//
// In that namespace kill(-1, SIGSTOP) is one call that holds the kernel's task
// list still: it reaches every process, setsid and double forks included, and
// a fork that is under way fails and is repeated after SIGCONT. Killing the
// shim kills the whole tree, by the kernel. Orphans become the shim's
// children, so that their processor time is counted when they are reaped.
//
// The node says how a tree may run as a Window of a common frame of time
// ("10 ms of every 50 ms, 15 ms after the frame's start"), and the shim keeps
// to it by itself: neither the node's epoch thread nor a socket is in the way
// of a stop. Orders are levels, not edges: each carries the whole wanted
// state, so a lost or repeated one does no harm.
//
// Time division, not sharing: as a duty cycle alone is a cap (a hog at .25
// with a competitor on its core got .13), the windows of the rationed are laid
// out along the frame so that no core is promised twice (McNaughton's wrap
// around rule), and corrected each epoch by what was owed and not delivered.
// A group that gets its whole demand is never stopped.
//
// # Guarantees
//
//   - With a namespace: after Freeze no process of the tree runs until Thaw,
//     after Kill none is left, and when the node or the client dies the tree
//     dies with it.
//   - A process that somebody else stopped (^Z in a shell, kill -STOP) stays
//     stopped when the tree is continued. What was stopped in the last moment
//     before the tree was may be continued with it; looking costs at most
//     5 % of a core.
//   - A command whose standard input is a terminal is never stopped by a
//     window, only weighed: after two seconds of losing it gets SCHED_IDLE, for
//     good, since the kernel does not let a user take it back. Broke is
//     another matter: then it is stopped as any other.
//   - Charges are a lower bound (see the usage type): children of a parent that
//     ignores SIGCHLD, alive for less than one reading, are not seen.
//
// # What the caller must do
//
// The program must call Shim for its hidden verb before it does anything else,
// and pass the group's Placement to Start in the process that owns the
// terminal. The node calls Apply each epoch: that is when reports of the shims
// are read and orders are sent. Nothing here blocks on a shim, except Close
// and ReadOne for some milliseconds.
//
// # Where namespaces are refused
//
// The shim is then a child subreaper and sweeps /proc. Double forks stay
// reachable, running forks race with the sweep, and a process that kills its
// shim gets away. Group.Unheld and Description.Missing name it.
//
// # Rejected
//
//   - An own process group with tcsetpgrp for a command on the terminal: it
//     needs a hand-over at start, stop and end, and breaks pipelines such as
//     `maxwell run -- make | less`. The shim cannot be stopped by signals from
//     inside the namespace and catches the terminal's, so all can share the
//     client's group, and ^Z and fg are the kernel's business. Commands
//     without the terminal do get a group of their own.
//   - PR_SET_PDEATHSIG: it fires when the forking thread ends, which in Go is
//     any time. The channels' ends are the watch.
//   - ptrace: costs every signal and every exec, and conflicts with debuggers.
package signal
