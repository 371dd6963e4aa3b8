// Package meter counts how long each wallet's processes ran and how long they
// waited for a processor.
//
// # Problem
//
// A market that sells the processor bills what was used, to the microsecond,
// and needs to know what was wanted: demand is the time that a wallet's
// threads ran plus the time that they could have run and did not. Nothing may
// escape: a process that lives for a millisecond between two epochs costs as
// much as any other. And asking must be cheap, for a thousand wallets ten to
// twenty times a second.
//
// # Three meters
//
// BPF (kernel.go, bpf/). Programs at the scheduler's tracepoints add up, per
// wallet, what the kernel adds to the cgroup's cpu.stat. The counters are an
// array that the kernel shares with us as memory: reading a wallet takes two
// loads and no system call. Waiting is the integral of the number of runnable
// threads minus the time they ran; bpf/meter.bpf.c tells how number and
// integral share one word, crowd.go how they are taken apart.
//
// Files (files.go). The same run time from the kernel's files, where BPF is
// not allowed; microseconds for each file instead of nanoseconds. Waiting is
// cpu.pressure: the time in which at least one thread waited.
//
// Processes (processes.go). Where there is no cgroup: the clocks of the
// processes found by sweeps over /proc.
//
// Open takes the best that works. It is tried, not assumed: the BPF meter must
// count children of its own as cpu.stat does before it is believed.
//
// # Guarantees
//
//   - Times count from Add and never go back.
//   - BPF and files: after Remove of an empty group, Run equals the kernel's
//     usage of the group, forks that came and went included. Processes: Run is
//     at most that, and Description says so.
//   - BPF: Run + Wait is the time that threads of the wallet were runnable,
//     seen from any processor, whether they ever got one or not, throttled by
//     a quota or not. A sleeping, stopped, frozen or dead thread is not
//     runnable. Run lags by a scheduler tick while a thread runs on (4 ms at
//     250 Hz), Wait leads by as much; the sum does not.
//   - Node.Busy - Node.System is the sum of all that wallets used, removed
//     ones included.
//
// Busy leaves out what the kernel does not charge to tasks: interrupts, where
// they are accounted separately, and time stolen by a hypervisor. Run + Wait
// of a thread on a processor that was stolen grows, Run does not: the thread
// did want it.
//
// # What the caller must do
//
// Add before the first process enters the group, and Remove when it is empty.
// Call from one goroutine at a time. Cap demand at min(cores, Runnable) if the
// market sells fewer cores than a wallet has threads; Runnable is Unknown
// where the meter cannot count it.
//
// # Rejected
//
//   - /proc per process as the only source: loses 65-90 % of a storm of short
//     forks, measured on a 2-core VM.
//   - sched_switch with a clock: off by -4 to +9 % of cpu.stat, and a lone
//     busy task is billed when it is switched out, seconds later.
//   - sched_stat_wait and other schedstats: off by default, and a task that
//     never gets a processor never reports.
//   - A hash looked up by system calls: four to eight times the cost of the
//     shared array at a thousand wallets.
package meter
