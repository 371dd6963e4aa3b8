// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// Package bpf is the kernel half of the meter: the programs in meter.bpf.c,
// compiled and committed, and the loader that gives Go their counters as
// memory.
//
// The algorithm is told in meter.bpf.c; intf.h is the only contract between
// the two languages. Building needs no C compiler; go generate does, and
// yields the same bytes again. Every program is loaded by itself, so that a
// kernel that refuses one keeps the others.
package bpf
