package node

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// settlePatience bounds the wait for a group to stand still while its counter is
// read. A task that the kernel cannot stop (in uninterruptible sleep) runs nothing.
const settlePatience = 200 * time.Millisecond

// readopt takes a workload back: its group is stopped for a moment, so that what it
// used until now and what it will use meet at one reading. One whose tree has ended
// is billed and buried.
func (m *Market) readopt(mem *member, a *alive, sameBoot bool) error {
	if !sameBoot {
		return errNoGroup
	}
	if err := m.regroup(mem, a); err != nil {
		return err
	}
	group := mem.group.(dispatch.Lasting)
	if err := group.Settle(settlePatience); err != nil && !errors.Is(err, dispatch.ErrRunning) {
		return err
	}
	if err := m.meter.Add(int(mem.slot), group.Ref()); err != nil {
		return err
	}
	run, err := m.usedBefore(mem, group)
	if err != nil {
		return err
	}
	populated, err := group.Populated()
	if err != nil {
		return err
	}
	if a.Guest != "" && a.GroupID == 0 {
		// Saved by an older Maxwell before it was metered: what the group had used before
		// is not known, and nobody's bill.
		a.Base = run - a.Saved.Run
		mem.base = a.Base
	}
	run -= a.Base
	if !populated && m.decided(mem, a) {
		return m.buryEnded(mem, a, run)
	}
	// What its client told, or may have told, the daemon that was not there any more
	// to keep it.
	a.Saved.Started = a.Saved.Started || populated
	if a.Exited && !a.Saved.Ended {
		a.Saved.Ended, a.Saved.Signaled = true, a.Saved.Started && a.Exit > 128
	}
	slot, gap, err := m.loop.demon.Readopt(m.loop.clock.Now(), a.Saved, run)
	if err != nil {
		return err
	}
	if slot != mem.slot {
		panic(fmt.Sprintf("node: %s was to have slot %d and has %d", mem.name, mem.slot, slot))
	}
	m.loop.seat(slot)
	mem.metered, mem.started, mem.ending, mem.saved = true, a.Saved.Started, mem.hasExit, &a.Saved
	m.loop.members[slot], m.loop.serials[mem.serial] = mem, mem
	m.names[mem.name] = mem
	m.lodge(mem)
	mem.session.add(mem)
	if m.inspects(mem) {
		m.inspectOneMore()
	}
	if !populated && mem.started && !mem.hasExit { // its client comes and tells how it ended
		mem.awaited = m.loop.clock.Now() + unit.Instant(resumeAfterRestart)
	}
	m.log.Info("taken back", "workload", mem.name, "gap", time.Duration(gap.CPU).String(), "cost", gap.Cost.Short(), "loss", gap.Loss.Short())
	if !m.loop.demon.Frozen(slot) {
		return group.Thaw()
	}
	return nil
}

// regroup gives a workload of an earlier process its group back.
func (m *Market) regroup(mem *member, a *alive) error {
	e, ok := m.enforcer.(dispatch.Keeper)
	switch {
	case !ok || a.Directory == "" && a.Guest == "":
		return errNoGroup
	case a.Guest != "":
		return m.reattach(mem, a)
	}
	m.recast(mem, a)
	group, err := e.Adopt(int(mem.slot), a.Directory, mem.limits)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoGroup
	}
	if err != nil {
		return err
	}
	mem.group = group
	return nil
}

// jointTries bounds the search for a moment in which nothing of a group is counted. One
// that was stopped has it at once, but for its last task on its way off the processor.
const jointTries = 100

// usedBefore is what a group had used when its meter began: the kernel's counter now,
// less what the meter has seen since. A group is said to stand still while its last
// task still has to be switched out, and what that ran is added then, to both.
func (m *Market) usedBefore(mem *member, group dispatch.Lasting) (unit.CoreTime, error) {
	for try := 0; ; try++ {
		before, err := m.meter.ReadOne(int(mem.slot))
		if err != nil {
			return 0, err
		}
		c, err := group.Counters()
		if err != nil {
			return 0, err
		}
		after, err := m.meter.ReadOne(int(mem.slot))
		if err != nil {
			return 0, err
		}
		if before.Run == after.Run || try == jointTries {
			return c.CPU - after.Run, nil
		}
	}
}
