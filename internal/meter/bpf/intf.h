/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The whole contract between meter.bpf.c and Go. bpf2go turns the structs into
 * Go types and the enum into Go constants; nothing else crosses the border.
 */
#ifndef MAXWELL_METER_INTF_H
#define MAXWELL_METER_INTF_H

enum limits {
	/*
	 * Time in the crowd word is counted in ticks of 2^10 ns, so that no
	 * division is needed in the kernel. Coarser loses precision, finer
	 * shortens the life of the word: 2^48 ticks are 9.1 years.
	 */
	TICK_SHIFT = 10,
	/* Bit at which the number of runnable tasks begins in the crowd word. */
	CROWD_SHIFT = 48,
	/* Sizes of the maps unless Go asks for others before loading. */
	CELLS = 16384,
	CORES = 1,
};

/*
 * One wallet's counters. A cell fills a cache line, so that two wallets on two
 * processors do not fight for one. Both words only ever grow by atomic adds
 * and are never reset: Go remembers where it began to count.
 */
struct cell {
	u64 run;   /* ns on a processor, as cpu.stat counts them */
	u64 crowd; /* runnable tasks and the integral of their number, see meter.bpf.c */
	u64 pad[6];
};

/* One processor's counters, written by that processor alone. */
struct core {
	u64 system; /* ns of tasks that belong to no wallet */
	u64 self;   /* ns of Maxwell's own process, wherever it is counted besides */
	u64 lost;   /* times a task's waiting could not be followed for want of memory */
	u64 pad[5];
};

/* What is remembered of a task: the cell it is counted in, plus 1; 0 if in none. */
struct task {
	u64 ticket;
};

/* Where the loader stands in the kernel's own view, whatever namespaces it is in. */
struct self {
	u64 tgid;
	u64 level;         /* of its cgroup, 0 is the root */
	u64 ancestors[16]; /* ids of its cgroup's ancestors by level, itself included */
};

#endif
