package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// member is one workload as the node holds it. Fields without a note belong
// to the loop's thread.
type member struct {
	slot     int32
	name     string
	serial   uint64 // never another's
	uid      uint32 // whose it is
	client   string // verb that started it
	admitted time.Time
	asked    *v1.AdmitRequest // its terms
	session  *session
	group    dispatch.Group // immutable
	limits   dispatch.Limits
	guest    string           // directory of a group that others made; empty = it is ours
	guestID  uint64           // of that group, which the next one of its name does not have
	base     unit.CoreTime    // what a guest had used before it was attached
	released bool             // it is to be let go
	leaving  *detaching       // whoever asked for it; nil = nobody did
	mode     demon.Enforce    // how far the market goes, but for its ceiling
	ruled    *demon.Admission // what its rule said last; nil = it has none
	observed atomic.Bool      // a guest that nothing is done to
	metered  bool
	started  bool
	windowed bool         // enforcement may have stopped it in the epoch that ended
	killed   bool         // SIGKILL was sent to the whole tree
	killing  bool         // a worker is to kill it: at most one job of a kind waits for each member
	killAt   unit.Instant // not again before
	watched  bool         // the kernel is to tell when its tree becomes empty
	emptied  bool         // the kernel told that it did
	gone     bool         // ending, and seen empty: nothing enters it any more
	askAt    unit.Instant // when to ask without having been told
	ending   bool         // its main process ended, or it is dying: ask whether it is empty
	awaited  unit.Instant // it ended while no daemon was there: until when its client may say how; 0 = it did not

	childExit  int32
	hasExit    bool
	batch      uint64       // of the last report
	saved      *demon.Saved // newest that the journal was handed; nil = none
	savedBatch uint64       // the last report in it

	// Written by the inspector and the workers, read by the loop.
	cpu         atomic.Int64 // where the enforcement itself counts (signal), ns
	peak        atomic.Int64
	ooms        atomic.Uint64
	pidsRefused atomic.Uint64
	processes   atomic.Int64

	explained     explained
	over          bool          // its tree is empty and its books are closed: its receipt is handed
	closed        *v1.Workload  // of a dead one of an earlier process: its last statement
	final         demon.Line    // at its burial
	spotPeakMilli int64         // likewise, as a multiple
	buried        chan struct{} // closed when the group is gone and the slot free
}

// id is what a person calls it when its name is another's by now.
func (mem *member) id() string { return strconv.FormatUint(mem.serial, 10) }

// highest is the most that it was allowed to bid when it was started. A ceiling for
// automatic bids says nothing about a fixed one: clients send the usual one with it.
func (mem *member) highest() unit.Price {
	if mem.asked.GetAuto() {
		return cmp.Or(unit.Price(mem.asked.GetMaxBidMilli()), demon.HighestAuto)
	}
	return cmp.Or(unit.Price(mem.asked.GetBidMilli()), demon.UsualBid)
}

// reason is why it ends when its client is gone.
func (mem *member) reason() apoptosis.Reason {
	if mem.awaited != 0 && !mem.hasExit {
		return apoptosis.Lost // it has ended by itself, nobody knows how
	}
	return apoptosis.Stopped
}

// askEvery is how often a tree that should be empty is asked when the kernel
// gave no notice that it is.
const askEvery = 50 * time.Millisecond

// populated asks the kernel only about those that may be empty, and when the
// kernel tells of empty trees, only after it did: a file read a workload a tick
// would cost a thousand workloads more than the market does.
func (mem *member) populated(now unit.Instant) bool {
	if mem.guest != "" {
		return mem.guestLives(now)
	}
	if !mem.ending {
		return mem.started
	}
	if mem.gone {
		return false
	}
	if !mem.emptied && now < mem.askAt {
		return true
	}
	mem.askAt = now + unit.Instant(askEvery)
	alive, err := mem.group.Populated()
	mem.emptied, mem.gone = false, err == nil && !alive
	return err != nil || alive
}

// inspect reads the kernel's counters of mem.
func (m *Market) inspect(mem *member) {
	c, err := mem.group.Counters()
	if err != nil {
		if !errors.Is(err, dispatch.ErrClosed) {
			m.fault("read counters of "+mem.name, err)
		}
		return
	}
	mem.peak.Store(max(mem.peak.Load(), int64(c.PeakMemory)))
	if m.duty {
		mem.cpu.Store(max(mem.cpu.Load(), int64(c.CPU)))
	}
	mem.ooms.Store(c.OOMKills)
	mem.processes.Store(c.Processes)
	mem.pidsRefused.Store(c.PidsRefused)
}

// inspectEvery is how often memory and process counters are read: a killed
// process is noticed within it.
const inspectEvery = 100 * time.Millisecond

// lastLook reads what a burial needs of the kernel's counters.
func (m *Market) lastLook(mem *member) {
	if m.inspects(mem) {
		m.inspect(mem)
		return
	}
	peak, err := mem.group.PeakMemory()
	if err != nil && !errors.Is(err, dispatch.ErrClosed) {
		m.fault("read peak memory of "+mem.name, err)
	}
	mem.peak.Store(max(mem.peak.Load(), int64(peak)))
}

// inspects reports whether the counters of mem are read while it lives.
func (m *Market) inspects(mem *member) bool {
	return mem.limits.Memory > 0 || mem.limits.Pids > 0 || m.duty
}

// inspectOneMore notes that the inspector has a member more.
func (m *Market) inspectOneMore() {
	if m.inspected.Add(1) == 1 {
		select {
		case m.toInspect <- struct{}{}:
		default:
		}
	}
}

// inspector reads the counters of every workload that has such a cap, or that
// only its enforcement can count, ten times a second. All others are read once,
// at their burial; while there is none it sleeps. Owner: Market; end: quit.
func (m *Market) inspector() {
	ticker := time.NewTicker(inspectEvery)
	defer ticker.Stop()
	for {
		beat := ticker.C
		if m.inspected.Load() == 0 {
			ticker.Stop()
			beat = nil
		}
		select {
		case <-m.quit:
			return
		case <-m.toInspect:
			ticker.Reset(inspectEvery)
			continue
		case <-beat:
		}
		var list []*member
		m.loop.do(func() {
			for _, mem := range m.loop.members {
				if mem != nil && !mem.ending && m.inspects(mem) {
					list = append(list, mem)
				}
			}
		})
		for _, mem := range list {
			m.inspect(mem)
		}
	}
}

// term opens the dying lane: SIGTERM, a little time, and nothing holds it.
func (m *Market) term(mem *member) {
	m.try("open dying lane of", mem, func() error { return mem.group.Lane(true) })
	m.try("send SIGTERM to", mem, func() error { return mem.group.Signal(syscall.SIGTERM) })
	m.try("thaw", mem, mem.group.Thaw)
	m.loop.do(func() { mem.ending = true })
}

// kill ends the whole tree. The demon asks again at every tick until it is
// empty.
func (m *Market) kill(mem *member) {
	m.try("kill", mem, mem.group.Kill)
	m.loop.do(func() {
		// Once: a tree that takes its time to die is asked about at every tick.
		m.loop.hurry = m.loop.hurry || !mem.killed
		mem.ending, mem.killed, mem.killing = true, true, false
	})
}

// buryTries and buryWait bound the wait for a killed tree's directory to
// become removable.
const (
	buryTries = 200
	buryWait  = 5 * time.Millisecond
)

// bury removes an empty group and frees its slot. While a journal lasts, the group
// stays until the end is in it: whoever comes after a crash finds one of the two.
func (m *Market) bury(mem *member) {
	m.lastLook(mem)
	if mem.guest != "" { // it had no first process of ours that could tell
		m.loop.do(func() { mem.hasExit = true })
	}
	escaped := ""
	if g, ok := mem.group.(interface{ Unheld() string }); ok {
		escaped = g.Unheld()
	}
	m.hw.Lock()
	if mem.metered {
		if _, err := m.meter.Remove(int(mem.slot)); err != nil {
			m.fault("stop metering "+mem.name, err)
		}
	}
	m.hw.Unlock()
	if m.durable() {
		m.loop.do(func() {}) // the tick that buried it is over
		if err := m.keeper.settled(context.Background(), m.done); err != nil {
			m.fault("keep the end of "+mem.name, err)
		}
	}
	m.unmake(mem)
	told := m.loop.do(func() {
		mem.final.Peak = max(mem.final.Peak, unit.Bytes(mem.peak.Load()))
		m.loop.demon.SetPeak(mem.slot, mem.final.Peak)
		m.loop.demon.Release(mem.slot)
		m.loop.note(escaped)
		m.loop.members[mem.slot] = nil
		delete(m.loop.serials, mem.serial)
		if m.inspects(mem) {
			m.inspected.Add(-1)
		}
		mem.session.lost(mem)
		m.loop.record(m.receiptNotes(mem)...)
		m.remember(mem) // at once: whoever looks finds it among the living or the dead
	})
	if !told {
		m.remember(mem)
	}
	close(mem.buried)
}

// unmake removes the group of an ended tree, and kills what is left in it.
func (m *Market) unmake(mem *member) {
	for try := range buryTries {
		err := mem.group.Remove()
		if err == nil || errors.Is(err, dispatch.ErrClosed) {
			break
		}
		if !errors.Is(err, dispatch.ErrPopulated) || try == buryTries-1 {
			m.fault("remove group of "+mem.name, err)
			break
		}
		m.try("kill", mem, mem.group.Kill)
		time.Sleep(buryWait)
	}
}

// try runs one action on a group. A group that is already gone needs nothing.
func (m *Market) try(what string, mem *member, f func() error) {
	if err := f(); err != nil && !errors.Is(err, dispatch.ErrClosed) {
		m.fault(fmt.Sprintf("%s %s", what, mem.name), err)
	}
}

// exitCode is what `maxwell run` returns for a line (DESIGN section 6).
func exitCode(l *demon.Line, childExit int32, hasExit bool) int32 {
	if l.State != apoptosis.Dead {
		return 0
	}
	if code := l.Reason.ExitCode(); code != apoptosis.ChildsOwn {
		return int32(code)
	}
	if hasExit {
		return childExit
	}
	return 128 + int32(syscall.SIGKILL)
}
