// Package cgroup enforces the market's allocations with control groups.
//
// # Problem
//
// The market says in core time who may run in the coming epoch. The kernel
// knows weights, quotas and a freezer, in two generations of interfaces, and
// neither delivers core time: a weight is relative to whoever else is runnable
// on the same processor at the moment, a quota destroys what its holder does
// not use. This package finds weights that deliver the market's allocation
// over seconds, without giving any workload a quota.
//
// # Layouts
//
// A workload's identity is a cgroup2 directory, also where the cgroup2 mount
// has no controllers: it can be started into (CLONE_INTO_CGROUP), frozen,
// killed as a whole, it counts its processor time, and BPF sees its id. The
// controllers cpu, memory and pids are taken from cgroup v2 where it offers
// them and from v1 hierarchies, each perhaps on its own mount, where it does
// not; v1 directories only actuate. A machine without a cgroup2 mount gets the
// v1 freezer as identity, and slower kills.
//
// The market has one root directory in each hierarchy, marked by an extended
// attribute and a held lock, and the workloads' directories are below it. At
// the top of a hierarchy that nobody manages root makes it there; where
// systemd manages the hierarchy, and for everybody but root, it is made in a
// delegated scope (Delegation says how to start the node inside one). Outside
// its roots the package writes nothing but the parent's subtree_control, and
// takes that back at the end.
//
// # Weights
//
// Thermal Vickrey gives every winner above the margin its whole demand and
// rations only the marginal bucket, so that three classes suffice:
//
//	served   gain * granted
//	margin   gain * granted / 8
//	losers   tier t: the lowest class above / 32 / 8^t, divided by their number;
//	         the last tier: 2 on v1, cpu.idle on v2
//	frozen   stopped: the insolvent, and bids below their own reserve
//
// The margin is one class below the served, so it takes what they leave: spare
// time goes to the next score without anybody knowing that it is spare. Losers
// of a tier share one tier's weight, so that a hundred of them weigh as much as
// one. Four tiers stand for the whole order of losers; the price is charged on
// metered use, so a leftover delivered out of order is paid at its proper price.
// The gain moves in powers of two so that a weight is written only when its
// proportion changed.
//
// # Lag
//
// Weights alone miss by up to 18 points of a core with sleepers or with single
// threads on two processors. So each weight is multiplied by
//
//	exp(clamp(2 * lag, +-2)),  lag = sum(owed - delivered) in core-epochs, within +-2
//
// which brought the worst miss to 2.7 points over 4 s. What was owed is found
// from what was really delivered: the level L with sum(min(L*granted_i,
// wanted_i)) = delivered, and owed_i = min(L*granted_i, wanted_i). So a late
// epoch, or a processor that somebody outside the market took, moves nobody's
// lag; only a wrong division does. Nobody is owed what it did not want.
//
// A loser with a granted floor slice is owed it in core time. When its debt
// reaches 1 ms it is lifted beside the served with a weight in proportion to
// the debt, until the debt is paid; a scheduler that looks once a tick
// overshoots the slice, and the overshoot delays the next one.
//
// Kernels before 6.6 (CFS) never forgive a group what it ran while it was
// light. There the classes are closer together and losers share 1/64 of the
// largest weight: they leak a few percent, and who was one may wait 1-4 s
// after it became rich, or in its dying lane.
//
// # What the caller must do
//
// Open groups before a workload starts and apply its price after: a start into
// a starved or frozen group blocks the starter. Call Apply once an epoch with
// the elapsed time and metered use, never the nominal epoch or the grant. Bill
// metered use. Close ends everything; a watchdog (Guard, Watch) does it when
// the node is killed, and Repair when the watchdog was killed too.
//
// # Daemons
//
// The workloads of a daemon (ModeThaw) live on without it. Tell the watchdog
// with Hold who is stopped for want of money, and until when. When the daemon
// dies the watchdog waits two seconds for the next one, then thaws the solvent,
// takes weights and quotas off, and ends each of the held when its grace is
// over. After Leave and Handover it does not wait. The next daemon, also a late
// one, opens with Adopt and either adopts or discards each group that Found
// names; it must not call Repair before, which would thaw the held. A turn, a
// word on the roots that is written when a watchdog is on guard, sends the
// watchdog of an earlier daemon away.
//
// # Guests
//
// Attach makes a group of a directory that others made. An observed guest is
// read and never written. A governed one is stopped, ended and weighed, never
// above the weight that was found; what was found is kept on the directory and
// given back by Remove, Close, Leave, the watchdog or Repair. After adoption
// attach the guests again and call RestoreGuests for those of rules that are
// gone.
//
// # Guarantees
//
// Equal grants converge to equal shares, within 3 points of a core over 4 s; per epoch
// +-15 points are normal, one scheduling slice being 4-8 ms. Freeze stops a
// tree in about 25 us. Kill leaves nobody, whatever forks, double forks,
// ends its first thread or ignores signals. The market's parent never weighs
// more than a neighbour. Repair and the watchdog touch only directories with
// this boot's mark and a free lock, and guests whose host has none.
//
// # Rejected
//
// Quotas for allocations: each write refills the quota (75/25 became 52/47),
// and unused time is lost. Strict weights (262144:2): a winner's sibling gets
// nothing at all, and a market with such a parent made ordinary root threads
// 6 s late. Freezing losers: their demand can no longer be seen. A shim that
// moves itself into v1 groups: 2.4 ms of start-up charged to the workload.
// PR_SET_PDEATHSIG: it fires when the thread that forked ends. A lock and a
// mark on every workload's directory: a descriptor each, and the root's
// covers them.
package cgroup
