// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Layout of a cell's crowd word, as meter.bpf.c keeps it.
const (
	TickShift  = int(meterLimitsTICK_SHIFT)  // a tick is 2^TickShift ns
	CrowdShift = int(meterLimitsCROWD_SHIFT) // runnable tasks from this bit on
)

// The structs of intf.h.
type (
	// Cell is the counters of one wallet.
	Cell = meterCell
	// Core is the counters of one processor.
	Core = meterCore
	// Self says which process and cgroup is Maxwell itself.
	Self = meterSelf
)

// Options are fixed when the programs are loaded.
type Options struct {
	Cells    int    // wallets that can be counted at once
	LoadedAt uint64 // CLOCK_MONOTONIC in ns: tick 0
	TGID     uint64 // process whose time is counted as Maxwell's own
	Level    uint32 // depth of the wallets' directories; the root has 0
}

// Counters are the loaded programs and their memory. Cells and Cores are
// written by the kernel: read them with atomic loads, and not after Close.
type Counters struct {
	Cells []Cell
	Cores []Core

	Waiting error   // nil if waiting is followed, else why not
	Missing []error // optional programs that the kernel refused

	// Programs are those attached, by name: their statistics tell what an
	// event costs.
	Programs map[string]*ebpf.Program

	types   *btf.Spec // of the running kernel, while loading
	wallets *ebpf.Map
	closers []func() error
}

// Whoami asks the kernel where this process stands, whatever namespaces it is
// in.
func Whoami() (Self, error) {
	spec, err := loadMeter()
	if err != nil {
		return Self{}, err
	}
	keep(spec, meterProgWhoami)
	for name := range spec.Maps {
		if name != meterMapSelves {
			spec.Maps[name].MaxEntries = min(spec.Maps[name].MaxEntries, 1)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return Self{}, fmt.Errorf("load program %s: %w", meterProgWhoami, err)
	}
	defer coll.Close()
	if _, err := coll.Programs[meterProgWhoami].Run(&ebpf.RunOptions{}); err != nil {
		return Self{}, fmt.Errorf("run program %s: %w", meterProgWhoami, err)
	}
	var self Self
	if err := coll.Maps[meterMapSelves].Lookup(uint32(0), &self); err != nil {
		return Self{}, fmt.Errorf("read map %s: %w", meterMapSelves, err)
	}
	return self, nil
}

// Load loads and attaches the programs. It fails only if running time cannot
// be counted; Waiting and Missing tell the rest.
func Load(o Options) (*Counters, error) {
	spec, err := loadMeter()
	if err != nil {
		return nil, err
	}
	if err := prepare(spec, o); err != nil {
		return nil, err
	}
	// Parsed once, not once for each program; megabytes, and dropped after.
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	c := &Counters{types: types, Programs: map[string]*ebpf.Program{}}
	err = c.load(spec)
	c.types = nil
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func prepare(spec *ebpf.CollectionSpec, o Options) error {
	cores, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count processors: %w", err)
	}
	spec.Maps[meterMapCells].MaxEntries = uint32(o.Cells)
	spec.Maps[meterMapWallets].MaxEntries = uint32(o.Cells)
	spec.Maps[meterMapCores].MaxEntries = uint32(cores)
	return errors.Join(
		spec.Variables[meterVarLoadedAt].Set(o.LoadedAt),
		spec.Variables[meterVarSelfTgid].Set(o.TGID),
		spec.Variables[meterVarWalletLevel].Set(o.Level),
	)
}

func (c *Counters) load(spec *ebpf.CollectionSpec) error {
	maps, err := c.loadMaps(spec)
	if err != nil {
		return err
	}
	if c.Waiting = c.follow(spec, maps); c.Waiting != nil {
		// Without the events of waiting there is nothing to follow, but
		// running time needs one tracepoint only.
		if err := c.attach(spec, maps, meterProgRun); err != nil {
			return err
		}
	}
	c.wallets = maps[meterMapWallets]
	if c.Cells, err = view[Cell](c, maps[meterMapCells]); err != nil {
		return err
	}
	c.Cores, err = view[Core](c, maps[meterMapCores])
	return err
}

// loadMaps makes the maps. Task storage is the youngest of them (Linux 5.11)
// and not optional: the kernel that lacks it lacks atomic exchanges too.
func (c *Counters) loadMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	only := spec.Copy()
	keep(only)
	delete(only.Maps, meterMapSelves)
	coll, err := ebpf.NewCollection(only)
	if err != nil {
		return nil, fmt.Errorf("make maps: %w", err)
	}
	maps := coll.Maps
	coll.Maps = nil
	coll.Close()
	for _, m := range maps {
		c.closers = append(c.closers, m.Close)
	}
	return maps, nil
}

// follow attaches what counts waiting, all of it or nothing: an entry without
// its exit would count for ever. Exits come first, so that no entry is missed
// by one.
func (c *Counters) follow(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map) error {
	before := len(c.closers)
	for _, name := range []string{meterProgSwitched, meterProgWakeupNew, meterProgWakeup, meterProgRunFollow} {
		if err := c.attach(spec, maps, name); err != nil {
			undo := closeAll(c.closers[before:])
			c.closers = c.closers[:before]
			return errors.Join(err, undo)
		}
	}
	for _, name := range []string{meterProgForked, meterProgAttached} {
		if err := c.attach(spec, maps, name); err != nil {
			c.Missing = append(c.Missing, err)
		}
	}
	return nil
}

func (c *Counters) attach(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map, name string) error {
	only := spec.Copy()
	keep(only, name)
	delete(only.Maps, meterMapSelves)
	coll, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{
		MapReplacements: maps,
		Programs:        ebpf.ProgramOptions{KernelTypes: c.types},
	})
	if err != nil {
		return fmt.Errorf("load program %s: %w", name, err)
	}
	defer coll.Close() // what is left in it: clones of the maps
	l, err := link.AttachTracing(link.TracingOptions{Program: coll.Programs[name]})
	if err != nil {
		return fmt.Errorf("attach program %s: %w", name, err)
	}
	p := coll.DetachProgram(name)
	c.Programs[name] = p
	c.closers = append(c.closers, func() error {
		delete(c.Programs, name)
		return errors.Join(l.Close(), p.Close())
	})
	return nil
}

// keep removes every program but those named.
func keep(spec *ebpf.CollectionSpec, names ...string) {
	wanted := make(map[string]*ebpf.ProgramSpec, len(names))
	for _, name := range names {
		wanted[name] = spec.Programs[name]
	}
	spec.Programs = wanted
}

// view maps an array's values into our memory, read-only: no system call is
// needed to read them from then on.
func view[T any](c *Counters, m *ebpf.Map) ([]T, error) {
	var zero T
	n := int(m.MaxEntries())
	size := n * int(unsafe.Sizeof(zero))
	page := os.Getpagesize()
	size = (size + page - 1) / page * page
	b, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", m, err)
	}
	c.closers = append(c.closers, func() error { return unix.Munmap(b) })
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

// Put makes the tasks of a cgroup, and of its descendants, count in a cell.
func (c *Counters) Put(cgroup uint64, cell int) error {
	if err := c.wallets.Update(cgroup, uint64(cell)+1, ebpf.UpdateNoExist); err != nil {
		return fmt.Errorf("count cgroup %d: %w", cgroup, err)
	}
	return nil
}

// Delete stops counting a cgroup: its tasks belong to nobody from now on.
func (c *Counters) Delete(cgroup uint64) error {
	if err := c.wallets.Delete(cgroup); err != nil {
		return fmt.Errorf("stop counting cgroup %d: %w", cgroup, err)
	}
	return nil
}

// Close detaches the programs and gives the memory back.
func (c *Counters) Close() error {
	err := closeAll(c.closers)
	c.closers, c.Cells, c.Cores = nil, nil, nil
	return err
}

func closeAll(closers []func() error) error {
	var errs []error
	for _, closer := range slices.Backward(closers) {
		errs = append(errs, closer())
	}
	return errors.Join(errs...)
}
