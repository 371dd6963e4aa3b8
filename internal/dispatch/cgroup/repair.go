package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// Outcome is what was done to one marked directory.
type Outcome uint8

// Outcomes of a repair.
const (
	Removed Outcome = iota // its processes, if any, were ended, and it is gone
	Thawed                 // its processes go on; what was empty is gone
	Alive                  // its maker lives: not touched
	Foreign                // another boot's or another user's mark: not touched
	Broken                 // the repair failed: see Err
)

func (o Outcome) String() string {
	return [...]string{"removed", "thawed", "in use", "not ours", "failed"}[o]
}

// Action is one line of a repair's report.
type Action struct {
	Dir     string
	Outcome Outcome
	Ended   int // processes that were still in it and were ended
	Err     error
}

// String is the line.
func (a Action) String() string {
	line := a.Dir + ": " + a.Outcome.String()
	if a.Ended > 0 {
		line += fmt.Sprintf(", %d processes ended", a.Ended)
	}
	if a.Err != nil {
		line += ": " + a.Err.Error()
	}
	return line
}

// deepest is how far below the top of cgroup v2 a delegated scope can lie:
// user.slice/user-N.slice/user@N.service/app.slice/x.scope/maxwell, and two
// for nested managers.
const deepest = 8

// Repair cleans up after markets whose maker is dead: it looks in every
// mounted hierarchy for directories that carry Maxwell's mark of this boot and
// this user, and whose lock is free, ends or thaws what is in them by the mode
// on the mark, and removes them. Nothing else is touched, nor what is of a mode to
// spare: a dead daemon's workloads have a watchdog, and may have a next daemon.
func Repair(roots host.Roots, spare ...string) ([]Action, error) {
	layout, err := host.Discover(roots)
	if err != nil {
		return nil, err
	}
	boot, err := host.BootID(roots)
	if err != nil {
		return nil, err
	}
	var list []Action
	for _, root := range search(layout) {
		if mark, err := host.ReadMark(root.Dir); err == nil && slices.Contains(spare, mark.Mode) {
			continue
		}
		list = append(list, repair(root, boot, os.Geteuid()))
	}
	return append(list, restoreGuests(writable(layout.V2), boot, os.Geteuid(), hostIsDead)...), nil
}

// writable is the mount of a hierarchy in which something can be changed.
func writable(h host.Hierarchy) string {
	if h.ReadOnly {
		return ""
	}
	return h.Mount
}

// search finds the marked directories, those that are an identity first: cgroup v2,
// then the v1 freezer. Killing there empties the others, and in these the killed do
// not die while they are frozen there.
func search(l host.Layout) []Root {
	var found []Root
	if l.V2.Mount != "" && !l.V2.ReadOnly {
		for _, dir := range walk(l.V2.Mount, deepest) {
			found = append(found, Root{Dir: dir, V2: true, Added: addedTo(dir)})
		}
	}
	var mounts, rest []string
	if h := l.V1[host.Freezer]; h.Mount != "" && !h.ReadOnly {
		mounts = append(mounts, h.Mount)
	}
	for _, h := range l.V1 {
		if !h.ReadOnly && !slices.Contains(slices.Concat(mounts, rest), h.Mount) {
			rest = append(rest, h.Mount)
		}
	}
	slices.Sort(rest)
	for _, mount := range append(mounts, rest...) {
		for _, dir := range marked(mount) {
			found = append(found, Root{Dir: dir})
		}
	}
	return found
}

// walk finds marked directories down to a depth, and does not enter them.
func walk(top string, depth int) []string {
	found := marked(top)
	if depth == 0 {
		return found
	}
	list, err := os.ReadDir(top)
	if err != nil {
		return found
	}
	for _, entry := range list {
		dir := filepath.Join(top, entry.Name())
		if entry.IsDir() && !slices.Contains(found, dir) {
			found = append(found, walk(dir, depth-1)...)
		}
	}
	return found
}

// repair handles one marked directory.
func repair(r Root, boot string, uid int) Action {
	a := Action{Dir: r.Dir}
	mark, err := host.ReadMark(r.Dir)
	if err != nil || !mark.Ours(boot, uid) {
		a.Outcome = Foreign
		return a
	}
	lock, err := host.LockDir(r.Dir)
	if errors.Is(err, host.ErrLocked) {
		a.Outcome = Alive
		return a
	}
	if err != nil {
		a.Outcome, a.Err = Broken, err
		return a
	}
	a.Outcome, a.Ended, a.Err = salvage(r, mark.Mode)
	if a.Err != nil {
		a.Outcome = Broken
	}
	if err := lock.Close(); a.Err == nil {
		a.Err = err
	}
	return a
}

// salvage empties or frees one root whose maker is dead. The caller holds its
// lock.
func salvage(r Root, mode string) (Outcome, int, error) {
	if mode == ModeThaw {
		return thawAll(r)
	}
	pids, err := members(r.Dir)
	if err != nil {
		return Broken, 0, err
	}
	if err := empty(&r); err != nil {
		return Broken, 0, err
	}
	if err := removeTree(r.Dir, sweepPatience); err != nil {
		return Broken, len(pids), err
	}
	return Removed, len(pids), r.restore()
}

// thawAll gives the workloads of a dead daemon back to the stock scheduler,
// and tells its watchdog that this was done.
func thawAll(r Root) (Outcome, int, error) {
	removeAttr(r.Dir, turnAttr)
	outcome, err := thaw(r, func(string) bool { return false }, false)
	return outcome, 0, err
}

// thaw frees the groups of a root: thawed, without quota, at the usual weight.
// Directories that hold processes stay, with their memory and pids caps. Those
// that are held are stopped instead. With unread the empty ones stay too: their
// counters say what has not been billed yet.
func thaw(r Root, held func(name string) bool, unread bool) (Outcome, error) {
	names, err := groupsIn(r.Dir)
	if err != nil {
		return Broken, err
	}
	var errs []error
	kept := false
	for _, name := range names {
		dir := filepath.Join(r.Dir, name)
		if held(name) {
			errs = append(errs, stop(dir, r.V2))
		} else {
			errs = append(errs, unburden(dir, r.V2))
		}
		occupied, err := anyone(dir)
		kept = kept || occupied || unread
		if !occupied && !unread {
			err = errors.Join(err, removeTree(dir, sweepPatience))
		}
		errs = append(errs, err)
	}
	errs = append(errs, unburden(r.Dir, r.V2))
	if kept {
		return Thawed, errors.Join(errs...)
	}
	errs = append(errs, removeTree(r.Dir, sweepPatience), r.restore())
	return Removed, errors.Join(errs...)
}

// stop freezes a directory, if its hierarchy is the one that can.
func stop(dir string, v2 bool) error {
	file, word := "freezer.state", "FROZEN"
	if v2 {
		file, word = "cgroup.freeze", "1"
	}
	return optional(filepath.Join(dir, file), word)
}

// unburden undoes freeze, quota and weight of one directory. Files that its
// hierarchy does not have are passed over.
func unburden(dir string, v2 bool) error {
	type setting struct{ file, usual string }
	settings := []setting{{"freezer.state", "THAWED"}, {"cpu.cfs_quota_us", "-1"}, {"cpu.idle", "0"}, {"cpu.shares", "1024"}}
	if v2 {
		settings = []setting{{"cgroup.freeze", "0"}, {"cpu.max", "max 100000"}, {"cpu.idle", "0"}, {"cpu.weight", "100"}}
	}
	var errs []error
	for _, s := range settings {
		if err := optional(filepath.Join(dir, s.file), s.usual); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
