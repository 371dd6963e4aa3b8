package meter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Tracker is what a processes meter needs to be told beside the slot, because
// a process tree has no name of its own.
type Tracker interface {
	// Track says which process is the root of a slot's tree: the init of its
	// pid namespace, or the first process of its group. Its pid is as this
	// process numbers it.
	Track(slot, root int) error
	// Reaped gives the processor time of the root and of all it waited for, as
	// the launcher learned it from wait4.
	Reaped(slot int, used unit.CoreTime) error
}

// processes is the meter of machines on which nothing better is allowed. It
// keeps the processes of each tree and reads each one's own clock, exact and a
// third of a microsecond each. New processes are found by sweeps over /proc:
// children of members, and members of sessions and groups that a member leads.
//
// What is born and dies between two sweeps is seen only in the sum that the
// kernel keeps of children waited for; what nobody waits for is lost. So the
// charge is a lower bound, and every rule below keeps it one: of two counts of
// the same processes the larger is taken, never the sum.
type processes struct {
	proc    *host.Root
	machine machine
	sweep   time.Duration
	swept   time.Time

	slots   []tree
	live    []int32
	members map[int]*member
	leads   map[int]int32 // session or group id -> slot of the member that leads it

	gone    unit.CoreTime
	system  unit.CoreTime
	refused []error
	cost    cost
}

// tree is one slot. The zero value is an empty slot.
type tree struct {
	used   bool
	at     int32
	root   int           // pid; 0 until Track
	ended  unit.CoreTime // root and what it waited for, once it is dead
	reaped unit.CoreTime // the same as the launcher knows it
	orphan unit.CoreTime // dead members whose parent was not one
	wait   unit.CoreTime // of dead members
	last   Sample
}

// member is one process of a tree.
type member struct {
	slot   int32
	stat   processStat   // as of the last sweep
	clock  unit.CoreTime // its own time, dead threads included
	swept  unit.CoreTime // clock at the last sweep, when it was surely this process
	buried unit.CoreTime // totals of children seen dying
	waited unit.CoreTime // kernel's sum of children waited for, see look
	wait   unit.CoreTime // of its first thread
}

// total is what a member and its dead children used at least. The kernel's sum
// of children waited for and our own of children seen dying count the same
// children: the larger holds.
func (m *member) total() unit.CoreTime { return m.clock + max(m.buried, m.waited) }

const defaultSweep = 200 * time.Millisecond

func openProcesses(cfg Config, roots host.Roots, refused []error) (*processes, error) {
	m, err := openMachine(Config{}, roots)
	if err != nil {
		return nil, err
	}
	p := &processes{
		proc:    roots.Proc,
		machine: m,
		sweep:   cfg.Sweep,
		members: map[int]*member{},
		leads:   map[int]int32{},
		refused: refused,
	}
	if p.sweep == 0 {
		p.sweep = defaultSweep
	}
	if _, err := p.list(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return p, nil
}

// Add implements Meter. The group's directory is of no use here; Track says
// what to count.
func (p *processes) Add(slot int, _ host.CgroupRef) error {
	switch {
	case p.machine == nil:
		return errClosed
	case slot < 0 || slot >= MaxSlots:
		return &SlotError{slot, reasonRange}
	case slot < len(p.slots) && p.slots[slot].used:
		return &SlotError{slot, reasonTaken}
	}
	for len(p.slots) <= slot {
		p.slots = append(p.slots, tree{})
	}
	p.slots[slot] = tree{used: true, at: int32(len(p.live))}
	p.live = append(p.live, int32(slot))
	return nil
}

// Track implements Tracker.
func (p *processes) Track(slot, root int) error {
	t, err := p.tree(slot)
	if err != nil {
		return err
	}
	stat, err := p.stat(root)
	if err != nil {
		return fmt.Errorf("track process %d: %w", root, err)
	}
	t.root = root
	p.join(int32(slot), stat)
	return nil
}

// Reaped implements Tracker.
func (p *processes) Reaped(slot int, used unit.CoreTime) error {
	t, err := p.tree(slot)
	if err != nil {
		return err
	}
	t.reaped = max(t.reaped, used)
	return nil
}

func (p *processes) tree(slot int) (*tree, error) {
	if p.machine == nil {
		return nil, errClosed
	}
	if slot < 0 || slot >= len(p.slots) || !p.slots[slot].used {
		return nil, &SlotError{slot, reasonEmpty}
	}
	return &p.slots[slot], nil
}

// Remove implements Meter.
func (p *processes) Remove(slot int) (Sample, error) {
	if _, err := p.tree(slot); err != nil {
		return Sample{}, err
	}
	if err := p.look(); err != nil {
		return Sample{}, err
	}
	p.sum()
	t := &p.slots[slot]
	sample := t.last
	p.gone += sample.Run
	for pid, m := range p.members {
		if m.slot == int32(slot) {
			delete(p.members, pid)
		}
	}
	for id, owner := range p.leads {
		if owner == int32(slot) {
			delete(p.leads, id)
		}
	}
	last := p.live[len(p.live)-1]
	p.live[t.at] = last
	p.slots[last].at = t.at
	p.live = p.live[:len(p.live)-1]
	p.slots[slot] = tree{}
	return sample, nil
}

// Read implements Meter.
func (p *processes) Read(dst []Sample) (Node, error) {
	if p.machine == nil {
		return Node{}, errClosed
	}
	begin := threadTime()
	clear(dst)
	if time.Since(p.swept) >= p.sweep {
		if err := p.look(); err != nil {
			return Node{}, err
		}
	} else {
		for pid, m := range p.members {
			m.tick(pid)
		}
	}
	p.sum()
	governed := p.gone
	for _, slot := range p.live {
		t := &p.slots[slot]
		governed += t.last.Run
		if int(slot) < len(dst) {
			dst[slot] = t.last
		}
	}
	busy, err := p.machine.busy()
	if err != nil {
		return Node{}, err
	}
	self, err := selfTime()
	if err != nil {
		return Node{}, err
	}
	p.system = max(p.system, busy-governed)
	p.cost.add(max(0, threadTime()-begin), len(p.live))
	return Node{Busy: governed + p.system, System: p.system, Self: self}, nil
}

// ReadOne implements Meter. It reads the clocks of the members known.
func (p *processes) ReadOne(slot int) (Sample, error) {
	if _, err := p.tree(slot); err != nil {
		return Sample{}, err
	}
	for pid, m := range p.members {
		if m.slot == int32(slot) {
			m.tick(pid)
		}
	}
	p.sum()
	return p.slots[slot].last, nil
}

// sum adds up the members of each tree. Samples never go back.
func (p *processes) sum() {
	type totals struct {
		run, wait unit.CoreTime
		runnable  int32
	}
	for _, slot := range p.live {
		t := &p.slots[slot]
		t.last.Runnable = 0
	}
	sums := make(map[int32]*totals, len(p.live))
	for pid, m := range p.members {
		s := sums[m.slot]
		if s == nil {
			s = &totals{}
			sums[m.slot] = s
		}
		total := m.total()
		if t := &p.slots[m.slot]; pid == t.root {
			total = max(total, t.reaped)
		}
		s.run += total
		s.wait += m.wait
		if m.stat.state == 'R' {
			s.runnable++
		}
	}
	for _, slot := range p.live {
		t := &p.slots[slot]
		run, wait := t.orphan+max(t.ended, t.reaped), t.wait
		if s := sums[slot]; s != nil {
			if p.members[t.root] != nil {
				run = t.orphan // the root's own total is in the sum
			}
			run += s.run
			wait += s.wait
			t.last.Runnable = s.runnable
		}
		t.last.Run = max(t.last.Run, run)
		t.last.Wait = max(t.last.Wait, wait)
	}
}

// look sweeps over all processes: it finds new members and buries dead ones.
func (p *processes) look() error {
	p.swept = time.Now()
	all, err := p.list()
	if err != nil {
		return err
	}
	p.bury(all)
	for pid, stat := range all {
		m := p.members[pid]
		if m == nil {
			continue
		}
		// One sweep late: a child that was read as alive a moment before may
		// be in this sum already, and would count twice.
		m.waited = m.stat.waited
		m.stat = stat
		m.tick(pid)
		m.swept = m.clock
		m.wait = max(m.wait, p.delay(pid))
	}
	for pid := range all {
		p.adopt(all, pid, 0)
	}
	return nil
}

// bury passes the totals of dead members on to their parents, children first:
// a parent that died in the same sweep may have waited for them, and then they
// are in what its own parent, or the launcher, learns of it.
func (p *processes) bury(all map[int]processStat) {
	dead := p.dead(all)
	slices.SortFunc(dead, func(a, b grave) int { return b.depth - a.depth })
	for _, g := range dead {
		m := g.member
		delete(p.members, m.stat.pid)
		m.waited = m.stat.waited // all who are in it are buried by now
		t := &p.slots[m.slot]
		t.wait += m.wait
		switch parent := p.members[m.stat.parent]; {
		case m.stat.pid == t.root:
			t.ended = max(t.ended, m.total())
		case parent != nil && parent.slot == m.slot:
			parent.buried += m.total()
		default:
			t.orphan += m.total()
		}
	}
	// A number leads as long as somebody alive is in its session or group.
	kept := make(map[int]bool, len(p.leads))
	for _, stat := range all {
		kept[stat.session], kept[stat.group] = true, true
	}
	for id := range p.leads {
		if !kept[id] {
			delete(p.leads, id)
		}
	}
}

// grave is a dead member and the number of its ancestors that died with it.
type grave struct {
	member *member
	depth  int
}

func (p *processes) dead(all map[int]processStat) []grave {
	gone := func(m *member) bool {
		stat, alive := all[m.stat.pid]
		return !alive || stat.start != m.stat.start
	}
	var list []grave
	for pid, m := range p.members {
		if !gone(m) {
			continue
		}
		if _, reused := all[pid]; reused {
			// Another process has the number by now; since the last sweep the
			// clock may have been that one's.
			m.clock = m.swept
		}
		depth := 0
		for up := p.members[m.stat.parent]; up != nil && gone(up) && depth < len(p.members); depth++ {
			up = p.members[up.stat.parent]
		}
		list = append(list, grave{m, depth})
	}
	return list
}

// adopt makes a process a member if an ancestor is one, or if a member leads
// its session or group. It reports the slot.
func (p *processes) adopt(all map[int]processStat, pid, depth int) (int32, bool) {
	if m := p.members[pid]; m != nil {
		return m.slot, true
	}
	stat, ok := all[pid]
	if !ok || depth > len(all) {
		return 0, false
	}
	slot, ok := p.adopt(all, stat.parent, depth+1)
	if !ok {
		slot, ok = p.leads[stat.session]
	}
	if !ok {
		slot, ok = p.leads[stat.group]
	}
	if ok {
		p.join(slot, stat)
	}
	return slot, ok
}

func (p *processes) join(slot int32, stat processStat) {
	m := &member{slot: slot, stat: stat}
	m.tick(stat.pid)
	m.swept = m.clock
	m.wait = p.delay(stat.pid)
	p.members[stat.pid] = m
	if stat.session == stat.pid {
		p.leads[stat.pid] = slot
	}
	if stat.group == stat.pid {
		p.leads[stat.pid] = slot
	}
}

// tick reads a process's own clock: all its threads, the dead ones included.
// A zombie has none any more, and keeps the last value.
func (m *member) tick(pid int) {
	var ts unix.Timespec
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), include/linux/posix-timers_types.h
	if unix.ClockGettime(^int32(pid)<<3|2, &ts) == nil {
		m.clock = max(m.clock, unit.CoreTime(ts.Nano()))
	}
	m.clock = max(m.clock, m.stat.used)
}

// list reads the stat of every process. Those that end meanwhile are skipped.
func (p *processes) list() (map[int]processStat, error) {
	entries, err := p.proc.ReadDir(".")
	if err != nil {
		return nil, err
	}
	all := make(map[int]processStat, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if stat, err := p.stat(pid); err == nil {
			all[pid] = stat
		}
	}
	return all, nil
}

func (p *processes) stat(pid int) (processStat, error) {
	text, err := p.proc.ReadFile(strconv.Itoa(pid) + "/stat")
	if err != nil {
		return processStat{}, err
	}
	stat, ok := parseStat(text)
	if !ok || stat.pid != pid {
		return processStat{}, fmt.Errorf("read /proc/%d/stat: %q", pid, text)
	}
	return stat, nil
}

// delay is how long the first thread of a process has waited for processors
// that it got in the end; zero where the kernel does not say.
func (p *processes) delay(pid int) unit.CoreTime {
	text, err := p.proc.ReadFile(strconv.Itoa(pid) + "/schedstat")
	if err != nil {
		return 0
	}
	ns, ok := parseDelay(text)
	if !ok {
		return 0
	}
	return unit.CoreTime(ns)
}

// Describe implements Meter.
func (p *processes) Describe() Description {
	return Description{
		Kind:       Processes,
		Detail:     fmt.Sprintf("clocks of the processes found by a sweep every %s", p.sweep),
		Charge:     "charge is a lower bound: processes that live and die between two sweeps may be missed",
		Wait:       "a lower bound: first thread of each process, when it gets a processor",
		LowerBound: true,
		Refused:    p.refused,
		Cost:       p.cost.average(), Reads: p.cost.reads, Slots: p.cost.slots,
	}
}

// Close implements Meter.
func (p *processes) Close() error {
	if p.machine == nil {
		return nil
	}
	err := p.machine.close()
	p.machine, p.members, p.live, p.slots = nil, nil, nil, nil
	return err
}
