package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// adoptPatience is how long the roots of a dead daemon may stay locked: by a child
// between fork and exec, or by its watchdog, which is just ending those whose grace is
// over (keeper.end) and on a full machine needs all of its own patience for that.
const adoptPatience = laneTime + killPatience + 2*sweepPatience

// BusyError refuses a name under which another daemon lives.
type BusyError struct{ Dir string }

// Error names the directory and the remedy.
func (e *BusyError) Error() string {
	return e.Dir + " is held by a living daemon; stop that one first"
}

// Unwrap is host.ErrLocked.
func (e *BusyError) Unwrap() error { return host.ErrLocked }

// adopt takes the roots of this name that a dead daemon left, and makes those
// that it did not have. False means that there is none, or that the name is
// somebody else's in one of the hierarchies.
func (e *Enforcer) adopt(name string, mark host.Mark) (adopted bool, err error) {
	e.name = name
	until(adoptPatience, func() bool {
		adopted, err = e.adoptOnce(mark)
		// Locked, or removed or made under our eyes: look again.
		return !errors.Is(err, host.ErrLocked) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist)
	})
	if errors.Is(err, host.ErrLocked) {
		return false, &BusyError{Dir: filepath.Join(e.plan.places[0].parent, name)}
	}
	return adopted, err
}

func (e *Enforcer) adoptOnce(mark host.Mark) (bool, error) {
	there := make([]bool, len(e.plan.places))
	for i := range e.plan.places {
		dir := filepath.Join(e.plan.places[i].parent, e.name)
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !sameMaker(dir, mark) {
			return false, nil
		}
		there[i] = true
	}
	if !slices.Contains(there, true) {
		return false, nil
	}
	for i := range e.plan.places {
		var r rooted
		var err error
		if there[i] {
			r, err = e.take(&e.plan.places[i], mark)
		} else {
			r, err = settleIn(&e.plan.places[i], e.name, mark)
		}
		if err != nil {
			return false, errors.Join(err, e.backOut())
		}
		e.roots = append(e.roots, r)
	}
	return true, nil
}

// sameMaker reports whether a directory is a daemon's, of this boot and this
// user. Root does not adopt what a user made.
func sameMaker(dir string, mark host.Mark) bool {
	m, err := host.ReadMark(dir)
	m.Trusted = false
	return err == nil && m == mark
}

// take locks the root of a dead daemon. It may have been removed since it was
// looked at, by whoever had the lock.
func (e *Enforcer) take(p *place, mark host.Mark) (rooted, error) {
	dir := filepath.Join(p.parent, e.name)
	lock, err := host.LockDir(dir)
	if err != nil {
		return rooted{}, err
	}
	if !stands(lock, dir) || !sameMaker(dir, mark) {
		return rooted{}, errors.Join(fmt.Errorf("adopt %s: %w", dir, fs.ErrNotExist), lock.Close())
	}
	return rooted{Root: Root{Dir: dir, V2: p.v2, Added: addedTo(dir)}, lock: lock, adopted: true}, nil
}

// stands reports whether a locked directory is still the one of its name.
func stands(lock *host.DirLock, dir string) bool {
	var have, want unix.Stat_t
	return unix.Fstat(lock.Fd(), &have) == nil && unix.Lstat(dir, &want) == nil && have.Dev == want.Dev && have.Ino == want.Ino
}

// backOut lets go of roots in which nothing was done yet: those that were
// adopted stay for the next try.
func (e *Enforcer) backOut() error {
	var errs []error
	for i := len(e.roots) - 1; i >= 0; i-- {
		r := &e.roots[i]
		if !r.adopted {
			errs = append(errs, removeTree(r.Dir, sweepPatience))
		}
		errs = append(errs, r.lock.Close())
	}
	e.roots = nil
	return errors.Join(errs...)
}

// giveUp ends an Enforcer that could not be opened. Workloads that were there
// before it are not its own to end.
func (e *Enforcer) giveUp() error {
	if slices.ContainsFunc(e.roots, func(r rooted) bool { return r.adopted }) {
		return e.Leave()
	}
	return e.Close()
}

// uncap takes the quotas off an adopted root and the groups in it.
func (r *rooted) uncap() error {
	names, err := groupsIn(r.Dir)
	if err != nil {
		return err
	}
	for _, name := range append(names, "") {
		err := writeQuota(filepath.Join(r.Dir, name), r.V2, quota{})
		if err != nil && !host.Gone(err) {
			return err
		}
	}
	return nil
}

// groupsIn lists the workloads' directories of a root.
func groupsIn(root string) ([]string, error) {
	list, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", root, bare(err))
	}
	var names []string
	for _, entry := range list {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), groupPrefix) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// seek finds the groups in adopted roots. Their names are not given again.
func (e *Enforcer) seek() error {
	for i := range e.roots {
		if !e.roots[i].adopted {
			continue
		}
		names, err := groupsIn(e.roots[i].Dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			e.names[name], e.found[name] = true, true
		}
	}
	return nil
}

// Found names the groups that a dead daemon left and that were neither adopted
// nor discarded yet, sorted.
func (e *Enforcer) Found() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.found))
}

// Adopt reopens a group that a dead daemon left. Frozen, it stays so until
// Thaw; its weight is unknown, and the first epoch writes it; its caps are
// written again. fs.ErrNotExist means that it is gone: nothing is left to be
// governed. What is left of it in other hierarchies is for Discard.
func (e *Enforcer) Adopt(slot int, directory string, l dispatch.Limits) (dispatch.Group, error) {
	if slot < 0 {
		return nil, fmt.Errorf("adopt group %s: slot %d is negative", directory, slot)
	}
	if err := e.supports(l); err != nil {
		return nil, err
	}
	if err := e.claim(slot, directory); err != nil {
		return nil, err
	}
	g := &Group{market: e, slot: slot, name: directory, limits: l, fresh: true}
	if err := g.reopen(); err != nil {
		e.mu.Lock()
		e.found[directory] = true
		e.mu.Unlock()
		return nil, errors.Join(fmt.Errorf("adopt group %s: %w", directory, err), g.closeKnobs())
	}
	e.seat(g)
	return g, nil
}

// claim takes a found group out of the list.
func (e *Enforcer) claim(slot int, directory string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return dispatch.ErrClosed
	}
	if !e.found[directory] {
		return fmt.Errorf("adopt group %s: %w", directory, fs.ErrNotExist)
	}
	if slot >= 0 {
		if err := e.vacantLocked(slot, directory); err != nil {
			return err
		}
	}
	delete(e.found, directory)
	return nil
}

// reopen joins the directories that are there, makes those that are not, and
// reads what the kernel was last told.
func (g *Group) reopen() error {
	e := g.market
	for i := range e.plan.places {
		dir := filepath.Join(e.roots[i].Dir, g.name)
		made := true
		if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
			made = false
		} else if err != nil {
			return fmt.Errorf("make %s: %w", dir, bare(err))
		}
		g.join(&e.plan.places[i], dir)
		if !made {
			continue
		}
		if dir == g.roster() {
			return errors.Join(fmt.Errorf("%s: %w", dir, fs.ErrNotExist), removeTree(dir, sweepPatience))
		}
		if err := g.gather(dir); err != nil {
			return err
		}
	}
	if err := g.identify(); err != nil {
		return err
	}
	if err := writeQuota(g.cpu.dir, g.cpu.v2, quota{}); err != nil { // a lane that its daemon left open
		return err
	}
	if err := g.cap(); err != nil {
		return err
	}
	if err := g.openKnobs(); err != nil {
		return err
	}
	return g.recall()
}

// gather puts the group's processes into a directory that was made after them.
func (g *Group) gather(dir string) error {
	pids, err := members(g.roster())
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := host.WriteOnce(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// recall reads who is stopped and who is idle.
func (g *Group) recall() error {
	stopped, err := os.ReadFile(g.stop.Path())
	if err != nil {
		return fmt.Errorf("read %s: %w", g.stop.Path(), bare(err))
	}
	if bytes.HasPrefix(stopped, []byte("1")) || bytes.HasPrefix(stopped, []byte("FR")) {
		g.held = heldByCall
	}
	idle, err := readNumber(g.cpu.file("cpu.idle"), "")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	g.idle = idle != 0
	return nil
}

// Discard ends every process of a found group and takes it away.
func (e *Enforcer) Discard(directory string) error {
	if err := e.claim(-1, directory); err != nil {
		return err
	}
	g := &Group{market: e, slot: -1, name: directory}
	for i := range e.plan.places {
		dir := filepath.Join(e.roots[i].Dir, directory)
		g.join(&e.plan.places[i], dir)
	}
	err := killTree(g.roster(), g.unified != "")
	if err == nil {
		emptied(g.unified != "", func() bool { populated, err := g.Populated(); return err != nil || !populated }, g.roster())
		err = g.Await(0)
	}
	if err == nil || host.Gone(err) || errors.Is(err, fs.ErrNotExist) {
		err = g.dismantle()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.found[directory] = true
		return fmt.Errorf("discard group %s: %w", directory, err)
	}
	delete(e.names, directory)
	return nil
}

// Leave ends a daemon whose workloads live on: its files are closed, its locks
// free, and every group is as it was last told to be. What is to happen to the
// groups until the next daemon comes is the watchdog's business. Roots without
// a group are taken away as by Close.
func (e *Enforcer) Leave() error {
	errs := []error{e.shut(true)}
	if errors.Is(errs[0], dispatch.ErrClosed) {
		return errs[0]
	}
	for i := len(e.roots) - 1; i >= 0; i-- {
		r := &e.roots[i]
		names, err := groupsIn(r.Dir)
		if len(names) == 0 && err == nil {
			if err = removeTree(r.Dir, sweepPatience); err == nil {
				err = r.restore()
			}
			if e.plan.places[i].leaf {
				leaveLeaf(e.plan.places[i].parent)
			}
		}
		errs = append(errs, err, r.lock.Close())
	}
	return errors.Join(errs...)
}
