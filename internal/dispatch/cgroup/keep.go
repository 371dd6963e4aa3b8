package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	// daemonPatience is how long the workloads of a dead daemon stay as it left
	// them: a restart is over by then, and what runs unmetered is little.
	daemonPatience = 2 * time.Second
	keeperPause    = 20 * time.Millisecond  // between two looks
	laneTime       = 250 * time.Millisecond // for the handlers of SIGTERM
)

// turnAttr names the daemon whose turn it is at a root, written when its
// watchdog is on guard. The watchdog of an earlier one goes when it reads
// another name: a lock that was free for a moment would tell it less.
const turnAttr = "maxwell.turn"

// newTurn is a word that no other daemon of this boot has.
func newTurn() string { return fmt.Sprintf("%d-%d", os.Getpid(), host.Clock{}.Now()) }

// keeper does a daemon's duty while there is none: the solvent run, the held
// stay stopped until their grace ends.
type keeper struct {
	orders
	held map[string]unit.Instant // directory name -> end of its grace, 0 for never
	list []Action
}

// keep waits for the next daemon, then acts; settled is called when the solvent
// run. The locks are held only while it acts, so that a daemon can come at any
// time. It returns when there is nothing left to wait for.
func (k *keeper) keep(patience time.Duration, settled func()) {
	var clock host.Clock
	for end := clock.Now().Add(patience); clock.Now() < end; time.Sleep(keeperPause) {
		if !k.ours() {
			return
		}
	}
	if !k.act(k.relieve) {
		return
	}
	settled()
	for k.ours() {
		due, waiting := k.due(clock.Now())
		switch {
		case len(due) > 0:
			if !k.act(func() { k.end(due) }) {
				return
			}
		case !waiting:
			return
		default:
			time.Sleep(keeperPause)
		}
	}
}

// due names the held whose grace is over, sorted; waiting says that there are
// others with an end.
func (k *keeper) due(now unit.Instant) (list []string, waiting bool) {
	for name, until := range k.held {
		switch {
		case until == 0:
		case until <= now:
			list = append(list, name)
		default:
			waiting = true
		}
	}
	slices.Sort(list)
	return list, waiting
}

// ours reports whether nobody has come since: no other daemon, and no repair,
// which takes the name away.
func (k *keeper) ours() bool {
	return len(k.Roots) > 0 && attr(k.Roots[0].Dir, turnAttr) == k.Turn
}

// act does something with all locks held. It waits for whoever has one: a dead
// daemon's child between fork and exec, or a daemon that has come and has no
// watchdog of its own yet, and may die before it has.
func (k *keeper) act(do func()) bool {
	for ; k.ours(); time.Sleep(keeperPause) {
		locks, err := k.lock()
		if err == nil && k.ours() {
			do()
			for _, l := range locks {
				_ = l.Close()
			}
			return true
		}
		for _, l := range locks {
			_ = l.Close()
		}
		if err != nil && !errors.Is(err, host.ErrLocked) {
			k.list = append(k.list, Action{Dir: k.Roots[0].Dir, Outcome: Broken, Err: err})
			return false
		}
	}
	return false
}

// lock takes the locks of the roots that stand, in their order.
func (k *keeper) lock() (locks []*host.DirLock, err error) {
	for _, r := range k.Roots {
		mark, err := host.ReadMark(r.Dir)
		if err != nil || !mark.Ours(k.Boot, k.UID) {
			continue
		}
		l, err := host.LockDir(r.Dir)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return locks, err
		}
		locks = append(locks, l)
	}
	return locks, nil
}

// relieve gives the solvent back to the stock scheduler and stops the held. The
// identity goes last of the roots that are empty: it names the turn.
func (k *keeper) relieve() {
	k.list = append(k.list, k.restore()...)
	held := func(name string) bool { _, is := k.held[name]; return is }
	for _, r := range slices.Backward(k.Roots) {
		mark, err := host.ReadMark(r.Dir)
		if err != nil || !mark.Ours(k.Boot, k.UID) {
			continue
		}
		a := Action{Dir: r.Dir}
		if a.Outcome, a.Err = thaw(r, held, true); a.Err != nil {
			a.Outcome = Broken
		}
		k.report(a)
	}
}

// restore gives the dead node's guests back.
func (o orders) restore() []Action {
	return restoreGuests(o.Mount, o.Boot, o.UID, func(_, root string) bool {
		return len(o.Roots) > 0 && root == o.Roots[0].Dir
	})
}

// report keeps the last word on each directory.
func (k *keeper) report(a Action) {
	i := slices.IndexFunc(k.list, func(b Action) bool { return a.Dir == b.Dir })
	if i < 0 {
		k.list = append(k.list, a)
		return
	}
	k.list[i] = a
}

// end ends the trees whose grace is over, all at once: SIGTERM with a little
// processor time for the handlers, then SIGKILL. Their directories stay for the
// next daemon, which bills what their counters say.
func (k *keeper) end(due []string) {
	roster := k.roster()
	due = slices.DeleteFunc(due, func(name string) bool {
		_, err := os.Stat(filepath.Join(roster.Dir, name))
		delete(k.held, name)
		return err != nil // gone before its time
	})
	ended := make(map[string]int, len(due))
	var errs []error
	for _, name := range due {
		dir := filepath.Join(roster.Dir, name)
		pids, err := members(dir)
		ended[name] = len(pids)
		errs = append(errs, err, k.lane(name), signalAll(dir, pids, unix.SIGTERM), release(dir, roster.V2))
	}
	inhabited := func(name string) bool {
		left, err := anyone(filepath.Join(roster.Dir, name))
		return err == nil && left
	}
	until(laneTime, func() bool { return !slices.ContainsFunc(due, inhabited) })
	var dirs []string
	for _, name := range due {
		dir := filepath.Join(roster.Dir, name)
		dirs, errs = append(dirs, dir), append(errs, killTree(dir, roster.V2))
	}
	emptied(roster.V2, func() bool { return !slices.ContainsFunc(due, inhabited) }, dirs...)
	for _, name := range due {
		k.report(Action{Dir: filepath.Join(roster.Dir, name), Outcome: Thawed, Ended: ended[name], Err: k.clear(name)})
	}
	for _, err := range errs {
		if err != nil && !host.Gone(err) {
			k.list = append(k.list, Action{Dir: roster.Dir, Outcome: Broken, Err: err})
		}
	}
	k.relieve()
}

// roster is the root whose groups know their members.
func (k *keeper) roster() Root {
	i := slices.IndexFunc(k.Roots, func(r Root) bool {
		_, err := os.Stat(filepath.Join(r.Dir, "freezer.state"))
		return r.V2 || err == nil
	})
	return k.Roots[max(i, 0)]
}

// lane gives a stopped group the dying lane's time, at most.
func (k *keeper) lane(name string) error {
	var errs []error
	for _, r := range k.Roots {
		dir := filepath.Join(r.Dir, name)
		file, most, weight := "cpu.cfs_quota_us", spanV1().most, "cpu.shares"
		if r.V2 {
			file, most, weight = "cpu.max", spanV2().most, "cpu.weight"
		}
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			continue
		}
		errs = append(errs, optional(filepath.Join(dir, "cpu.idle"), "0"),
			optional(filepath.Join(dir, weight), fmt.Sprint(most)),
			writeQuota(dir, r.V2, laneQuota()))
	}
	return errors.Join(errs...)
}

// clear ends who left a group's identity and is still in one of its v1 directories:
// it was started in it.
func (k *keeper) clear(name string) error {
	var errs []error
	for _, r := range slices.Backward(k.Roots) {
		if !r.V2 {
			_, err := sweep(filepath.Join(r.Dir, name), unix.SIGKILL, sweepPatience)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
