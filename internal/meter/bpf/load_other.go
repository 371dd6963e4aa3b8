// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

//go:build !(386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64)

package bpf

import "errors"

// Layout of a cell's crowd word.
const (
	TickShift  = 10
	CrowdShift = 48
)

// ErrByteOrder refuses to load a little-endian object elsewhere.
var ErrByteOrder = errors.New("the meter's programs are built for little-endian processors only")

// Cell, Core and Self stand for the structs of intf.h.
type (
	Cell struct{ Run, Crowd uint64 }
	Core struct{ System, Self, Lost uint64 }
	Self struct {
		Tgid, Level uint64
		Ancestors   [16]uint64
	}
)

// Options are fixed when the programs are loaded.
type Options struct {
	Cells    int
	LoadedAt uint64
	TGID     uint64
	Level    uint32
}

// Counters are never loaded here.
type Counters struct {
	Cells   []Cell
	Cores   []Core
	Waiting error
	Missing []error
}

// Whoami always fails here.
func Whoami() (Self, error) { return Self{}, ErrByteOrder }

// Load always fails here.
func Load(Options) (*Counters, error) { return nil, ErrByteOrder }

// Put always fails here.
func (*Counters) Put(uint64, int) error { return ErrByteOrder }

// Delete always fails here.
func (*Counters) Delete(uint64) error { return ErrByteOrder }

// Close has nothing to close.
func (*Counters) Close() error { return nil }
