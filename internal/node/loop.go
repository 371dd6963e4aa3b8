package node

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// loop is the locked thread that owns the demon.
type loop struct {
	m     *Market
	demon *demon.Demon
	clock clock
	wake  int // eventfd: commands are waiting

	deathFD int // readable when trees became empty; -1 if nobody tells
	deaths  []int
	queue   chan func()

	members []*member          // by slot; nil = none
	serials map[uint64]*member // those that are admitted and not buried
	in      demon.Input
	out     demon.Decisions
	samples []meter.Sample
	shares  []dispatch.Share
	gates   []gate
	look    unit.Instant // not at the gates before

	tariff   demon.Tariff // last known
	grid     unit.PPM     // factor in force in the journal; 0 = it never changed
	gridKept demon.Tariff // that is in the journal

	next     unit.Instant // of the next tick
	last     unit.Instant // of the last tick
	idle     bool         // nobody is in the market, and next is far
	hurry    bool         // tick soon: somebody waits for what it decides
	after    []func()     // to run when the next tick is done
	ticks    atomic.Uint64
	crowd    atomic.Bool // more workloads than ticks can be brought forward for
	lateMax  time.Duration
	peak     unit.Rate // highest spot
	applied  unit.Instant
	refilled unit.Instant // when somebody last asked for the wallets
	unheld   []string     // what enforcement could not hold, so far
	more     bool         // commands wait that nobody wakes the loop for
	ending   bool

	late sync.Mutex // after the loop's end: guards the demon, which notes even while it is looked at
}

// mostUnheld bounds the list for people: the first few tell what kind it is.
const mostUnheld = 8

// note remembers what enforcement could not hold.
func (l *loop) note(unheld string) {
	if unheld != "" && len(l.unheld) < mostUnheld && !slices.Contains(l.unheld, unheld) {
		l.unheld = append(l.unheld, unheld)
	}
}

// clock is CLOCK_MONOTONIC by way of the runtime, which asks the vDSO: the loop
// looks at it several thousand times a second when many are about to go broke.
type clock struct {
	base   unit.Instant
	anchor time.Time
}

func newClock() clock { return clock{base: host.Clock{}.Now(), anchor: time.Now()} }

// Now is the time on the monotonic clock.
func (c clock) Now() unit.Instant { return c.base + unit.Instant(time.Since(c.anchor)) }

// gate is a slot that may exhaust a limit before the next tick.
type gate struct {
	slot  int32
	limit unit.CoreTime // run at which it is exhausted
	cores unit.MilliCores
	soft  bool
	due   unit.Instant // when it must be looked at
}

// queueLength bounds the commands that wait for the loop. A client that sends
// more waits: commands are never dropped.
const queueLength = 1024

// Gates are looked at from two milliseconds before the predicted moment, every
// fifth of one: closer costs more than the core time it saves. Many gates share
// the cores, so each comes closer more slowly: the step grows with their
// number, the core time that is overrun in a step does not.
const (
	gateEarly  = 2 * time.Millisecond
	gateStep   = 200 * time.Microsecond
	gatesAStep = 4
	// What only pacing would stop may run over: the next epochs take it back.
	softSteps  = 16 // of an epoch
	crowdSteps = 4  // of the longer epoch of a crowd
)

func newLoop(m *Market) (*loop, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open wake descriptor: %w", err)
	}
	l := &loop{m: m, wake: fd, clock: newClock(), deathFD: -1, queue: make(chan func(), queueLength), serials: make(map[uint64]*member)}
	if w, ok := m.enforcer.(watcher); ok {
		l.deathFD = w.DeathFD()
	}
	return l, nil
}

// do runs f on the loop's thread and waits for it. It returns false when the
// loop has ended and f did not run.
func (l *loop) do(f func()) bool {
	done := make(chan struct{})
	select {
	case l.queue <- func() { f(); close(done) }:
	case <-l.m.done:
		return false
	}
	l.poke()
	select {
	case <-done:
		return true
	case <-l.m.done:
		return false
	}
}

// ask runs f, which changes nothing, on the loop's thread and waits for it; after the
// loop's end, when the demon is nobody's, on the caller's, one at a time.
func (l *loop) ask(f func()) {
	if !l.do(f) {
		l.late.Lock()
		defer l.late.Unlock()
		f()
	}
}

// post runs f on the loop's thread, before whatever is sent later, and does not
// wait for it: it is run when the loop wakes for something, at the latest at
// its next tick. It returns false when the loop has ended.
func (l *loop) post(f func()) bool {
	select {
	case l.queue <- f:
		return true
	case <-l.m.done:
		return false
	}
}

// hasten runs f on the loop's thread and waits for it. It brings the next tick
// forward, and wakes the loop, only where that is worth it: not in a crowd.
func (l *loop) hasten(f func()) bool {
	if !l.crowd.Load() {
		return l.do(func() { f(); l.hurry = true })
	}
	done := make(chan struct{})
	if !l.post(func() { f(); close(done) }) {
		return false
	}
	select {
	case <-done:
		return true
	case <-l.m.done:
		return false
	}
}

// through runs f on the loop's thread and waits until the tick after it has
// been carried out, or the market has ended.
func (l *loop) through(f func()) {
	done := make(chan struct{})
	ok := l.do(func() {
		f()
		l.hurry = true
		l.after = append(l.after, func() { close(done) })
	})
	if !ok {
		return
	}
	select {
	case <-done:
	case <-l.m.done:
	}
}

func (l *loop) poke() {
	one := [8]byte{1}
	// A full eventfd means that it is already readable: nothing to do.
	_, _ = unix.Write(l.wake, one[:])
}

// run is the thread's whole life.
func (l *loop) run() {
	runtime.LockOSThread()
	if p := host.RaisePriority(); p.Why != nil {
		l.m.log.Info("loop", "priority", p.String(), "why", p.Why)
	}
	l.last = l.clock.Now()
	l.applied = l.last
	l.next = l.last + unit.Instant(demon.ShortEpoch)
	for !l.ending {
		l.sleep(l.deadline())
		l.commands()
		now := l.clock.Now()
		l.rouse(now)
		if now >= l.deadlineOfTick() {
			l.tick(now)
			continue
		}
		l.watchGates(now)
	}
	l.commands()
	l.record()
}

// deadline is the next moment at which the loop has something to do.
func (l *loop) deadline() unit.Instant {
	if l.more {
		return l.last
	}
	at := l.deadlineOfTick()
	if len(l.gates) == 0 {
		return at
	}
	first := l.gates[0].due
	for i := range l.gates {
		first = min(first, l.gates[i].due)
	}
	return min(at, max(first, l.look))
}

// hurryEvery is the least time between two ticks, however much of a hurry
// there is: a hundred burials a second must not become a hundred ticks. In a
// crowd, whose ticks are long, nobody's hurry brings one forward.
const hurryEvery = 4 * time.Millisecond

// deadlineOfTick is when the next tick is due.
func (l *loop) deadlineOfTick() unit.Instant {
	if l.hurry && !l.crowd.Load() {
		return min(l.next, l.last+unit.Instant(hurryEvery))
	}
	return l.next
}

// sleep waits until the deadline or a poke, whichever is first.
func (l *loop) sleep(until unit.Instant) {
	fds := [2]unix.PollFd{{Fd: int32(l.wake), Events: unix.POLLIN}, {Fd: int32(l.deathFD), Events: unix.POLLIN}}
	for {
		left := max(0, time.Duration(until-l.clock.Now()))
		n, err := host.Poll(fds[:], left)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			panic(fmt.Sprintf("node: wait for the next tick: %v", err))
		}
		if fds[1].Revents != 0 {
			l.mourn()
		}
		if n > 0 && fds[0].Revents != 0 {
			var drop [8]byte
			_, _ = unix.Read(l.wake, drop[:])
		}
		return
	}
}

// watcher is an enforcement that is told by the kernel when a tree is empty.
type watcher interface {
	DeathFD() int
	Watch(slot int) error
	Deaths(list []int) ([]int, error)
}

// watch asks to be woken when the tree of mem, which is ending, becomes empty.
// It may have become so since it was asked: it is asked again at the next tick.
func (l *loop) watch(mem *member) {
	mem.watched, mem.askAt = true, 0
	if w, ok := l.m.enforcer.(watcher); ok {
		if err := w.Watch(int(mem.slot)); err != nil {
			l.m.fault("watch for the death of "+mem.name, err)
		}
	}
}

// mourn notes whose trees became empty. Somebody waits for the burial of those
// that are ending.
func (l *loop) mourn() {
	list, err := l.m.enforcer.(watcher).Deaths(l.deaths[:0])
	if err != nil {
		l.m.fault("read deaths", err)
		l.deathFD = -1 // asked from time to time instead
		return
	}
	l.deaths = list
	for _, slot := range list {
		if slot >= len(l.members) || l.members[slot] == nil {
			continue
		}
		mem := l.members[slot]
		mem.emptied = true
		l.hurry = l.hurry || mem.ending
	}
}

// commandsWhenDue is how many commands run before a tick that is due: callers who keep
// the queue full wait for it, and not it for them.
const commandsWhenDue = 16

// commands runs what waits in the queue; when a tick is due, not all of it.
func (l *loop) commands() {
	l.more = false
	for due := 0; ; {
		select {
		case f := <-l.queue:
			f()
		default:
			return
		}
		if l.clock.Now() < l.deadlineOfTick() || l.ending {
			continue
		}
		if due++; due >= commandsWhenDue {
			l.more = true
			return
		}
	}
}

// tick settles the epoch and starts the next one.
func (l *loop) tick(now unit.Instant) {
	if now <= l.last {
		return
	}
	l.hurry = false
	if now >= l.next {
		l.lateMax = max(l.lateMax, time.Duration(now-l.next))
	}
	l.ticks.Add(1)
	l.maybePanic("loop")
	if l.m.settings.PanicIn == "worker" && l.ticks.Load() == l.m.settings.PanicAtTick {
		l.m.work(func() { l.maybePanic("worker") })
	}
	l.read(now)
	l.demon.Step(&l.in, &l.out)
	l.last = now
	l.crowd.Store(l.demon.Alive() > demon.ShortUpTo)
	l.peak = max(l.peak, l.out.Ended.Outcome.Spot)
	notes := l.act()
	l.apply(now)
	notes = append(notes, l.tell()...)
	l.m.trace.write(l)
	l.record(notes...)
	l.arm(now)
	l.schedule(now)
	for _, f := range l.after {
		f()
	}
	clear(l.after)
	l.after = l.after[:0]
}

// idleEpoch is the time between two ticks of a market in which nobody is: there is
// nothing to price, and a daemon that waits for work is to cost nothing.
const idleEpoch = time.Second

// schedule sets the next tick on the grid of epochs; a loop that fell behind
// starts a new grid rather than running after the old one.
func (l *loop) schedule(now unit.Instant) {
	epoch := l.out.Epoch
	if l.idle = l.demon.Alive() == 0 && !l.m.watched(); l.idle {
		epoch = idleEpoch
	}
	l.next += unit.Instant(epoch)
	if l.next <= now+unit.Instant(epoch/4) || l.next > now+unit.Instant(2*epoch) {
		l.next = now + unit.Instant(epoch)
	}
}

// rouse ends the long epoch of a market in which nobody was, now that somebody is.
func (l *loop) rouse(now unit.Instant) {
	if l.idle && l.demon.Alive() > 0 {
		l.idle, l.next = false, now
	}
}

// read collects the world. Whether a tree is empty is asked before the meter
// is read, so that the last reading of an empty tree is its final one.
func (l *loop) read(now unit.Instant) {
	in := &l.in
	in.Now = now
	l.readGrid()
	for slot, mem := range l.members {
		if mem == nil {
			continue
		}
		if mem.awaited != 0 && now >= mem.awaited && !mem.ending {
			mem.ending = true
			l.demon.Stop(int32(slot), mem.reason())
		}
		in.Usage[slot].Populated = mem.populated(now)
		if mem.ending && in.Usage[slot].Populated && !mem.watched {
			l.watch(mem)
		}
		in.Usage[slot].PeakMemory = unit.Bytes(mem.peak.Load())
		in.Usage[slot].OOMKills = mem.ooms.Load()
		in.Usage[slot].PidsRefused = mem.pidsRefused.Load()
		in.Usage[slot].Processes = mem.processes.Load()
	}
	l.m.hw.Lock()
	node, err := l.m.meter.Read(l.samples)
	l.m.hw.Unlock()
	if err != nil {
		l.m.fault("read meter", err)
	}
	for slot, mem := range l.members {
		if mem == nil || !mem.metered {
			continue
		}
		u, s := &in.Usage[slot], &l.samples[slot]
		u.Stopped = mem.windowed
		u.Run, u.Wait, u.Runnable = max(u.Run, s.Run, unit.CoreTime(mem.cpu.Load())), max(u.Wait, s.Wait), s.Runnable
	}
	in.Busy, in.System = max(in.Busy, node.Busy), max(in.System, node.System)
	l.m.self.Store(int64(node.Self))
	reading, err := l.m.sensor.Read(now, in.Busy)
	if err != nil {
		l.m.fault("read energy", err)
		return // the last reading stands: no energy is invented
	}
	in.Reading = reading
}

// killAgain is when a tree that is still not empty is killed once more: what
// was killed needs a moment to die, and the demon asks at every tick.
const killAgain = 100 * time.Millisecond

// act carries out the demon's actions: what is quick here, the rest by worker.
func (l *loop) act() (notes []note) {
	for _, a := range l.out.Actions {
		mem := l.members[a.Slot]
		if mem == nil {
			continue
		}
		switch a.Kind {
		case demon.Freeze:
			l.m.try("freeze", mem, mem.group.Freeze)
		case demon.Thaw:
			l.m.try("thaw", mem, mem.group.Thaw)
		case demon.Term:
			l.m.work(func() { l.m.term(mem) })
		case demon.Kill:
			if now := l.last; !mem.killing && now >= mem.killAt {
				mem.killing, mem.killAt = true, now+unit.Instant(killAgain)
				l.m.work(func() { l.m.kill(mem) })
			}
		case demon.Bury:
			if line, ok := l.demon.LineOf(a.Slot); ok {
				mem.final = line
				mem.final.Power, mem.final.CoresNow = 0, 0 // the dead burn nothing
			}
			mem.spotPeakMilli, mem.over = l.m.multiple(l.peak), true
			notes = append(notes, l.m.receiptNotes(mem)...)
			l.m.burials <- mem
		}
	}
	return notes
}

// silent is how long a workload may run at its start's weight before its client
// said that it started.
const silent = unit.CoreTime(demon.ShortEpoch)

// apply hands the shares of the coming epoch to enforcement.
func (l *loop) apply(now unit.Instant) {
	l.shares = l.shares[:0]
	for i := range l.out.Shares {
		s := &l.out.Shares[i]
		mem := l.members[s.Slot]
		if mem == nil || !mem.started && l.in.Usage[s.Slot].Run < silent {
			continue
		}
		// Where enforcement stops and goes, a share that is not the whole demand
		// hides the demand.
		mem.windowed = l.m.duty && !s.Neutral && s.Allocation.Class != market.Served && s.Allocation.Class != market.Idle
		l.shares = append(l.shares, dispatch.Share{
			Slot: int(s.Slot), Neutral: s.Neutral, Class: uint8(s.Allocation.Class), Tier: s.Allocation.Tier,
			Granted: s.Allocation.Time, Used: s.Used, Demand: s.Demand,
		})
	}
	if err := l.m.enforcer.Apply(time.Duration(now-l.applied), l.shares); err != nil {
		l.m.fault("apply shares", err)
	}
	l.applied = now
}

// tell passes the demon's events to the clients they concern, and to history.
func (l *loop) tell() (notes []note) {
	for i := range l.out.Events {
		e := &l.out.Events[i]
		mem := l.members[e.Slot]
		if mem == nil || e.Kind == demon.EventAdmitted {
			continue
		}
		l.m.entrust(mem, e)
		told := l.m.event(l, mem, e)
		l.m.chronicle.add(mem.uid, told)
		notes = append(notes, l.m.eventNotes(mem.uid, told)...)
		if e.Kind != demon.EventStarted { // the client did that itself
			mem.session.push(told)
		}
	}
	return notes
}

// arm computes when each gate has to be looked at.
func (l *loop) arm(now unit.Instant) {
	l.gates = l.gates[:0]
	for _, g := range l.out.Gates {
		limit := l.in.Usage[g.Slot].Run + g.Allowance
		l.gates = append(l.gates, gate{slot: g.Slot, limit: limit, cores: g.Cores, soft: g.Soft, due: due(now, g.Allowance, g.Cores, g.Soft)})
	}
}

// due is the earliest moment at which left core time can be used up by cores,
// less the early start where nothing may run over.
func due(now unit.Instant, left unit.CoreTime, cores unit.MilliCores, soft bool) unit.Instant {
	wall := time.Duration(unit.MulDiv(max(0, int64(left)), 1000, max(1, int64(cores))))
	if soft {
		return now + unit.Instant(wall)
	}
	return now + unit.Instant(max(0, wall-gateEarly))
}

// watchGates reads the slots whose moment has come and freezes the exhausted.
// All that are due are looked at together, and not again within a step.
func (l *loop) watchGates(now unit.Instant) {
	if len(l.gates) == 0 || now < l.look {
		return
	}
	l.look = now + unit.Instant(l.gateStep(now))
	keep := l.gates[:0]
	l.m.hw.Lock()
	defer l.m.hw.Unlock()
	for _, g := range l.gates {
		if g.due > now || !l.passes(&g, now) {
			keep = append(keep, g)
		}
	}
	l.gates = keep
}

// gateStep is how long to look away from the gates.
func (l *loop) gateStep(now unit.Instant) time.Duration {
	step := l.out.Epoch / softSteps
	if l.out.Epoch > demon.ShortEpoch {
		step = l.out.Epoch / crowdSteps
	}
	hard := 0
	for i := range l.gates {
		if !l.gates[i].soft && l.gates[i].due <= now+unit.Instant(step) {
			hard++
		}
	}
	if hard > 0 {
		step = min(step, gateStep*time.Duration(max(1, hard/gatesAStep)))
	}
	return step
}

// passes reports whether a gate is done with: its slot is exhausted and was
// frozen, or is gone. Otherwise it says when to look again at the earliest.
func (l *loop) passes(g *gate, now unit.Instant) bool {
	mem := l.members[g.slot]
	if mem == nil {
		return true
	}
	s, err := l.m.meter.ReadOne(int(g.slot))
	if err != nil {
		l.m.fault("read meter of "+mem.name, err)
		return true
	}
	if s.Run < g.limit {
		g.due = due(now, g.limit-s.Run, g.cores, g.soft)
		return false
	}
	l.m.try("freeze", mem, mem.group.Freeze)
	l.demon.Exhausted(g.slot)
	return true
}

// has reports whether mem still sits in its slot: after its burial the slot
// may be another's, and a late word about mem must not be taken for one.
func (l *loop) has(mem *member) bool {
	return int(mem.slot) < len(l.members) && l.members[mem.slot] == mem
}

// seat makes room for slot in every table indexed by it.
func (l *loop) seat(slot int32) {
	for int(slot) >= len(l.members) {
		l.members = append(l.members, nil)
		l.samples = append(l.samples, meter.Sample{})
		l.in.Usage = append(l.in.Usage, demon.Usage{})
	}
	l.in.Usage[slot] = demon.Usage{}
	l.samples[slot] = meter.Sample{}
}

// maybePanic is how tests see what a panic does; nobody else sets these.
func (l *loop) maybePanic(where string) {
	s := &l.m.settings
	if s.PanicAtTick == 0 || s.PanicIn != where || l.ticks.Load() < s.PanicAtTick {
		return
	}
	panic(fmt.Sprintf("node: asked to panic in the %s at tick %d", where, l.ticks.Load()))
}
