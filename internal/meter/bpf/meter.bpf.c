/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */

//go:build ignore

/*
 * The meter: who ran, who waited, for how long, without asking anybody.
 *
 * Running. The kernel's scheduler adds up the time of the running task at
 * every tick and every switch and announces each addition at the tracepoint
 * sched_stat_runtime, with the very number that it adds to the cgroup's
 * cpu.stat. We add it to the cell of the task's wallet. A wallet is a cgroup
 * directory one level below the market's; a task may sit in any descendant of
 * it, so its wallet is the ancestor at the wallets' level, found in one step.
 * Children inherit the cgroup, so whatever lives and dies between two looks of
 * user space is charged. Tasks of nobody go to a counter of the processor.
 *
 * Waiting. A task that never gets a processor produces no event while it
 * waits, so waiting cannot be summed up from events of its own; and the
 * kernel's wait statistics are off by default. Instead we keep, per wallet,
 * the integral over time of the number of its runnable tasks. What is left of
 * it after the time they ran is the time they waited, and it grows for a
 * starved task as long as it is starved.
 *
 * The crowd word. Number and integral sit in one 64-bit word, changed by one
 * atomic add and read by one load, so that user space sees both at the same
 * moment without a lock. With t the ticks since loading:
 *
 *	a task becomes runnable:  crowd += 2^48 - t
 *	it stops being runnable:  crowd += t - 2^48
 *
 * Hence at any time T, with n tasks runnable and I the integral so far,
 *
 *	crowd = n * (2^48 - T) + I      (modulo 2^64)
 *
 * because each completed stay left (end - begin) in the word and each one
 * going on left 2^48 - begin. Whoever knows T and roughly I gets n and I back
 * exactly by one division; decode.go does, and keeps I in 64 bits of its own.
 *
 * Counting once. The kernel announces wake-ups of tasks that were still
 * queued, wakes tasks that were never switched out, leaves sleepers queued for
 * a while (delayed dequeue), and moves tasks between cgroups. So a task
 * carries a ticket: the cell in which it is counted, or none. Entering
 * exchanges "none" for a cell, leaving exchanges the cell for "none", moving
 * exchanges one cell for another, each atomically; the word is changed by
 * whoever won the exchange, so that nothing counts twice, however events
 * interleave. A task leaves when it is switched out in a state other than
 * running: sleeping, stopped, frozen and dead are all that, preempted is not.
 * The state is read from the task and not from the tracepoint's arguments:
 * their order changed twice in 5.18, and until 6.14 the argument still said
 * "sleeping" of a task that a pending signal had kept awake. A running task
 * that carries no ticket gets one at its next tick, which heals whatever
 * happened before the meter was loaded.
 *
 * Cost per event: the check CostPerEvent of TestKernel reports it.
 */
#include "kern.h"
#include "intf.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Set by the loader before the programs are loaded, then constant. */
const volatile u64 loaded_at;    /* CLOCK_MONOTONIC ns: tick 0 */
const volatile u64 self_tgid;    /* Maxwell's process, as the root pid namespace numbers it */
const volatile u32 wallet_level; /* depth of the wallets' directories; the root has 0 */

/* Of no use here: a type gets into the object, and so into Go, with a variable. */
const volatile enum limits layout = TICK_SHIFT;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CELLS);
	__type(key, u32);
	__type(value, struct cell);
} cells SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CORES);
	__type(key, u32);
	__type(value, struct core);
} cores SEC(".maps");

/* cgroup id -> cell + 1 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CELLS);
	__type(key, u64);
	__type(value, u64);
} wallets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct self);
} selves SEC(".maps");

#define ONE_TASK (1ULL << CROWD_SHIFT)

static __always_inline u64 ticks(void)
{
	return (bpf_ktime_get_ns() - loaded_at) >> TICK_SHIFT;
}

static __always_inline struct core *this_core(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&cores, &cpu);
}

static __always_inline struct cell *cell_of(u64 ticket)
{
	u32 index = ticket - 1;

	return bpf_map_lookup_elem(&cells, &index);
}

/* The id of the ancestor of c at a level above its own; 0 if it can't be read. */
static __always_inline u64 ancestor(struct cgroup *c, u32 level)
{
	struct cgroup *up = 0;
	struct kernfs_node *kn = 0;
	u64 id = 0;

	if (!field_exists(c->ancestors)) {
		struct cgroup___before_6_1 *old = (void *)c;

		bpf_probe_read_kernel(&id, sizeof(id), (void *)old + field_offset(old->ancestor_ids) + level * sizeof(id));
		return id;
	}
	bpf_probe_read_kernel(&up, sizeof(up), (void *)c + field_offset(c->ancestors) + level * sizeof(up));
	if (!up)
		return 0;
	bpf_probe_read_kernel(&kn, sizeof(kn), (void *)up + field_offset(up->kn));
	if (!kn)
		return 0;
	bpf_probe_read_kernel(&id, sizeof(id), (void *)kn + field_offset(kn->id));
	return id;
}

/* The ticket of the wallet that p belongs to now; 0 if it belongs to none. */
static __always_inline u64 wallet_of(struct task_struct *p)
{
	struct cgroup *c = p->cgroups->dfl_cgrp;
	int level = c->level;
	u64 id, *ticket;

	if (level < (int)wallet_level)
		return 0;
	id = level == (int)wallet_level ? c->kn->id : ancestor(c, wallet_level);
	ticket = bpf_map_lookup_elem(&wallets, &id);
	return ticket ? *ticket : 0;
}

static __always_inline bool asleep(struct task_struct *p)
{
	if (!field_exists(p->__state))
		return ((struct task_struct___before_5_14 *)p)->state != 0;
	return p->__state != 0;
}

static __always_inline void add_crowd(u64 ticket, u64 change)
{
	struct cell *cell = cell_of(ticket);

	if (cell)
		__sync_fetch_and_add(&cell->crowd, change);
}

/* p is runnable and belongs to the wallet of the ticket. */
static __always_inline void enter(struct task_struct *p, u64 ticket)
{
	struct task *t = bpf_task_storage_get(&tasks, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct core *core;

	if (!t) {
		core = this_core();
		if (core)
			core->lost++;
		return;
	}
	if (!__sync_val_compare_and_swap(&t->ticket, 0, ticket))
		add_crowd(ticket, ONE_TASK - ticks());
}

/* p is not runnable any more, or not in the market. */
static __always_inline void leave(struct task *t)
{
	u64 ticket = __sync_lock_test_and_set(&t->ticket, 0);

	if (ticket)
		add_crowd(ticket, ticks() - ONE_TASK);
}

/* Brings a runnable task's ticket in line with the wallet it belongs to. */
static __always_inline void settle(struct task_struct *p, u64 ticket)
{
	struct task *t = bpf_task_storage_get(&tasks, p, 0, 0);
	u64 old = t ? t->ticket : 0;
	u64 now;

	if (old == ticket)
		return;
	if (!ticket) {
		leave(t);
		return;
	}
	if (!old) {
		enter(p, ticket);
		return;
	}
	if (__sync_val_compare_and_swap(&t->ticket, old, ticket) == old) {
		now = ticks();
		add_crowd(old, now - ONE_TASK);
		add_crowd(ticket, ONE_TASK - now);
	}
}

static __always_inline int charge(u64 *ctx, bool follow)
{
	struct task_struct *p = (void *)ctx[0];
	u64 ns = ctx[1];
	u64 ticket;
	struct cell *cell;
	struct core *core;

	if (!p->pid) /* the idle task: nobody's time, and not busy */
		return 0;
	ticket = wallet_of(p);
	if (ticket) {
		cell = cell_of(ticket);
		if (cell)
			__sync_fetch_and_add(&cell->run, ns);
	}
	if (!ticket || p->tgid == (s32)self_tgid) {
		core = this_core();
		if (core) {
			/* Only this processor writes here, with interrupts off. */
			if (!ticket)
				core->system += ns;
			if (p->tgid == (s32)self_tgid)
				core->self += ns;
		}
	}
	if (follow)
		settle(p, ticket);
	return 0;
}

/* Running time, on kernels where waiting cannot be followed. */
SEC("tp_btf/sched_stat_runtime")
int run(u64 *ctx)
{
	return charge(ctx, 0);
}

/* Running time; also gives tickets to runners that lack one. */
SEC("tp_btf/sched_stat_runtime")
int run_follow(u64 *ctx)
{
	return charge(ctx, 1);
}

static __always_inline int wake(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	u64 ticket = wallet_of(p);

	if (ticket)
		enter(p, ticket);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int wakeup(u64 *ctx)
{
	return wake(ctx);
}

SEC("tp_btf/sched_wakeup_new")
int wakeup_new(u64 *ctx)
{
	return wake(ctx);
}

/*
 * The only argument used is the first, which is "preempted" on every kernel;
 * the task being switched out is still the current one here.
 */
SEC("tp_btf/sched_switch")
int switched(u64 *ctx)
{
	struct task_struct *p;
	struct task *t;

	if (ctx[0]) /* put aside, not gone, whatever state it was about to sleep in */
		return 0;
	p = bpf_get_current_task_btf();
	if (!asleep(p))
		return 0;
	t = bpf_task_storage_get(&tasks, p, 0, 0);
	if (t)
		leave(t);
	return 0;
}

/*
 * Optional: makes room for the ticket of a new task here, where memory may be
 * had without the run queue's lock held.
 */
SEC("tp_btf/sched_process_fork")
int forked(u64 *ctx)
{
	struct task_struct *child = (void *)ctx[1];

	if (wallet_of(child))
		bpf_task_storage_get(&tasks, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/*
 * Optional: a task that is moved while it waits is counted in its new wallet
 * at once. The other threads of a moved process follow when they next run.
 *
 * This runs beside the events of the same task, without its run queue's lock.
 * If the task fell asleep while we gave it a ticket, its own switch may have
 * come too early to take the ticket back; then we do.
 */
SEC("tp_btf/cgroup_attach_task")
int attached(u64 *ctx)
{
	struct task_struct *p = (void *)ctx[2];
	struct task *t;

	if (asleep(p))
		return 0;
	settle(p, wallet_of(p));
	if (!asleep(p))
		return 0;
	t = bpf_task_storage_get(&tasks, p, 0, 0);
	if (t)
		leave(t);
	return 0;
}

/* Run once by the loader in its own context. */
SEC("raw_tp/")
int whoami(u64 *ctx)
{
	struct task_struct *p = bpf_get_current_task_btf();
	struct cgroup *c = p->cgroups->dfl_cgrp;
	u32 zero = 0;
	struct self *self = bpf_map_lookup_elem(&selves, &zero);
	int level = c->level;

	if (!self)
		return 0;
	self->tgid = p->tgid;
	self->level = level;
	for (int i = 0; i < 16; i++)
		self->ancestors[i] = i < level ? ancestor(c, i) : i == level ? c->kn->id : 0;
	return 0;
}
