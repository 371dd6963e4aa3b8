// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

package bpf

// The object is compiled by clang 16 and nothing else of the build host: the
// sources include no system header, and paths, DWARF and the compiler's name
// stay out of it, so that generating twice anywhere gives the same bytes.
// -mcpu=v3 is what atomic exchanges need (Linux 5.12).
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel -cc clang-16 -strip llvm-strip-16 meter meter.bpf.c -- -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter
