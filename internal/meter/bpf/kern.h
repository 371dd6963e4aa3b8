/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The least a program needs to know of the kernel, instead of a generated
 * header of three megabytes: only the fields that are read, each relocated
 * against the running kernel's BTF when the program is loaded. Nothing here
 * depends on the processor's architecture, nor on headers of the build host.
 */
#ifndef MAXWELL_METER_KERN_H
#define MAXWELL_METER_KERN_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef _Bool bool;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

/* Map types, flags and constants of include/uapi/linux/bpf.h. */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
	BPF_F_NO_PREALLOC = 1U << 0,
	BPF_F_MMAPABLE = 1U << 10,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1U << 0,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[]; /* Linux 6.1 and later */
};

struct cgroup___before_6_1 {
	int level;
	u64 ancestor_ids[];
};

struct css_set {
	struct cgroup *dfl_cgrp; /* in the cgroup2 tree, which every task is in */
};

struct task_struct {
	unsigned int __state; /* Linux 5.14 and later */
	s32 pid;
	s32 tgid;
	struct css_set *cgroups;
};

struct task_struct___before_5_14 {
	volatile long state;
};

#pragma clang attribute pop

/* Helpers by number, as the kernel's ABI fixes them. */
static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static void *(*const bpf_task_storage_get)(void *map, struct task_struct *task, void *value, u64 flags) = (void *)156;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;

/* Queries that the loader answers from the running kernel's BTF. */
#define field_exists(field) __builtin_preserve_field_info(field, 2)
#define field_offset(field) __builtin_preserve_field_info(field, 0)

#endif
