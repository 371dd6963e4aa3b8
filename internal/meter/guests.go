package meter

import (
	"errors"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// guests counts groups that others made, wherever in the cgroup2 tree they are, by
// their own files, beside a meter of the market's groups. There are few of them: a
// read of two files each costs less than a meter that would look at every ancestor
// of every task.
type guests struct {
	Meter

	parent string
	slots  map[int]*guest
	gone   unit.CoreTime // of guests removed
	buf    [512]byte
}

// guest is one group's files and their counters at Add.
type guest struct {
	usage, pressure int // descriptors; pressure is -1 where the kernel keeps none
	run, wait       unit.CoreTime
	last            Sample
}

// WithGuests lets m count groups outside of the market's directory too. Each must
// be on cgroup2. What runs in one is no longer the system's in Node.
func WithGuests(m Meter, parent host.CgroupRef) Meter {
	return &guests{Meter: m, parent: filepath.Clean(parent.Dir), slots: make(map[int]*guest)}
}

// Add implements Meter.
func (g *guests) Add(slot int, cgroup host.CgroupRef) error {
	dir := filepath.Clean(cgroup.Dir)
	if cgroup.Dir == "" || filepath.Dir(dir) == g.parent {
		return g.Meter.Add(slot, cgroup)
	}
	switch {
	case slot < 0 || slot >= MaxSlots:
		return &SlotError{slot, reasonRange}
	case g.slots[slot] != nil:
		return &SlotError{slot, reasonTaken}
	}
	x := &guest{usage: -1, pressure: -1}
	var err error
	if x.usage, err = openFD(filepath.Join(dir, "cpu.stat")); err != nil {
		return err
	}
	x.pressure, _ = openFD(filepath.Join(dir, pressureName)) // not every kernel has it
	if x.run, err = g.readRun(x.usage); err != nil {
		return errors.Join(err, x.close())
	}
	x.wait = g.readWait(x.pressure)
	x.last.Runnable = Unknown
	g.slots[slot] = x
	return nil
}

// Remove implements Meter.
func (g *guests) Remove(slot int) (Sample, error) {
	x := g.slots[slot]
	if x == nil {
		return g.Meter.Remove(slot)
	}
	g.sample(x)
	delete(g.slots, slot)
	g.gone += x.last.Run
	return x.last, x.close()
}

// Read implements Meter.
func (g *guests) Read(dst []Sample) (Node, error) {
	node, err := g.Meter.Read(dst)
	if len(g.slots) == 0 && g.gone == 0 {
		return node, err
	}
	total := g.gone
	for slot, x := range g.slots {
		g.sample(x)
		total += x.last.Run
		if slot < len(dst) {
			dst[slot] = x.last
		}
	}
	// Read a moment later than the node's: never less than nothing is left.
	node.System = max(0, node.System-total)
	return node, err
}

// ReadOne implements Meter.
func (g *guests) ReadOne(slot int) (Sample, error) {
	x := g.slots[slot]
	if x == nil {
		return g.Meter.ReadOne(slot)
	}
	g.sample(x)
	return x.last, nil
}

// Close implements Meter.
func (g *guests) Close() error {
	var errs []error
	for _, x := range g.slots {
		errs = append(errs, x.close())
	}
	clear(g.slots)
	return errors.Join(append(errs, g.Meter.Close())...)
}

// sample reads a guest's files. Of a group that is gone the last sample stands.
func (g *guests) sample(x *guest) {
	if run, err := g.readRun(x.usage); err == nil {
		x.last.Run = max(x.last.Run, run-x.run)
	}
	x.last.Wait = max(x.last.Wait, g.readWait(x.pressure)-x.wait)
}

func (g *guests) readRun(fd int) (unit.CoreTime, error) {
	b, err := g.pread(fd)
	if err != nil {
		return 0, err
	}
	us, ok := host.Key(b, "usage_usec")
	if !ok {
		return 0, errUsage
	}
	return unit.CoreTime(us) * unit.CoreTime(time.Microsecond), nil
}

// readWait is a lower bound, as of the files meter: several threads that wait at
// once count once.
func (g *guests) readWait(fd int) unit.CoreTime {
	if fd < 0 {
		return 0
	}
	b, err := g.pread(fd)
	if err != nil {
		return 0
	}
	us, _ := pressureTotal(b)
	return unit.CoreTime(us) * unit.CoreTime(time.Microsecond)
}

func (g *guests) pread(fd int) ([]byte, error) {
	for {
		n, err := unix.Pread(fd, g.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return g.buf[:max(n, 0)], err
	}
}

func (x *guest) close() error {
	err := unix.Close(x.usage)
	if x.pressure >= 0 {
		err = errors.Join(err, unix.Close(x.pressure))
	}
	x.usage, x.pressure = -1, -1
	return err
}
