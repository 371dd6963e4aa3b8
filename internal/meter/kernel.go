package meter

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/meter/bpf"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// kernel is the BPF meter: it reads memory that the kernel's scheduler events
// write.
type kernel struct {
	counters *bpf.Counters
	parent   string

	start time.Time // tick 0, on the clock that the programs use

	slots []kernelSlot
	live  []int32 // slots in use, in no order
	free  []int32 // cells; one may still have a straggler
	cells []cellState

	// gone is what wallets used that are removed, late charges included.
	gone unit.CoreTime

	cost cost
}

// kernelSlot is one wallet's place. The zero value is an empty slot.
type kernelSlot struct {
	used   bool
	cell   int32
	at     int32 // its index in live
	cgroup uint64
	run    uint64 // the cell's counters at Add
	crowd  uint64
	last   Sample // never goes back
}

// cellState outlives the wallets that use a cell: cells are never reset.
type cellState struct {
	crowd crowd
	left  uint64 // run when the last wallet was removed; later growth is gone's
}

// finalWait is how long Remove waits for the last process to be switched out.
// A process leaves its group (and the group is called empty) some tens of
// microseconds before it ends.
const finalWait = 2 * time.Millisecond

func newKernel(cfg Config, level uint32, tgid uint64) (*kernel, error) {
	start, at, err := clock()
	if err != nil {
		return nil, err
	}
	n := cfg.slots()
	c, err := bpf.Load(bpf.Options{Cells: n, LoadedAt: at, TGID: tgid, Level: level})
	if err != nil {
		return nil, err
	}
	k := &kernel{
		counters: c,
		parent:   filepath.Clean(cfg.Parent.Dir),
		start:    start,
		free:     make([]int32, n),
		cells:    make([]cellState, n),
	}
	for i := range k.free {
		k.free[i] = int32(n - 1 - i) // the lowest is taken first: live cells stay together
	}
	return k, nil
}

// clock pairs the runtime's monotonic clock, which is read without a system
// call, with CLOCK_MONOTONIC as the kernel counts it. Both are the same clock;
// the pair is taken as close together as can be.
func clock() (time.Time, uint64, error) {
	var ts unix.Timespec
	best, at, width := time.Time{}, uint64(0), time.Duration(1<<62)
	for range 16 {
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return best, 0, err
		}
		if w := time.Since(before); w < width {
			best, at, width = before, uint64(ts.Nano()), w
		}
	}
	return best, at, nil
}

func (k *kernel) now() uint64 { return uint64(time.Since(k.start)) >> bpf.TickShift }

// Add implements Meter.
func (k *kernel) Add(slot int, cgroup host.CgroupRef) error {
	switch {
	case k.counters.Cells == nil:
		return errClosed
	case slot < 0 || slot >= MaxSlots:
		return &SlotError{slot, reasonRange}
	case slot < len(k.slots) && k.slots[slot].used:
		return &SlotError{slot, reasonTaken}
	case filepath.Dir(filepath.Clean(cgroup.Dir)) != k.parent:
		return &SlotError{slot, reasonDir}
	}
	cell, ok := k.take()
	if !ok {
		return &SlotError{slot, reasonFull}
	}
	s := kernelSlot{used: true, cell: cell, at: int32(len(k.live)), cgroup: cgroup.ID}
	s.run = atomic.LoadUint64(&k.counters.Cells[cell].Run)
	s.crowd = k.cells[cell].crowd.integral
	if err := k.counters.Put(cgroup.ID, int(cell)); err != nil {
		k.free = append(k.free, cell)
		return err
	}
	for len(k.slots) <= slot {
		k.slots = append(k.slots, kernelSlot{})
	}
	k.slots[slot] = s
	k.live = append(k.live, int32(slot))
	return nil
}

// take finds a cell in which nobody is counted any more. A cell keeps a
// straggler only if its wallet was removed while processes lived.
func (k *kernel) take() (int32, bool) {
	for i := len(k.free) - 1; i >= 0; i-- {
		cell := k.free[i]
		c, state := &k.counters.Cells[cell], &k.cells[cell]
		n, ok := state.crowd.look(atomic.LoadUint64(&c.Crowd), k.now())
		if k.waits() && (!ok || n != 0) {
			continue
		}
		run := atomic.LoadUint64(&c.Run)
		k.gone += unit.CoreTime(run - state.left)
		state.left = run
		k.free[i] = k.free[len(k.free)-1]
		k.free = k.free[:len(k.free)-1]
		return cell, true
	}
	return 0, false
}

// Remove implements Meter.
func (k *kernel) Remove(slot int) (Sample, error) {
	sample, err := k.ReadOne(slot)
	if err != nil {
		return Sample{}, err
	}
	for since := time.Now(); sample.Runnable > 0 && time.Since(since) < finalWait; {
		time.Sleep(50 * time.Microsecond)
		sample, _ = k.ReadOne(slot)
	}
	s := k.slots[slot]
	err = k.counters.Delete(s.cgroup)
	sample, _ = k.ReadOne(slot)
	k.gone += sample.Run
	k.cells[s.cell].left = s.run + uint64(sample.Run)
	k.free = append(k.free, s.cell)
	last := k.live[len(k.live)-1]
	k.live[s.at] = last
	k.slots[last].at = s.at
	k.live = k.live[:len(k.live)-1]
	k.slots[slot] = kernelSlot{}
	return sample, err
}

// Read implements Meter.
func (k *kernel) Read(dst []Sample) (Node, error) {
	begin := time.Now()
	if k.counters.Cells == nil {
		return Node{}, errClosed
	}
	clear(dst)
	var n Node
	for i := range k.counters.Cores {
		c := &k.counters.Cores[i]
		n.System += unit.CoreTime(atomic.LoadUint64(&c.System))
		n.Self += unit.CoreTime(atomic.LoadUint64(&c.Self))
	}
	governed := k.gone
	now := uint64(begin.Sub(k.start)) >> bpf.TickShift
	for _, slot := range k.live {
		s := &k.slots[slot]
		k.sample(s, now)
		governed += s.last.Run
		if int(slot) < len(dst) {
			dst[slot] = s.last
		}
	}
	n.Busy = n.System + governed
	k.cost.add(time.Since(begin), len(k.live))
	return n, nil
}

// ReadOne implements Meter.
func (k *kernel) ReadOne(slot int) (Sample, error) {
	if k.counters.Cells == nil {
		return Sample{}, errClosed
	}
	if slot < 0 || slot >= len(k.slots) || !k.slots[slot].used {
		return Sample{}, &SlotError{slot, reasonEmpty}
	}
	s := &k.slots[slot]
	k.sample(s, k.now())
	return s.last, nil
}

// sample brings a slot up to date. The kernel adds running time at ticks and
// switches, so Run lags by at most a tick of the scheduler (4 ms at 250 Hz)
// while the integral does not; Wait would swing by as much if it were allowed
// to go back.
func (k *kernel) sample(s *kernelSlot, now uint64) {
	c := &k.counters.Cells[s.cell]
	word := atomic.LoadUint64(&c.Crowd)
	run := unit.CoreTime(atomic.LoadUint64(&c.Run) - s.run)
	s.last.Run = run
	if !k.waits() {
		s.last.Runnable = Unknown
		return
	}
	state := &k.cells[s.cell].crowd
	n, ok := state.look(word, now)
	if !ok {
		return
	}
	s.last.Runnable = n
	stay := unit.CoreTime(int64(state.integral-s.crowd) << bpf.TickShift)
	s.last.Wait = max(s.last.Wait, stay-run)
}

func (k *kernel) waits() bool { return k.counters.Waiting == nil }

// lost is how often a task's waiting could not be followed.
func (k *kernel) lost() uint64 {
	var n uint64
	for i := range k.counters.Cores {
		n += atomic.LoadUint64(&k.counters.Cores[i].Lost)
	}
	return n
}

// Describe implements Meter.
func (k *kernel) Describe() Description {
	d := Description{
		Kind:    BPF,
		Detail:  "scheduler events counted by cgroup in the kernel (tp_btf/sched_stat_runtime)",
		Charge:  "exact: equals cpu.stat",
		Wait:    "every runnable thread, those that wait now included",
		Refused: k.counters.Missing,
	}
	if !k.waits() {
		d.Wait = "not counted"
		d.Refused = append([]error{k.counters.Waiting}, d.Refused...)
	} else if k.lost() > 0 {
		d.Wait = "a lower bound: the kernel could not follow some threads for a while"
	}
	d.Cost, d.Reads, d.Slots = k.cost.average(), k.cost.reads, k.cost.slots
	return d
}

// Close implements Meter.
func (k *kernel) Close() error { return k.counters.Close() }

var errClosed = errors.New("meter: closed")

// cost is a moving average of what Read takes.
type cost struct {
	mean  time.Duration
	reads int64
	slots int
}

// add weighs the newest read 1/16: half of the average is younger than 11
// reads.
func (c *cost) add(d time.Duration, slots int) {
	if c.reads == 0 {
		c.mean = d
	}
	c.mean += (d - c.mean) / 16
	c.reads++
	c.slots = slots
}

func (c *cost) average() time.Duration { return c.mean }
