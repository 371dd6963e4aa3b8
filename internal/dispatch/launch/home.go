package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// joinError is a failure of the forking thread to enter a group; it is
// Maxwell's, not the command's.
type joinError struct {
	file string
	err  error
}

func (e *joinError) Error() string { return fmt.Sprintf("join %s: %v", e.file, e.err) }
func (e *joinError) Unwrap() error { return e.err }

// away is what the forking thread has to undo.
type away struct {
	tid      string
	home     []string     // tasks files to write the thread back to; empty where there is none
	affinity *unix.CPUSet // nil if it was not changed
}

// leaveHome moves the calling thread, which must be locked, into the v1 groups
// and onto the processors of a placement. The way back is known before the
// first step is made.
func leaveHome(p dispatch.Placement) (*away, error) {
	a := &away{tid: strconv.Itoa(unix.Gettid())}
	if len(p.Tasks) > 0 {
		home, err := ownTasks(p.Tasks)
		if err != nil {
			return a, err
		}
		for i, tasks := range p.Tasks {
			// Noted first: a thread that failed to enter goes home all the same.
			a.home = append(a.home, home[i])
			if err := host.WriteOnce(tasks, a.tid); err != nil {
				return a, &joinError{file: tasks, err: err}
			}
		}
	}
	if len(p.CPUs) == 0 {
		return a, nil
	}
	var old, sold unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return a, &joinError{file: "processors", err: err}
	}
	for _, cpu := range p.CPUs {
		sold.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &sold); err != nil {
		return a, &joinError{file: "processors", err: err}
	}
	a.affinity = &old
	return a, nil
}

// errNoHome is why a thread does not go back: its own group lies outside of the
// hierarchy's mount, and cannot be named.
var errNoHome = errors.New("the group of this program is out of its sight")

// goHome undoes leaveHome. Whatever fails, the rest is tried.
func (a *away) goHome() error {
	var errs []error
	for _, tasks := range a.home {
		if tasks == "" {
			errs = append(errs, errNoHome)
			continue
		}
		errs = append(errs, host.WriteOnce(tasks, a.tid))
	}
	if a.affinity != nil {
		errs = append(errs, unix.SchedSetaffinity(0, a.affinity))
	}
	return errors.Join(errs...)
}

// ownTasks finds, for each tasks file of a group, the one of the hierarchy's
// group that this program is in: where its main thread is, which never leaves.
func ownTasks(tasks []string) ([]string, error) {
	roots, err := host.Open()
	if err != nil {
		return nil, err
	}
	layout, err := host.Discover(roots)
	if err = errors.Join(err, roots.Close()); err != nil {
		return nil, err
	}
	return homesOf(layout, tasks)
}

func homesOf(layout host.Layout, tasks []string) ([]string, error) {
	home := make([]string, len(tasks))
	for i, file := range tasks {
		best := ""
		for _, h := range layout.V1 {
			if !strings.HasPrefix(file, h.Mount+"/") || len(h.Mount) <= len(best) {
				continue
			}
			best, home[i] = h.Mount, filepath.Join(h.Own, "tasks")
			if h.Outside {
				home[i] = ""
			}
		}
		if best == "" {
			return nil, &joinError{file: file, err: errors.New("its hierarchy is not mounted here")}
		}
	}
	return home, nil
}

// refuseFrozen looks before the fork leaps: a start into a frozen group hangs
// until the thaw.
func refuseFrozen(p dispatch.Placement) error {
	if p.Cgroup != "" {
		b, err := os.ReadFile(filepath.Join(p.Cgroup, "cgroup.freeze"))
		if err != nil {
			return fmt.Errorf("look at group %s: %w", p.Cgroup, plain(err))
		}
		if strings.TrimSpace(string(b)) == "1" {
			return fmt.Errorf("start in %s: %w", p.Cgroup, ErrFrozen)
		}
		return nil
	}
	for _, tasks := range p.Tasks {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(tasks), "freezer.state"))
		if err == nil && strings.TrimSpace(string(b)) != "THAWED" {
			return fmt.Errorf("start in %s: %w", filepath.Dir(tasks), ErrFrozen)
		}
	}
	return nil
}
