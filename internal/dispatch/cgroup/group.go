package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// actuator is the directory of a group in the hierarchy of one controller;
// dir is empty where the machine has none.
type actuator struct {
	dir string
	v2  bool
}

func (a actuator) file(name string) string { return filepath.Join(a.dir, name) }

// Group is the directories of one workload, one in each hierarchy.
type Group struct {
	market  *Enforcer
	slot    int
	name    string
	limits  dispatch.Limits
	foreign bool     // a guest: others made it
	dirs    []string // in the order of the market's places
	ref     host.CgroupRef

	unified                    string // cgroup2 directory; empty on a v1-only machine
	cpu, memory, pids, freezer actuator
	usage                      actuator // cpuacct, where there is no cgroup2

	removing sync.Mutex // one Remove at a time; taken before mu and the market's
	rest     []string   // directories that are still to go, under removing

	mu      sync.Mutex // guards what follows; the market's is never taken under it
	guest   guestKind
	found   original // of a governed guest
	closed  bool
	left    bool       // it lives on without this daemon
	weight  *host.Knob // cpu.weight or cpu.shares, written each epoch
	stop    *host.Knob // cgroup.freeze or freezer.state
	written int64      // weight in force; 0 is unknown
	idle    bool       // cpu.idle in force
	held    holder     // who keeps it frozen
	lane    bool       // in the dying lane: Apply leaves it alone
	fresh   bool       // at the weight of its start
	killed  bool       // once: who lives still needs more than cgroup.kill
	spare   bool       // v1: one process more than the cap is let in, until it has started
}

// holder is the set of those who froze a group. It runs again when the last
// lets go.
type holder uint8

const (
	heldByCall  holder = 1 << iota // Freeze: broke, paused, ^Z
	heldByPrice                    // Apply: the market's class is frozen
)

// Placement says where to start the workload.
func (g *Group) Placement() dispatch.Placement {
	p := dispatch.Placement{Enforcement: enforcementName, Cgroup: g.unified, CPUs: g.market.sold}
	for i, dir := range g.dirs {
		if !g.market.plan.places[i].v2 {
			p.Tasks = append(p.Tasks, filepath.Join(dir, "tasks"))
			p.Home = append(p.Home, filepath.Join(g.market.home[i], "tasks"))
		}
	}
	return p
}

// Directory is the base name of the group's directories, by which the next
// daemon adopts it.
func (g *Group) Directory() string { return g.name }

// Ref names the group to the meter.
func (g *Group) Ref() host.CgroupRef { return g.ref }

// Freeze stops the tree. It takes about 25 us and returns before the last
// thread has stopped.
func (g *Group) Freeze() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holdLocked(heldByCall)
}

// Thaw lets the tree run, whoever froze it.
func (g *Group) Thaw() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.releaseLocked(heldByCall | heldByPrice)
}

func (g *Group) holdLocked(who holder) error {
	if g.closed {
		return dispatch.ErrClosed
	}
	if g.guest == observed {
		return nil
	}
	if g.held == 0 {
		if err := g.writeStopLocked(true); err != nil {
			return err
		}
	}
	g.held |= who
	return nil
}

func (g *Group) releaseLocked(who holder) error {
	if g.closed {
		return dispatch.ErrClosed
	}
	if g.held == 0 {
		return nil
	}
	if g.held&^who == 0 {
		if err := g.writeStopLocked(false); err != nil {
			return err
		}
	}
	g.held &^= who
	return nil
}

func (g *Group) writeStopLocked(stop bool) error {
	switch {
	case g.guest == governed && g.found.frozen:
		return nil // by its owner, who thaws it
	case g.unified == "" && stop:
		return g.stop.WriteText("FROZEN")
	case g.unified == "":
		return g.stop.WriteText("THAWED")
	case stop:
		return g.stop.WriteInt(1)
	default:
		return g.stop.WriteInt(0)
	}
}

// enforce sets one epoch's weight; it allocates nothing unless it fails.
func (g *Group) enforce(frozen bool, t target, slack int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.lane || g.guest == observed {
		return nil
	}
	if g.spare {
		if err := g.capPids(g.limits.Pids); err != nil {
			return err
		}
		g.spare = false
	}
	if frozen {
		return g.holdLocked(heldByPrice)
	}
	if g.held&heldByPrice != 0 {
		if err := g.releaseLocked(heldByPrice); err != nil {
			return err
		}
	}
	if g.fresh {
		g.fresh = false
		if t.keep { // it started and sleeps: it is not to wake at the weight of its start
			t = target{weight: g.market.balance.span.usual}
		}
	}
	if t.keep || !t.idle && !g.idle && minor(g.written, t.weight, slack) {
		return nil
	}
	return g.weighLocked(t)
}

// neutral gives the group back the weight that the kernel gave it, to the unit, where
// it has another. A guest has its own back as soon as it is only observed.
func (g *Group) neutral() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	usual := g.market.balance.span.usual
	if g.closed || g.lane || g.foreign {
		return nil
	}
	if g.held&heldByPrice != 0 {
		if err := g.releaseLocked(heldByPrice); err != nil {
			return err
		}
	}
	g.fresh = false
	if g.written == usual && !g.idle {
		return nil
	}
	g.written = 0 // what is near it is not it
	return g.weighLocked(target{weight: usual})
}

func (g *Group) weighLocked(t target) error {
	if t = g.fit(t); t.keep {
		return nil
	}
	if t.idle != g.idle {
		if err := g.same(); err != nil {
			return err
		}
		// Rare: a loser's last tier. The file is not kept open.
		word := "0"
		if t.idle {
			word = "1"
		}
		if err := host.WriteOnce(g.cpu.file("cpu.idle"), word); err != nil {
			return err
		}
		g.idle, g.written = t.idle, g.market.balance.span.usual
	}
	if t.idle || near(g.written, t.weight) && g.written > 0 {
		return nil // an idle group refuses a weight
	}
	if err := g.weight.WriteInt(t.weight); err != nil {
		g.written = 0
		return err
	}
	g.written = t.weight
	return nil
}

// Lane opens the dying lane: the highest weight, so that 20 ms in 100 are
// really had beside rich neighbours, and a quota, so that they are all that is
// had. Closing it gives back the hard cap; the next epoch sets the weight.
func (g *Group) Lane(on bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return dispatch.ErrClosed
	}
	if on == g.lane || g.guest == observed {
		return nil
	}
	q := quotaOf(g.limits.Cores, capPeriod)
	span := g.market.balance.span
	t := target{weight: span.usual}
	if on {
		t.weight = span.most
		if lane := laneQuota(); lane.less(q) {
			q = lane
		}
	}
	if !g.foreign { // a guest's quota is its owner's
		if err := writeQuota(g.cpu.dir, g.cpu.v2, q); err != nil {
			return err
		}
	}
	g.lane = on
	return g.weighLocked(t)
}

// Signal sends a signal to every process of the tree. A frozen tree acts on
// it when it is thawed, unless it is fatal.
func (g *Group) Signal(sig syscall.Signal) error {
	if g.gone() {
		return dispatch.ErrClosed
	}
	if g.isObserved() {
		return nil
	}
	if g.same() != nil {
		return dispatch.ErrClosed
	}
	dir := g.roster()
	pids, err := members(dir)
	if err != nil {
		return err
	}
	return signalAll(dir, pids, sig)
}

// gone reports whether the daemon has left the group to itself. Of a group that
// was removed the kernel says so.
func (g *Group) gone() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left
}

// roster is the directory that knows the members.
func (g *Group) roster() string {
	if g.unified != "" {
		return g.unified
	}
	return g.freezer.dir
}

// Kill ends every process of the tree. With cgroup.kill it returns at once;
// repeat it if the tree is still populated an epoch later.
func (g *Group) Kill() error {
	g.mu.Lock()
	closed, idle, again := g.closed, g.guest == observed, g.killed
	g.killed = g.killed || !closed && !idle
	g.mu.Unlock()
	if closed {
		return dispatch.ErrClosed
	}
	if idle {
		return nil
	}
	if g.same() != nil {
		return dispatch.ErrClosed // whoever is there now is nobody's guest
	}
	err := killTree(g.roster(), g.unified != "")
	if again && err == nil && g.unified != "" {
		err = strike(g.unified)
	}
	return err
}

// Populated reports whether a live process is left in the tree.
func (g *Group) Populated() (bool, error) {
	if g.gone() {
		return false, dispatch.ErrClosed
	}
	if err := g.same(); err != nil {
		return false, err
	}
	if g.unified != "" {
		return event(g.unified, "populated")
	}
	return anyone(g.freezer.dir)
}

// Await waits until the tree is empty; ErrPopulated if it is not in time.
func (g *Group) Await(patience time.Duration) error {
	var err error
	var populated bool
	if until(patience, func() bool {
		populated, err = g.Populated()
		return err != nil || !populated
	}) {
		return err
	}
	return fmt.Errorf("%s: %w", g.name, dispatch.ErrPopulated)
}

// Counters reads the kernel's counters. The files are opened for it: it is
// meant for once a second and for the last reading.
func (g *Group) Counters() (dispatch.Counters, error) {
	var c dispatch.Counters
	if g.gone() {
		return c, dispatch.ErrClosed
	}
	var errs []error
	number := func(path, key string, scale int64) int64 {
		v, err := readNumber(path, key)
		if errors.Is(err, fs.ErrNotExist) {
			return 0 // an older kernel, or a machine without the controller
		}
		errs = append(errs, err)
		return v * scale
	}
	if g.unified != "" {
		c.CPU = unit.CoreTime(number(filepath.Join(g.unified, "cpu.stat"), "usage_usec", 1000))
	} else if g.usage.dir != "" {
		c.CPU = unit.CoreTime(number(g.usage.file("cpuacct.usage"), "", 1))
	}
	peak, err := g.PeakMemory()
	c.PeakMemory = peak
	errs = append(errs, err)
	switch {
	case g.memory.dir == "":
	case g.memory.v2:
		c.OOMKills = uint64(number(g.memory.file("memory.events"), "oom_kill", 1))
	default:
		c.OOMKills = uint64(number(g.memory.file("memory.oom_control"), "oom_kill", 1))
	}
	if g.pids.dir != "" {
		c.Processes = number(g.pids.file("pids.current"), "", 1)
		c.PidsRefused = uint64(number(g.pids.file("pids.events"), "max", 1))
	}
	if _, err := os.Stat(g.roster()); err != nil || g.same() != nil {
		return c, dispatch.ErrClosed
	}
	return c, errors.Join(errs...)
}

// PeakMemory reads the most memory that the tree ever had; zero where nobody
// counts it.
func (g *Group) PeakMemory() (unit.Bytes, error) {
	if g.gone() {
		return 0, dispatch.ErrClosed
	}
	if g.memory.dir == "" {
		return 0, nil
	}
	name := "memory.max_usage_in_bytes"
	if g.memory.v2 {
		name = "memory.peak" // since Linux 5.19
	}
	peak, err := readNumber(g.memory.file(name), "")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
		if _, gone := os.Stat(g.memory.dir); gone != nil {
			err = dispatch.ErrClosed
		}
	}
	return unit.Bytes(peak), err
}

func readNumber(path, key string) (int64, error) {
	f, err := host.OpenFile(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if key == "" {
		return f.ReadInt()
	}
	v, err := f.ReadKey(key)
	if errors.Is(err, host.ErrUnavailable) {
		return 0, nil
	}
	return v, err
}

// removePatience is how long Remove waits for processes that are just ending
// and for a client's thread that is just forking.
const removePatience = 100 * time.Millisecond

// Remove takes the group away. While processes are in it the error is
// ErrPopulated and nothing happens; a directory that is not free yet gives
// ErrPopulated too, and Remove can be repeated. Processes that escaped from
// the cgroup2 directory but are still in a v1 one were started by us and are
// ended. A guest is given back what it had and forgotten, and lives on.
func (g *Group) Remove() error {
	if g.foreign {
		return g.dismiss()
	}
	populated, err := g.Populated()
	if err != nil && !host.Gone(err) {
		return err
	}
	if populated {
		return fmt.Errorf("remove %s: %w", g.name, dispatch.ErrPopulated)
	}
	return g.dismantle()
}

// dismantle takes the directories of an unpopulated group away.
func (g *Group) dismantle() (err error) {
	g.removing.Lock()
	defer g.removing.Unlock()
	g.mu.Lock()
	if !g.closed {
		g.closed, g.rest = true, slices.Clone(g.dirs)
		err = g.closeKnobs()
	}
	g.mu.Unlock()
	if len(g.rest) == 0 {
		return dispatch.ErrClosed
	}
	for len(g.rest) > 0 {
		last := g.rest[len(g.rest)-1] // the identity goes last
		if unix.Rmdir(last) == nil {  // the rule; what follows is for what somebody left inside
			g.rest = g.rest[:len(g.rest)-1]
			continue
		}
		if last != g.unified {
			if _, swept := sweep(last, unix.SIGKILL, removePatience); swept != nil {
				return errors.Join(err, swept)
			}
		}
		gone := removeTree(last, removePatience)
		if errors.Is(gone, unix.EBUSY) {
			gone = fmt.Errorf("%w: %w", dispatch.ErrPopulated, gone)
		}
		if gone != nil {
			return errors.Join(err, gone)
		}
		g.rest = g.rest[:len(g.rest)-1]
	}
	g.market.forget(g)
	return err
}

// Settle freezes the tree and waits until nothing in it runs, so that its
// counters stand still. The caller thaws; after dispatch.ErrRunning too.
func (g *Group) Settle(patience time.Duration) error {
	if err := g.Freeze(); err != nil {
		return err
	}
	if g.isObserved() {
		return fmt.Errorf("settle %s: %w: it is only observed", g.name, dispatch.ErrRunning)
	}
	still := false
	var err error
	if g.unified != "" {
		still, err = host.WaitEvent(filepath.Join(g.unified, "cgroup.events"), "frozen", 1, patience)
	} else {
		still = until(patience, func() bool { return frozenV1(g.freezer.dir) })
	}
	if err == nil && !still {
		err = fmt.Errorf("settle %s: %w after %v", g.name, dispatch.ErrRunning, patience)
	}
	return err
}
